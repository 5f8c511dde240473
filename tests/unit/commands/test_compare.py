"""The command line of `compare`: what it takes, what it prints and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from compared_runs import write_trial

from pipeline.commands.compare import compare_command, parse
from pipeline.errors import ConfigError


def test_words_options_and_outputs_in_any_order() -> None:
    request = parse(["a", "--by=form/all_checks", "--baseline", "b:sft", "runtime.outputs=/x=y", "wandb:e/p/g"])
    assert (request.words, request.outputs) == (["a", "wandb:e/p/g"], Path("/x=y"))
    assert (request.option("by"), request.option("baseline"), request.option("out")) == (
        "form/all_checks",
        "b:sft",
        None,
    )


@pytest.mark.parametrize(
    ("arguments", "told"), [(["--base", "x"], "Did you mean `--baseline`"), (["--by"], "needs a value")]
)
def test_what_does_not_belong_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse(arguments)


def test_the_same_runs_give_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        client = write_trial(tmp_path, number, 0.5, beta=number) / "wandb" / "run-20261128_170311-abc" / "files"
        client.mkdir(parents=True)
        (client / "config.yaml").write_text("_wandb: {}\n", encoding="utf-8")  # what W&B's client writes is no run
    arguments = ["sweep-*", f"runtime.outputs={tmp_path}"]
    assert compare_command(arguments) == 0
    folder = tmp_path / "comparisons" / "sweep-0_and_1_more"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"comparison.csv", "comparison.json"} <= set(first)
    assert compare_command([*arguments]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert json.loads(first["comparison.json"])["candidates"][1]["label"] == "beta=1"
    printed = capsys.readouterr().out
    assert "2 runs; ranked by form/all_checks: 2; baseline #1" in printed
    assert compare_command([*arguments, "--out", str(tmp_path / "here")]) == 0
    assert (tmp_path / "here" / "comparison.json").read_bytes() == first["comparison.json"]
    capsys.readouterr()
    assert compare_command([f"runtime.outputs={tmp_path}"]) == 0  # all runs that there are
    assert "2 runs; ranked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "reason"), [("file", "Not a directory"), ("file/x", "Not a directory"), ("/proc/x", "No such file")]
)
def test_a_place_that_takes_no_files_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, reason: str
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr("pipeline.comparison.selecting.choose", lambda *words: pytest.fail("runs were read"))
    with pytest.raises(ConfigError, match=f"^--out .*{place}: no files can be made there: {reason}.*Name a folder"):
        compare_command(["sweep-*", "--out", str(tmp_path / place), f"runtime.outputs={tmp_path}"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_comparing_imports_neither_torch_nor_a_tracking_client(tmp_path: Path) -> None:
    for number in range(2):
        write_trial(tmp_path, number, 0.5, beta=number)
    code = (
        "import sys; from pipeline.commands.compare import compare_command; "
        f"compare_command(['runtime.outputs={tmp_path}']); "
        "print([m for m in ('torch', 'transformers', 'wandb', 'pandas', 'hydra') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
