"""What judges say, as nodes: one `verdicts` per judge, suite and one or two policies, one `scorecard` per judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.config.evaluation import CriterionConfig, SuiteConfig, SuiteKind
from pipeline.config.judges import JudgeConfig, VotePool, judges_asked
from pipeline.config.root import EVALUATE
from pipeline.errors import ConfigError
from pipeline.evaluation.judges.protocol import Judge
from pipeline.evaluation.judges.registry import build_judge
from pipeline.evaluation.judges.reward_model import GOLD
from pipeline.graph.chain import Wiring
from pipeline.graph.judge_identity import checks_identity, files_of, identity_of, member_label, stage_of, with_checks
from pipeline.graph.nodes import Node, Source, safe_name
from pipeline.graph.spec import BASE

HUMAN = "human"


@dataclass(kw_only=True)
class _Entry:
    """A node of the report's inputs, and what the report must know to read it."""

    node: str
    params: dict[str, Any]


@dataclass
class Judging:
    """Collects the nodes of all judges. Policies of a pair are named later one first, so that it reads as progress."""

    wiring: Wiring
    judges: dict[str, JudgeConfig]
    dataset: tuple[Source, ...]
    baseline: str = BASE
    suites: Sequence[SuiteConfig] = ()  # of the run: what a judge that rates is measured by
    nodes: list[Node] = field(default_factory=list)
    _verdicts: list[_Entry] = field(default_factory=list)
    _scorecards: list[_Entry] = field(default_factory=list)
    _ratings: list[_Entry] = field(default_factory=list)
    _used: dict[str, JudgeConfig] = field(default_factory=dict)
    _built: dict[str, Judge | None] = field(default_factory=dict)
    _reward_models: dict[str, tuple[Source, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Give the export of `evaluate.votes` to the judges that are people and name none."""
        votes = self.wiring.config.evaluate.votes
        for name, judge in self.judges.items():
            if judge.kind == HUMAN and votes is not None and judge.params.get("votes") is None:
                self.judges[name] = replace(judge, params={**judge.params, "votes": votes})

    def add_suite(self, suite: SuiteConfig, samples: Mapping[str, str]) -> None:
        """Add the nodes of the judges of a suite; ``samples`` are its nodes by policy."""
        if suite.kind is not SuiteKind.generation:
            if suite.judges:
                self.wiring.problems.append(f"suite `{suite.name}`: judges compare completions, and it has none.")
            return
        policies = sorted(samples, key=lambda policy: policy != self.baseline)  # stable: the others keep their order
        named = [*suite.judges, *self.wiring.config.evaluate.judges]
        for name in judges_asked(named, self.judges):
            judge = self._judge(name)
            if judge is None or (judge.checks is None and not suite.checks and name not in suite.judges):
                # Of the run's judges one that counts a suite's checks has nothing to count here; a panel needs it.
                panels = [panel for panel in named if panel in self.judges and name in self.judges[panel].members]
                told = f"its member `{name}` counts a suite's checks, and `{suite.name}` has none. Name other suites."
                self.wiring.problems += [f"judge `{panel}`: {told}" for panel in panels if judge]
                continue
            single = judge.completions == 1
            groups = [(policy,) for policy in policies] if single else [(b, a) for a, b in combinations(policies, 2)]
            for group in groups:
                self._add_verdicts(name, judge, suite, group, samples)
            self._add_scorecard(name, judge, suite)
            if judge.rates and suite.rubric:
                for policy in policies:
                    self._add_ratings(name, judge, suite, policy, samples[policy])

    def measure(self, name: str, suite: SuiteConfig) -> None:
        """Add the scorecard of a judge alone."""
        judge = self._judge(name)
        if judge is not None:
            self._add_scorecard(name, judge, suite)

    def judges_of(self, suite: SuiteConfig) -> tuple[list[str], list[str]]:
        """Return who compares or scores the completions of a suite, and who rates them by its criteria.

        One that could not be built counts: that has been told, and what it would have said is no further mistake.
        """
        asked = judges_asked([*suite.judges, *self.wiring.config.evaluate.judges], self.judges)

        def among(entries: Sequence[_Entry]) -> list[str]:
            heard = {entry.params["judge"] for entry in entries if entry.params["suite"] == suite.name}
            return [name for name in asked if name in heard or self._built.get(name) is None]

        return among(self._verdicts), among(self._ratings)

    def sources(self) -> dict[str, tuple[Source, ...]]:
        """Return what the report reads of all this; nothing without judges, so that such a report stays as it was."""
        if not self._verdicts and not self._ratings:
            return {}
        return {
            "verdicts": tuple(Source(label=entry.node, node=entry.node) for entry in self._verdicts),
            "scorecards": tuple(Source(label=entry.node, node=entry.node) for entry in self._scorecards),
            "ratings": tuple(Source(label=entry.node, node=entry.node) for entry in self._ratings),
        }

    def params(self) -> dict[str, Any]:
        """Return what the report must be told, in the order of `sources`."""
        if not self._verdicts and not self._ratings:
            return {}
        return {
            "judges": dict(self._used),
            "verdicts": [entry.params for entry in self._verdicts],
            "scorecards": [entry.params for entry in self._scorecards],
            "ratings": [entry.params for entry in self._ratings],
        }

    def identity(self) -> dict[str, Any]:
        """Return what of it enters the report's fingerprint beside the verdicts themselves."""
        params = self.params()
        judges = {name: identity_of(judge) for name, judge in params.get("judges", {}).items()}
        return {**params, "judges": judges} if params else {}

    def _judge(self, name: str) -> Judge | None:
        """Build a judge once; a problem is told once."""
        if name not in self._built:
            self._built[name] = None
            config = self.judges.get(name)
            if config is not None:  # else its file could not be read, which has been told
                try:
                    self._built[name] = build_judge(config)
                    self._used[name] = config
                except ConfigError as error:
                    self.wiring.problems.append(str(error))
        return self._built[name]

    def _add_verdicts(
        self, name: str, judge: Judge, suite: SuiteConfig, group: tuple[str, ...], samples: Mapping[str, str]
    ) -> None:
        config = self.judges[name]
        labels = ("first", "second") if len(group) == 2 else ("samples",)
        compared = tuple(Source(label=label, node=samples[p]) for label, p in zip(labels, group, strict=True))
        said = [
            entry
            for entry in self._verdicts
            if entry.params["suite"] == suite.name and set(entry.params["policies"]) <= set(group)
        ]
        node = Node(
            name="-".join(["verdicts", *map(safe_name, (name, suite.name, *group))]),
            stage=EVALUATE,
            spec=stage_of(self.wiring.stages["verdicts"], config, judge),
            inputs={"samples": compared, **self._own_inputs(name, judge, said)},
            reads={"samples": ("samples",), "reward_model": ("reward",), "members": ("verdicts",)},
            params={
                "judge": config, "suite": suite, "suites": with_checks(suite, judge), "policies": list(group),
                "members": self._members(name, said),
            },
            identity={"judge": identity_of(config), **checks_identity(suite, judge)},
            files=files_of(config),
            model=config.model if judge.loads_model else None,
        )  # fmt: skip
        self.nodes.append(node)
        self._verdicts.append(
            _Entry(node=node.name, params={"judge": name, "suite": suite.name, "policies": list(group)})
        )

    def _add_ratings(self, name: str, judge: Judge, suite: SuiteConfig, policy: str, samples: str) -> None:
        """Let a judge rate the completions of a policy by the criteria of the suite."""
        config = self.judges[name]
        node = Node(
            name="-".join(["ratings", *map(safe_name, (name, suite.name, policy))]),
            stage=EVALUATE,
            spec=stage_of(self.wiring.stages["verdicts"], config, judge),
            inputs={"samples": (Source(label="samples", node=samples),)},
            reads={"samples": ("samples",)},
            params={
                "judge": config, "suite": suite, "suites": {}, "policies": [policy], "rubric": list(suite.rubric),
            },
            identity={"judge": identity_of(config), "rubric": list(suite.rubric)},
            files=files_of(config),
            model=config.model if judge.loads_model else None,
        )  # fmt: skip
        self.nodes.append(node)
        self._ratings.append(_Entry(node=node.name, params={"judge": name, "suite": suite.name, "policy": policy}))

    def _add_scorecard(self, name: str, judge: Judge, suite: SuiteConfig) -> None:
        """Measure a judge against people once, or once per suite where the suite's checks are what it goes by."""
        of_suite = suite.name if self._goes_by_suite(name) else None
        known = [entry.params for entry in self._scorecards]
        consumes = {consumed.role: consumed for consumed in self.wiring.stages["scorecard"].consumes}
        labels = self.wiring.sources(EVALUATE, consumes["labels"])
        if not labels or judge.is_people or {"judge": name, "suite": of_suite} in known:
            return
        config, asked = self.judges[name], self.wiring.config.evaluate.qualification
        rubric = self._rubric(name) if judge.rates else []
        measured = [entry for entry in self._scorecards if entry.params["suite"] in (None, of_suite)]
        held_out = asked.votes is VotePool.held_out
        node = Node(
            name="-".join(["scorecard", *map(safe_name, (name, *((of_suite,) if of_suite else ())))]),
            stage=EVALUATE,
            spec=stage_of(self.wiring.stages["scorecard"], config, judge),
            inputs={
                "labels": labels,
                **({"dataset": self.dataset} if held_out else {}),
                **self._own_inputs(name, judge, measured),
            },
            reads={
                "labels": ("items", "votes"), "dataset": ("comparisons/test",), "reward_model": ("reward",),
                "members": ("verdicts",),
            },
            required={"dataset": ("comparisons/test",)} if held_out else {},
            needed_by=f"the judge {name!r} (or write evaluate.qualification.votes=all)",
            params={"judge": config, "suite": suite, "suites": with_checks(suite, judge), "qualification": asked,
                    "rubric": rubric, "members": self._members(name, measured)},
            identity={
                "judge": identity_of(config),
                "pairs": {key: getattr(asked, key) for key in ("votes", "num_pairs", "num_probes")},
                **checks_identity(suite, judge),
                **({"rubric": rubric} if rubric else {}),
            },
            files=files_of(config),
            model=config.model if judge.loads_model else None,
        )  # fmt: skip
        self.nodes.append(node)
        self._scorecards.append(_Entry(node=node.name, params={"judge": name, "suite": of_suite}))

    def _goes_by_suite(self, name: str) -> bool:
        """Whether a judge, or a member of the panel that it is, counts the checks of a suite."""
        asked = [self._judge(one) for one in (name, *self.judges[name].members)]
        return any(judge is not None and judge.checks is None for judge in asked)

    def _rubric(self, name: str) -> list[CriterionConfig]:
        """Return every criterion that a judge rates by, in any suite; one name is one criterion."""
        found: dict[str, tuple[str, CriterionConfig]] = {}
        for suite in self.suites:
            if name in judges_asked([*suite.judges, *self.wiring.config.evaluate.judges], self.judges):
                for criterion in suite.rubric:
                    other, known = found.setdefault(criterion.name, (suite.name, criterion))
                    if known != criterion:
                        self.wiring.problems.append(
                            f"judge `{name}`: the suites `{other}` and `{suite.name}` describe the criterion "
                            f"`{criterion.name}` differently, and its ratings are measured by name. Rename one."
                        )
        return [criterion for _, criterion in found.values()]

    def _own_inputs(self, name: str, judge: Judge, entries: Sequence[_Entry]) -> dict[str, tuple[Source, ...]]:
        """Return what a judge reads beside completions: a reward model, or what the members of a panel say."""
        config, inputs = self.judges[name], dict[str, tuple[Source, ...]]()
        if judge.reward_model:
            inputs["reward_model"] = self._reward_model(name, judge.reward_model)
        if config.members:
            said = self._members(name, entries)
            nodes = {member_label(entry.params): entry.node for entry in entries}
            labels = [member_label(params) for params in said]
            inputs["members"] = tuple(Source(label=label, node=nodes[label]) for label in labels)
        return inputs

    def _members(self, name: str, entries: Sequence[_Entry]) -> list[dict[str, Any]]:
        """Return which of the nodes so far are the members of a panel, in the order of its configuration."""
        members = self.judges[name].members
        return [entry.params for member in members for entry in entries if entry.params["judge"] == member]

    def _reward_model(self, name: str, wanted: str) -> tuple[Source, ...]:
        """Return the reward model of a judge; what is wrong with it is told once, however often it judges."""
        if name not in self._reward_models:
            self._reward_models[name] = self._found_reward_model(name, wanted)
        return self._reward_models[name]

    def _found_reward_model(self, name: str, wanted: str) -> tuple[Source, ...]:
        asked = self.wiring.override(EVALUATE, GOLD) if wanted == GOLD else None
        value = asked or wanted
        if value == GOLD and GOLD not in self.wiring.before(EVALUATE):
            self.wiring.problems.append(
                f"judge `{name}`: it needs a reward model that has seen other votes than the policies. Set "
                "`inputs.evaluate.gold=gold`, which trains one, or an artifact's id or path."
            )
            return ()
        return self.wiring.named(EVALUATE, ArtifactKind.reward_model, value, f"judge `{name}`")
