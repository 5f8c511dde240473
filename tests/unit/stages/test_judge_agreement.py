"""The script that measures judges on PandaLM's votes: rules on made votes, and bad input as one message."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path) -> Any:
    """Import it as it is run, from a folder of its own."""
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("judge_agreement")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two people on twelve pairs of which the house style's checks prefer one, and a model that errs twice."""
    votes, stored = [], []
    for number in range(12):
        good, bad = f"Open page {number} and press Save.", f"I apologise!!! As an AI I cannot open page {number} ...."
        liked = 1 + number % 2
        first, second = (good, bad) if liked == 1 else (bad, good)
        texts = {"instruction": f"Where is page {number}?", "input": "", "response1": first, "response2": second}
        votes.append({"idx": number, **texts, "annotator1": liked, "annotator2": liked})
        stored.append({"idx": number, "gpt_result": 3 - liked if number < 2 else liked})
    made = tmp_path / "pandalm"
    made.mkdir()
    (made / "testset-v1.json").write_text(json.dumps(votes), encoding="utf-8")
    (made / "gpt-3.5-turbo-testset-v1.json").write_text(json.dumps(stored), encoding="utf-8")
    return made


@pytest.mark.slow
def test_rules_and_stored_verdicts_are_measured_and_a_suites_rules_do_not_apply(
    script: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(folder), "--judges", "rules", "style"]) == 0
    out = capsys.readouterr().out
    assert "rules: does not apply to votes\n" in out
    cards = json.loads(out.splitlines()[-1])
    assert cards.keys() == {"style", "gpt-3.5-turbo"}
    stored = cards["gpt-3.5-turbo"]["agreement"]
    assert (stored["estimate"], stored["n"]) == (pytest.approx(10 / 12), 12)
    assert cards["style"]["agreement"]["n"] == 12
    assert "gpt-3.5-turbo: not qualified: 12 pairs with human votes, fewer than 30" in out


@pytest.mark.parametrize(
    ("told", "status", "expected"),
    [
        (["nowhere"], 2, "nowhere: there is no testset-v1.json"),
        (["pandalm", "--judges", "gold"], 2, "--judges gold: a reward model is needed. Write --reward-model"),
        (["pandalm", "--judges", "panel"], 2, "--judges gold: a reward model is needed"),
        (["pandalm", "--judges", "stile"], 2, "there is no judge `stile`"),
        (["pandalm", "--judges", "gold", "--reward-model", "reward-0123"], 4, "No reward_model 'reward-0123'"),
    ],
)
def test_what_is_wrong_is_one_message(
    told: list[str], status: int, expected: str, script: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(told) == status
    err = capsys.readouterr().err
    assert expected in err
    assert len(err.splitlines()) == 1
    assert not Path("outputs").exists() or not list(Path("outputs").rglob("manifest.json")), "nothing was made before"


def test_stored_verdicts_on_other_pairs_are_refused(
    script: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "gpt-3.5-turbo-testset-v1.json").write_text('[{"idx": 99, "gpt_result": 1}]', encoding="utf-8")
    assert script.main([str(folder), "--judges", "style"]) == 2
    assert "gpt-3.5-turbo-testset-v1.json: not PandaLM's stored verdicts" in capsys.readouterr().err
