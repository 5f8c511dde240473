"""The benchmark of evaluation: what it says of made measurements, and that other scores than the peer's end it."""

from __future__ import annotations

import importlib
import json
import math
from typing import Any

import pytest

SCORES = [-10.0, -0.5, -200.0]
TEXTS = ["a", "b ", "c"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, repository: Any) -> Any:
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    return importlib.import_module("benchmark")


def made(script: Any, variant: str, results: list[Any], seconds: float = 2.0, peak: int = 100) -> Any:
    return script.Measurement(seconds=seconds, processed=3, peak_bytes=peak, unit="items", notes={"results": results})


def four(script: Any, scores: list[float]) -> dict[str, list[Any]]:
    """Ours twice as fast in writing and four times in scoring, in half the memory; one text of three differs."""
    return {
        "ours_generation": [made(script, "", TEXTS, seconds) for seconds in (9.0, 2.0, 1.0)],
        "lm_eval_generation": [made(script, "", ["a", "b", "d"], 4.0, 200)],
        "ours_likelihood": [made(script, "", scores, 1.0)],
        "lm_eval_likelihood": [made(script, "", SCORES, 4.0, 200)],
    }


def test_what_is_summarised(script: Any) -> None:
    summary = script.evaluate.summarise(four(script, [-10.0, -0.5 + 2e-6, -200.0 - 0.01]))
    assert summary == {
        "ratio": 2.0, "ratio_memory": 0.5, "same_completions": pytest.approx(2 / 3),
        "likelihood_ratio": 4.0, "likelihood_ratio_memory": 0.5,
        "max_score_difference": pytest.approx(5e-5),  # 0.01 of 200 nats; below one nat the difference itself counts
        "items_per_second": {"ours_generation": 1.5, "lm_eval_generation": 0.75, "ours_likelihood": 3.0,
                             "lm_eval_likelihood": 0.75},
    }  # fmt: skip
    alone = script.evaluate.summarise({"ours_likelihood": [made(script, "", SCORES)]})
    assert alone == {"items_per_second": {"ours_likelihood": 1.5}}
    with pytest.raises(ValueError, match="argument 2 is longer"):
        script.evaluate.summarise(four(script, SCORES[:2]))


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        (0.0, None),
        (0.9e-3, None),  # of 10 nats
        (1.1e-3, "scores differ by 0.00011, more than 0.0001"),
        (math.nan, "scores differ by nan, more than 0.0001"),
    ],
)
def test_other_scores_than_the_peers_end_it_after_everything_was_printed(
    moved: float, said: str | None, script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = four(script, [-0.5, -200.0, -10.0 + moved])
    measured["lm_eval_likelihood"][0].notes["results"] = [-0.5, -200.0, -10.0]
    monkeypatch.setattr(script, "measure_in_child", lambda variant, options: measured[variant][-1])
    asked = ["evaluate", "--repetitions", "1", "--rows", "3", "--batch-size", "2", "--json"]
    if said is None:
        script.main(asked)
    else:
        with pytest.raises(SystemExit, match=said) as ended:
            script.main(asked)
        assert isinstance(ended.value.code, str), "a message, which is exit status 1"
    out = capsys.readouterr().out
    for line in ("rows: 3", "batch_size: 2", "same_completions: 0.66", "max_score_difference: ", "items_per_second: {"):
        assert f"\n{line}" in out
    summary = json.loads(out.splitlines()[-1])
    assert (summary["rows"], summary["batch_size"]) == (3, 2)


def test_no_other_benchmark_calls_anything_wrong(script: Any) -> None:
    assert {name for name, one in script.BENCHMARKS.items() if one.problem({"max_score_difference": 1.0})} == {
        "evaluate"
    }
