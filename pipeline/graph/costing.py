"""`evaluate.costs` as a node: one policy, run in several ways on the items of one suite."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.graph.chain import Wiring
from pipeline.graph.nodes import Node
from pipeline.graph.policies import EvaluatedPolicy
from pipeline.runtime.environment import cpu_name


def costs_node(
    wiring: Wiring, policies: Mapping[str, EvaluatedPolicy], suites: Mapping[str, SuiteConfig], samples: list[Node]
) -> Node | None:
    """Return the node, or None where nothing is asked for or something is wrong with it.

    It asks the items that `samples` of the same suite and policy ask, as far as there are enough.
    """
    costs = wiring.config.evaluate.costs
    if not costs.enabled:
        return None
    written = [name for name, suite in suites.items() if suite.kind is SuiteKind.generation]
    suite_name = costs.suite or next(iter(written), None)
    local = [name for name, policy in policies.items() if policy.endpoint is None]
    policy_name = costs.policy or next(iter(reversed(local)), None)
    names = [variant.name for variant in costs.variants]
    problems = []
    if suite_name not in written:
        problems.append(
            f"evaluate.costs.suite: `{suite_name}` is no generation suite of the run ({', '.join(written)})."
        )
    if policy_name not in local:
        problems.append(f"evaluate.costs.policy: `{policy_name}` is none of the local policies ({', '.join(local)}).")
    if len(names) < 2 or len(set(names)) < len(names):
        problems.append("evaluate.costs.variants: name at least two, each differently.")
    wiring.problems.extend(problems)
    if problems:
        return None
    like = next(
        node for node in samples if (node.params["suite"].name, node.params["policy_name"]) == (suite_name, policy_name)
    )
    suite = replace(suites[str(suite_name)], limit=costs.items)
    variants, runtime = [vars(variant) for variant in costs.variants], wiring.config.runtime
    return replace(
        like,
        name="costs",
        spec=wiring.stages["costs"],
        params={
            "suite": suite,
            "suites": {suite.name: suite},
            "policy_name": policy_name,
            "costs": costs,
            "confidence": wiring.config.evaluate.confidence,
        },
        identity={
            **like.identity,
            "checks": suite.checks,
            "policy_name": policy_name,
            "suite_name": suite_name,
            "confidence": wiring.config.evaluate.confidence,
            "costs": {
                "items": costs.items,
                "variants": variants,
                "passes": costs.passes,
                "max_seconds": costs.max_seconds,
            },
            # Times, and whether a variant runs at all, depend on where it runs.
            "machine": {"cpu": cpu_name(), "cpu_count": os.cpu_count()},
            "runtime": {"device": runtime.device, "num_threads": runtime.num_threads},
        },
    )
