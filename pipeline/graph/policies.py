"""What `evaluate` may compare: the base, stages, artifacts, plain adapters, other models, and models behind HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.artifacts.adapter_folder import ADAPTER_CONFIG
from pipeline.artifacts.manifest import MANIFEST_NAME, ArtifactKind
from pipeline.config.endpoints import HTTP, EndpointConfig
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.config.root import EVALUATE
from pipeline.config.shared import ModelConfig, ModelSource, Quantization
from pipeline.data.endpoint_address import address_problem, find_key
from pipeline.errors import ConfigError
from pipeline.graph.chain import Wiring
from pipeline.graph.nodes import Source
from pipeline.graph.spec import BASE

KEY = "inputs.evaluate.policy"
HUB, FOLDER = "hub:", "folder:"
ARTIFACT_ID = re.compile(r"(?P<stage>[a-z][a-z0-9_]*)-[0-9a-f]{16}-(?P<content>[0-9a-f]{8})[0-9a-f]{8}")


@dataclass(frozen=True, kw_only=True)
class EvaluatedPolicy:
    """One policy, from one place; the run's base model where nothing is set."""

    name: str  # in the report
    source: tuple[Source, ...] = ()  # a stage or a sealed artifact
    adapter: Path | None = None  # a folder with an adapter of the run's base
    model: ModelConfig | None = None  # another causal language model
    endpoint: EndpointConfig | None = None  # a model behind HTTP

    def identity(self) -> dict[str, Any]:
        """Return what of the policy enters a fingerprint beside its inputs, its base and its adapter."""
        return {} if self.endpoint is None else {"endpoint": self.endpoint}


def evaluated_policies(wiring: Wiring) -> dict[str, EvaluatedPolicy]:
    """Return the policies by name: those asked for, else the base and every policy of the chain."""
    asked = wiring.override(EVALUATE, "policy") or []
    produced = [stage for stage in wiring.before(EVALUATE) if wiring.stages[stage].kind == ArtifactKind.policy]
    policies: dict[str, EvaluatedPolicy] = {}
    for value in asked or [BASE, *produced]:
        found = len(wiring.problems)
        policy = _policy(wiring, str(value))
        if len(wiring.problems) > found:
            continue
        if policy.name in policies:
            wiring.problems.append(f"{KEY}: two of them are called {policy.name!r}; rename one folder.")
        policies[policy.name] = policy
    return policies


def likelihood_problems(policies: Mapping[str, EvaluatedPolicy], suites: Mapping[str, SuiteConfig]) -> list[str]:
    """Return a line for every suite that needs log-probabilities of given text, which no endpoint offers.

    Tasks of lm-eval are among them, because the kind alone does not tell which of them only write.
    """
    remote = [name for name, policy in policies.items() if policy.endpoint is not None]
    return [
        f"{KEY}: {', '.join(remote)} cannot be measured on the suite `{suite.name}`: it asks for the likelihood of "
        "given text, and an HTTP endpoint only writes text. Name generation suites alone in `evaluate.suites`."
        for suite in suites.values()
        if remote and suite.kind is not SuiteKind.generation
    ]


def _policy(wiring: Wiring, value: str) -> EvaluatedPolicy:
    config = wiring.config
    if value.startswith(HTTP):
        return _remote(wiring, value.removeprefix(HTTP))
    if value.startswith(HUB):
        name, _, revision = value.removeprefix(HUB).partition("@")
        return EvaluatedPolicy(name=name.split("/")[-1], model=_foreign(config.model, name, revision or None))
    path = Path(value.removeprefix(FOLDER)).expanduser()
    known = value in wiring.stages or value in {BASE, EVALUATE}
    plain = not known and path.is_dir() and not (path / MANIFEST_NAME).exists()
    if value.startswith(FOLDER) or plain:
        if not path.is_dir():
            wiring.problems.append(f"{KEY}={value}: there is no such folder.")
        if (path / ADAPTER_CONFIG).exists():
            return EvaluatedPolicy(name=path.resolve().name, adapter=path)
        return EvaluatedPolicy(name=path.resolve().name, model=_foreign(config.model, str(path), None))
    source = wiring.named(EVALUATE, ArtifactKind.policy, value, KEY)
    return EvaluatedPolicy(name=short_name(source[0].label) if source else value, source=source)


def short_name(label: str) -> str:
    """Return what a policy is called in a report: of an artifact's id the stage and eight digits of its content."""
    found = ARTIFACT_ID.fullmatch(label)
    return f"{found['stage']}-{found['content']}" if found else label


def _foreign(model: ModelConfig, name: str, revision: str | None) -> ModelConfig:
    """Return how another model is loaded: with its own tokenizer and template, in the run's number format.

    The system prompt is the run's own model's: it may say who that is.
    """
    return replace(
        model, source=ModelSource.hub, id=name, revision=revision, chat_template=None, system_prompt=None,
        context_length=None, quantization=Quantization.none,
    )  # fmt: skip


def _remote(wiring: Wiring, name: str) -> EvaluatedPolicy:
    endpoint = wiring.endpoints.get(name)
    if endpoint is None:  # its file could not be read, which has been told
        return EvaluatedPolicy(name=name)
    problem = address_problem(endpoint.base_url)
    try:
        find_key(endpoint.api_key_env)
    except ConfigError as error:
        problem = problem or str(error)
    if problem is not None:
        wiring.problems.append(f"endpoint `{name}`: {problem}")
    return EvaluatedPolicy(name=name, endpoint=endpoint)
