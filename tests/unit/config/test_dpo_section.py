"""The section `dpo`: every contradiction is one line that begins with its key, and no key is ignored in silence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.dpo import DPOConfig, dpo_problems, loss_settings
from pipeline.config.preference import LOSSES
from pipeline.config.shared import LoRAConfig


def test_the_defaults_are_sound() -> None:
    assert list(dpo_problems(DPOConfig())) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "ipo"}, "dpo.loss: there is no loss `ipo`."),
        ({"label_smoothing": 0.1}, "dpo.label_smoothing: no term of dpo.loss=sigmoid reads it; cdpo, robust, exo_pair"),
        ({"loss": "cdpo", "tie_threshold": 1.0}, "dpo.tie_threshold: no term of dpo.loss=cdpo reads it; rao_kupper"),
        ({"loss": "sigmoid", "target_margin": 1.0}, "dpo.target_margin: no term of dpo.loss=sigmoid reads it; simpo"),
        ({"loss": {"sigmoid": 1, "ipo_mean": 1}, "beta": 0.1}, "dpo.beta=0.1: "),
        ({"folds": [1, 1]}, "dpo.folds=[1, 1]: name some of the folds 0 to 4, each once."),
        ({"folds": [5]}, "dpo.folds=[5]: name some"),
        ({"lora": LoRAConfig(dropout=0.1)}, "dpo.lora.dropout: trained without dropout"),
    ],
)
def test_a_contradiction_is_one_line(changes: dict[str, Any], message: str) -> None:
    (problem,) = dpo_problems(DPOConfig(**changes))
    assert problem.startswith(message)


def test_what_a_loss_reads_is_accepted_and_passed_on() -> None:
    config = DPOConfig(loss={"cdpo": 0.5, "simpo": 0.5}, label_smoothing=0.2, target_margin=0.0)
    assert list(dpo_problems(config)) == []
    assert loss_settings(config) == {"label_smoothing": 0.2, "target_margin": 0.0}


def test_the_page_prints_the_betas_in_force(repository: Path) -> None:
    """Of every loss, in brackets at the end of its row; a loss without one says none."""
    page = (repository / "docs" / "preference.md").read_text(encoding="utf-8")
    table = page.partition("| `dpo.loss` |")[2].partition("\n\n")[0]
    printed: dict[str, float | None] = {}
    for line in table.splitlines()[2:]:
        _, names, _, beta, _ = line.split("|")
        number = re.search(r"\(([\d.]+)\)\s*$", beta)
        printed |= dict.fromkeys(re.findall(r"`(\w+)`", names), float(number[1]) if number else None)
    assert printed == {name: facts.beta for name, facts in LOSSES.items()}
