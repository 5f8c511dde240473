"""The command line as a user meets it: what it prints, how it exits, and how soon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import run
from pipeline.commands.composing import flags_in, overrides_in
from pipeline.commands.manual import page


def pipeline(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
    )


def test_help_lists_commands_experiments_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    printed = capsys.readouterr().out
    for word in ("train", "plan", "runs", "label push", "+experiment=sft", "sft.optimizer.learning_rate", "--multirun"):
        assert word in printed
    assert "prune" in page("runs")
    assert "label.project=NAME" in page("label")


def test_an_unknown_command_names_its_like(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trian"]) == 2
    assert "Did you mean `train`" in capsys.readouterr().err


def test_a_mistyped_key_ends_with_one_message_and_no_traceback() -> None:
    done = pipeline("train", "+experiment=sft", "sft.lora.rnak=3")
    assert done.returncode == 2
    assert "`sft.lora.rank`" in done.stderr
    assert "Traceback" not in done.stderr


def test_cfg_job_prints_the_composed_configuration() -> None:
    done = pipeline("train", "+experiment=sft", "sft.lora.rank=4", "--cfg", "job")
    assert done.returncode == 0
    assert "rank: 4" in done.stdout


def test_the_pickle_reading_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--experimental-rerun", "x"]) == 2
    assert "pickle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], False),
        (["train", "+experiment=sft", "x.y=1"], False),
        (["train", "--cfg", "job"], False),
        (["label", "push", "label.projet=x"], False),
    ],
)
def test_cheap_answers_import_nothing_heavy(arguments: list[str], heavy: bool) -> None:
    script = (
        "import sys\nfrom pipeline.__main__ import run\n"
        f"run({arguments!r})\n"
        "print('HEAVY', sorted({'torch', 'transformers', 'wandb', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("HEAVY []") is not heavy


def test_flags_and_overrides_are_told_apart() -> None:
    arguments = ["+experiment=sft", "-m", "--config-dir", "mine", "seed=1,2", "--cfg=job"]
    assert overrides_in(arguments) == ["+experiment=sft", "seed=1,2"]
    assert flags_in(arguments) == ["-m", "--config-dir", "mine", "--cfg=job"]


def test_completion_offers_commands_and_choices() -> None:
    commands = pipeline("-sc", "query=bash", COMP_LINE="pipeline tr", COMP_POINT="11")
    assert commands.stdout.split() == ["train"]
    models = pipeline("-sc", "query=bash", COMP_LINE="pipeline train model=", COMP_POINT="21")
    assert {"model=hub", "model=smollm2"} <= set(models.stdout.split())


@pytest.mark.slow
def test_every_job_of_a_sweep_runs_and_the_sweep_fails_if_one_does(tmp_path: Path) -> None:
    done = pipeline(
        "plan",
        "-m",
        "+experiment=curate",
        "curate.validation_fraction=0.1,1.5",
        f"runtime.outputs={tmp_path}",
        "tracking=disabled",
    )
    assert done.returncode == 2
    assert "1 of 2 jobs failed" in done.stderr
    assert "curate.validation_fraction=1.5" in done.stderr


def test_an_error_that_repeats_what_was_typed_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "sk-" + "canary0123456789canary"
    assert run(["train", "+experiment=sft", f"nonsense.key={secret}"]) == 2
    told = capsys.readouterr().err
    assert "nonsense" in told
    assert secret not in told
