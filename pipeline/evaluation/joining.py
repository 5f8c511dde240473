"""Samples of several policies, brought together item by item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.evaluation import EvaluateConfig, SuiteConfig, SuiteKind
from pipeline.errors import ArtifactError, ConfigError, DataError
from pipeline.evaluation.samples import GenerationSample, Sample, row_type, same_item

NAMED_IDS = 5  # ids that an error message lists


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySamples:
    """What one policy made of one suite."""

    policy: str
    suite: str
    artifact: str  # id of the samples artifact
    rows: Sequence[Sample]
    tokenizer: str = ""  # digest of what counted its tokens


@dataclass(frozen=True, kw_only=True)
class JoinedSuite:
    """One suite on which every policy has the same items, in the same order."""

    config: SuiteConfig
    rows: dict[str, list[Sample]]  # policy -> items that every policy has a result for; the baseline comes first
    items: list[Sample]  # every item as the baseline has it, with those that lack a result
    counts: list[dict[str, Any]]  # one entry per policy: what became of the items
    one_tokenizer: bool = True  # whether all policies count tokens alike

    @property
    def name(self) -> str:
        """Return the suite's name."""
        return self.config.name

    @property
    def num_items(self) -> int:
        """Return how many items there are, with those that lack a result."""
        return len(self.items)

    @property
    def policies(self) -> list[str]:
        """Return the policies, the baseline first."""
        return list(self.rows)

    @property
    def clusters(self) -> list[str]:
        """Return the cluster of each item."""
        return [row.cluster for row in next(iter(self.rows.values()))]


def join(
    samples: Sequence[PolicySamples], suites: Mapping[str, SuiteConfig], evaluate: EvaluateConfig
) -> list[JoinedSuite]:
    """Bring the samples of each suite together on identical items, in the order of `suites`.

    Raises:
        ArtifactError: Two policies were not given the same items, or one of them is missing or there twice.
        ConfigError: The baseline is not among the policies.
        DataError: No item of a suite has a result from every policy.
    """
    policies = list(dict.fromkeys(entry.policy for entry in samples))
    if evaluate.baseline not in policies:
        raise ConfigError(
            f"evaluate.baseline: `{evaluate.baseline}` is not among the policies ({', '.join(policies) or 'none'}). "
            "Name one of them, or add it to inputs.evaluate.policy."
        )
    policies.sort(key=lambda policy: policy != evaluate.baseline)  # stable: the others keep their order
    unknown = sorted({entry.suite for entry in samples} - suites.keys())
    if unknown:
        raise ArtifactError(f"There are samples of {', '.join(unknown)}, which is none of the suites of this report.")
    return [_join_suite(config, policies, [entry for entry in samples if entry.suite == name])
            for name, config in suites.items()]  # fmt: skip


def _join_suite(config: SuiteConfig, policies: list[str], samples: Sequence[PolicySamples]) -> JoinedSuite:
    found = Counter(entry.policy for entry in samples)
    for policy in policies:
        if found[policy] != 1:
            raise ArtifactError(
                f"suite {config.name}: the policy {policy} has {found[policy]} sets of samples and needs exactly one."
            )
    by_policy = {entry.policy: _by_id(entry, config) for entry in samples}
    _require_identical_items(config.name, policies, by_policy)
    ids = sorted(by_policy[policies[0]])
    without = {policy: {i for i in ids if by_policy[policy][i].unscored is not None} for policy in policies}
    excluded = set().union(*without.values())
    if len(excluded) == len(ids):
        reasons = Counter(row.unscored for rows in by_policy.values() for row in rows.values() if row.unscored)
        listed = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items())) or "the suite is empty"
        raise DataError(
            f"suite {config.name}: no item has a result from every policy ({listed}). Nothing can be compared."
        )
    kept = {policy: [by_policy[policy][i] for i in ids if i not in excluded] for policy in policies}
    counts = [_counts(config, policy, list(by_policy[policy].values()), kept[policy]) for policy in policies]
    one = len({entry.tokenizer for entry in samples}) == 1
    items = [by_policy[policies[0]][i] for i in ids]
    return JoinedSuite(config=config, rows=kept, items=items, counts=counts, one_tokenizer=one)


def _by_id(entry: PolicySamples, config: SuiteConfig) -> dict[str, Sample]:
    wanted = row_type(config.kind)
    rows = {row.id: row for row in entry.rows}
    if len(rows) != len(entry.rows) or not all(isinstance(row, wanted) for row in entry.rows):
        raise ArtifactError(
            f"suite {config.name}: {entry.artifact} must hold one {wanted.__name__} per item of a {config.kind} suite."
        )
    return rows


def _require_identical_items(suite: str, policies: list[str], by_policy: dict[str, dict[str, Sample]]) -> None:
    first = policies[0]
    for policy in policies[1:]:
        only_first = sorted(by_policy[first].keys() - by_policy[policy].keys())
        only_other = sorted(by_policy[policy].keys() - by_policy[first].keys())
        differing = [
            i for i in sorted(by_policy[first].keys() & by_policy[policy].keys())
            if not same_item([by_policy[first][i], by_policy[policy][i]])
        ]  # fmt: skip
        problems = [
            f"{text}: {_listed(ids)}"
            for text, ids in (
                (f"only {first} has", only_first),
                (f"only {policy} has", only_other),
                ("the same id stands for different items", differing),
            )
            if ids
        ]
        if problems:
            raise ArtifactError(
                f"suite {suite}: {first} and {policy} were not given the same items. {'; '.join(problems)}. "
                "Compare samples of one dataset and one limit."
            )


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED_IDS} more" if len(ids) > NAMED_IDS else ""
    return ", ".join(ids[:NAMED_IDS]) + more


def _counts(config: SuiteConfig, policy: str, rows: Sequence[Sample], kept: Sequence[Sample]) -> dict[str, Any]:
    """Count items so that compared + unscored + excluded_for_others = items."""
    unscored = Counter(row.unscored for row in rows if row.unscored is not None)
    truncated = sum(isinstance(row, GenerationSample) and row.finish_reason == "length" for row in rows)
    return {
        "suite": config.name,
        "policy": policy,
        "items": len(rows),
        "compared": len(kept),
        "excluded_for_others": len(rows) - unscored.total() - len(kept),  # has a result that another policy lacks
        "unscored": dict(sorted(unscored.items())),
        "truncated": truncated if config.kind is SuiteKind.generation else None,
    }
