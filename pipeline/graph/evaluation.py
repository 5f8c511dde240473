"""``evaluate`` as nodes: one `samples` per policy and suite, and one `report` that joins them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.config.gates import WIN_RATE, gate_problems, waiver_problems
from pipeline.config.judges import JudgeConfig
from pipeline.config.paths import find_file
from pipeline.config.root import EVALUATE, Config
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError
from pipeline.evaluation.metric_names import metric_names, reported_names
from pipeline.graph.chain import Wiring
from pipeline.graph.costing import costs_node
from pipeline.graph.judging import Judging
from pipeline.graph.nodes import Node, Source, safe_name
from pipeline.graph.policies import EvaluatedPolicy, evaluated_policies, likelihood_problems
from pipeline.graph.spec import BASE, StageSpec

REMOTE_ENTRY = "pipeline.stages.remote_samples:sample_endpoint"  # in place of the entry of `samples`
REPORT_READS = {  # parts of its inputs
    "samples": ("*",),
    "policies": ("*",),
    "dataset": ("*/*",),
    "verdicts": ("verdicts",),
    "scorecards": ("card",),
    "ratings": ("verdicts",),
    "reward_models": ("audit",),
    "costs": ("costs",),
}


def evaluation_nodes(
    wiring: Wiring, suites: Mapping[str, SuiteConfig], judges: Mapping[str, JudgeConfig]
) -> list[Node]:
    """Expand ``evaluate``: every policy on every suite, what judges say of it, then one report that joins them."""
    config, problems, stages = wiring.config, wiring.problems, wiring.stages
    consumed = next(entry for entry in stages["samples"].consumes if entry.role == "dataset")
    own = [suite.prompts is not None or suite.kind is SuiteKind.lm_eval for suite in suites.values()]
    without = bool(own) and all(own)  # then no suite asks for a data set
    dataset = wiring.sources(EVALUATE, replace(consumed, optional=without))
    policies = evaluated_policies(wiring)
    baseline = _baseline(config, policies)
    problems.extend(_problems(config, baseline, policies, suites))
    limited = {name: _limited(suite, config.evaluate.limit) for name, suite in suites.items()}
    samples = [
        _benchmark_node(stages["benchmark"], policy, suite)
        if suite.kind is SuiteKind.lm_eval
        else _samples_node(stages["samples"], policy, suite, dataset)
        for suite in limited.values()
        for policy in policies.values()
    ]
    # In the order of the inputs: which policy and which suite each artifact of samples belongs to.
    pairs = [{"policy": node.params["policy_name"], "suite": node.params["suite"].name} for node in samples]
    labels = [f"{pair['suite']}/{pair['policy']}" for pair in pairs]
    joined = tuple(Source(label=label, node=node.name) for label, node in zip(labels, samples, strict=True))
    judging = Judging(wiring, dict(judges), dataset, baseline, list(limited.values()))
    by_suite = {name: {n.params["policy_name"]: n.name for n in samples if n.params["suite"].name == name}
                for name in limited}  # fmt: skip
    for suite in limited.values():
        judging.add_suite(suite, by_suite[suite.name])
    problems.extend(_metric_problems(config, baseline, list(policies), limited, judging))
    costs = costs_node(wiring, policies, limited, samples)
    sealed = {name: replace(source, label=name) for name, policy in policies.items() for source in policy.source}
    report = Node(
        name="report",
        stage=EVALUATE,
        spec=stages["report"],
        inputs={
            "samples": joined,
            "policies": tuple(sealed.values()),
            "dataset": dataset,
            **judging.sources(),
            **_reward_models(wiring),
            **_costs(costs),
        },
        reads=REPORT_READS,
        params={"suites": limited, "sealed": list(sealed), "samples": pairs, "baseline": baseline, **judging.params()},
        identity={
            "policies": list(policies),
            "samples": pairs,
            "suite": dict(limited),
            "baseline": baseline,
            **judging.identity(),
        },
    )
    return [*samples, *judging.nodes, *([costs] if costs else []), report]


def _baseline(config: Config, policies: Mapping[str, EvaluatedPolicy]) -> str:
    """Return the policy that the others are compared with."""
    asked = config.evaluate.baseline
    return asked if asked is not None else BASE if BASE in policies else next(iter(policies), BASE)


def _problems(
    config: Config, baseline: str, policies: Mapping[str, EvaluatedPolicy], suites: Mapping[str, SuiteConfig]
) -> list[str]:
    """Return a line for everything that `evaluate` asks for and that cannot be measured."""
    problems = likelihood_problems(policies, suites)
    if policies and baseline not in policies:
        problems.append(
            f"evaluate.baseline={baseline}: it is not among the policies that are evaluated "
            f"({', '.join(policies)}). Add it to `inputs.evaluate.policy`, or name one of those."
        )
    if not suites:
        problems.append("evaluate.suites: none is named. Write `evaluate.suites=[NAME]`, a file of configs/suite/.")
    problems.extend(waiver_problems(config.evaluate.waivers, list(config.evaluate.gates)))
    return problems


def _metric_problems(
    config: Config, baseline: str, policies: Sequence[str], suites: Mapping[str, SuiteConfig], judging: Judging
) -> Iterator[str]:
    """Yield a line for every gate and every objective that is about a metric which no suite will have."""
    try:
        known = {name: metric_names(suite, *judging.judges_of(suite)) for name, suite in suites.items()}
    except ConfigError:  # a check that does not exist, which has been told
        return
    for name, gate in config.evaluate.gates.items():
        yield from gate_problems(name, gate, baseline, policies, known)
    for number, objective in enumerate(config.objective):
        place, _, metric = objective.metric.partition("/")
        if place in suites and not (metric and place in config.stages):  # else it is a metric of training
            key = f"objective[{number}].metric={objective.metric}"
            names = reported_names(suites[place], *judging.judges_of(suites[place]))
            yield from _objective_problems(key, metric, names, policies, baseline)


def _objective_problems(
    key: str, metric: str, names: Sequence[str] | None, policies: Sequence[str], baseline: str
) -> Iterator[str]:
    """Yield what is wrong with an objective that a suite measures: the run would find it out at its end."""
    if names is None:  # only running the suite can tell
        return
    # The baseline has no win rate: against itself nobody is asked.
    known = {f"{name}/{policy}" for name in names for policy in policies
             if policy != baseline or not name.startswith(WIN_RATE)}  # fmt: skip
    if metric not in known.union(names):
        yield (
            f"{key}: the suite has no such metric.{near_miss(metric, names)} Metrics: {', '.join(names)}; "
            f"METRIC/POLICY is that of one policy ({', '.join(policies)})."
        )


def _costs(node: Node | None) -> dict[str, tuple[Source, ...]]:
    """Return the measured costs as an input of the report; nothing where they were not asked for."""
    return {} if node is None else {"costs": (Source(label=node.name, node=node.name),)}


def _reward_models(wiring: Wiring) -> dict[str, tuple[Source, ...]]:
    """Return the reward models of the chain, whose audits the report shows; nothing where there is none."""
    before = wiring.before(EVALUATE)
    found = [stage for stage in before if wiring.stages[stage].kind == ArtifactKind.reward_model]
    return {"reward_models": tuple(Source(label=stage, node=stage) for stage in found)} if found else {}


def _samples_node(spec: StageSpec, policy: EvaluatedPolicy, suite: SuiteConfig, dataset: tuple[Source, ...]) -> Node:
    drawn: dict[str, object] = {"kind": suite.kind, "table": suite.table, "limit": suite.limit}
    parts: tuple[str, ...] = (f"{suite.table}/{suite.split}",)
    files: dict[str, str] = {}
    if suite.prompts is None:
        drawn |= {"split": suite.split}
    else:
        parts, files, dataset = (), {"suite.prompts": suite.prompts}, ()
        drawn |= {"columns": suite.columns, "name": suite.name}  # the name is in the ids of rows without one
    return Node(
        name=f"samples-{safe_name(suite.name)}-{safe_name(policy.name)}",
        stage=EVALUATE,
        # A model behind HTTP needs neither weights nor a tokenizer here, and no library moves what it writes.
        spec=spec if policy.endpoint is None else replace(spec, entry=REMOTE_ENTRY, uses_base=False, libraries=()),
        inputs={"dataset": dataset, "policy": policy.source},
        reads={"dataset": parts, "policy": ("policy",)},
        required={"dataset": parts},
        files=files,
        needed_by=f"the suite {suite.name!r}",
        params={
            "suite": suite,
            "policy_name": policy.name,
            "is_foreign": policy.model is not None,
            **policy.identity(),
        },
        # Names, descriptions and checks do not move what a policy writes, so changing them samples nothing again.
        identity={
            "suite": {**drawn, "sampling": suite.sampling, "batch_size": suite.batch_size},
            **policy.identity(),
        },
        model=policy.model,
        adapter=policy.adapter,
    )


def _benchmark_node(spec: StageSpec, policy: EvaluatedPolicy, suite: SuiteConfig) -> Node:
    """Let lm-eval run a task on a policy; every file of the task's folder is part of the task."""
    folder = None if suite.task_folder is None else find_file(suite.task_folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
    kept = [path for path in paths if "__pycache__" not in path.parts]
    asked = ("kind", "task", "num_fewshot", "chat_template", "limit", "batch_size")
    return Node(
        name=f"samples-{safe_name(suite.name)}-{safe_name(policy.name)}",
        stage=EVALUATE,
        spec=spec,
        inputs={"policy": policy.source},
        reads={"policy": ("policy",)},
        files={f"task file {path.relative_to(folder).as_posix()}": str(path) for path in kept} if folder else {},
        params={"suite": suite, "policy_name": policy.name, "is_foreign": policy.model is not None},
        identity={"suite": {name: getattr(suite, name) for name in asked}},
        model=policy.model,
        adapter=policy.adapter,
    )


def _limited(suite: SuiteConfig, limit: int | None) -> SuiteConfig:
    """Apply ``evaluate.limit`` on top of the suite's own."""
    limits = [bound for bound in (suite.limit, limit) if bound is not None]
    return replace(suite, limit=min(limits, default=None))
