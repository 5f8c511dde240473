"""Samples and costs that are cut off in the middle go on, end with the same bytes, and are not made again by others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_policies import evaluate, folder, home  # noqa: F401  (fixtures)

from pipeline.stages import costs, samples

SUITE = "kind: generation\ntable: demonstrations\nsplit: test\nbatch_size: 1\nsampling: {max_new_tokens: 8}\n"
VARIANTS = (
    "evaluate.costs.variants=[{name: fp32}, {name: merged, merged: true}]",
    "evaluate.costs.enabled=true", "evaluate.costs.items=3", "evaluate.costs.passes=1",
)  # fmt: skip


def made(outputs: str, stage: str, file: str) -> dict[str, bytes]:
    """Return one file of every artifact of a stage, by fingerprint."""
    found = [path for path in (Path(outputs) / "artifacts").glob(f"{stage}-*") if path.is_dir()]
    return {path.name.split("-")[1]: (path / file).read_bytes() for path in found}


def dies(function: Callable[..., Any], at: int, calls: list[int]) -> Callable[..., Any]:
    """Return the function as it is until its n-th call, which is a Ctrl-C."""

    def dying(*values: Any, **named: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == at:
            raise KeyboardInterrupt
        return function(*values, **named)

    return dying


def test_samples_go_on_behind_the_batch_that_was_finished(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    (home / "configs" / "suite" / "short.yaml").write_text(SUITE)
    monkeypatch.setattr(samples, "BATCHES_AT_A_TIME", 1)  # so that the few items here are several batches
    policies = f"base,{home / 'tuned'}"
    assert evaluate(home, "runtime.outputs=whole", policies=policies, suites="short") == 0
    whole = made("whole", "samples", "samples.jsonl")
    assert len(whole) == 2
    report = made("whole", "report", "report.json")

    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(samples, "generate", dies(samples.generate, 2, calls))
        assert evaluate(home, "runtime.outputs=cut", policies=policies, suites="short") != 0
    assert made("cut", "samples", "samples.jsonl") == {}
    capsys.readouterr()
    assert evaluate(home, "runtime.outputs=cut", policies=policies, suites="short") == 0
    assert "going on behind 1 items" in capsys.readouterr().out
    assert made("cut", "samples", "samples.jsonl") == whole
    assert made("cut", "report", "report.json") == report

    # Another chain that shares the policies samples nothing again, whatever it is called there.
    for shared in ("base", f"{home / 'tuned'},base"):
        assert evaluate(home, "runtime.outputs=cut", policies=shared, suites="short") == 0
        out = capsys.readouterr().out
        assert out.count("samples-short-") == out.count("reused    samples-") == shared.count(",") + 1
    assert made("cut", "samples", "samples.jsonl") == whole


def test_costs_go_on_behind_the_variant_that_was_measured(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    policies = f"base,{home / 'tuned'}"
    calls: list[int] = []
    real, measured_before = costs._run, dict[str, Any]()

    def measured_once(job: Any, suite: Any, adapter: Any, variant: Any, items: Any) -> Any:
        """Every process takes seconds to start: what one variant gave is given again."""
        if variant.name not in measured_before:
            measured_before[variant.name] = real(job, suite, adapter, variant, items)
        return measured_before[variant.name]

    monkeypatch.setattr(costs, "_run", measured_once)
    with monkeypatch.context() as patch:
        patch.setattr(costs, "_run", dies(costs._run, 2, calls))
        assert evaluate(home, *VARIANTS, "runtime.outputs=cut", policies=policies, suites="written") != 0
    assert made("cut", "costs", "variants.json") == {}
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(costs, "_run", dies(costs._run, 0, calls))
        assert evaluate(home, *VARIANTS, "runtime.outputs=cut", policies=policies, suites="written") == 0
    assert len(calls) == 1  # the first of the two had been kept
    resumed = made("cut", "costs", "variants.json")
    assert evaluate(home, *VARIANTS, "runtime.outputs=whole", policies=policies, suites="written") == 0
    assert made("whole", "costs", "variants.json") == resumed
    capsys.readouterr()
    # A second chain in which the same policy is measured measures nothing again.
    measured = f"evaluate.costs.policy={(home / 'tuned').name}"
    chain = f"base,{home / 'tuned'},{home / 'other'}"
    assert evaluate(home, *VARIANTS, measured, "runtime.outputs=cut", policies=chain, suites="written") == 0
    assert "costs                     reused" in capsys.readouterr().out
