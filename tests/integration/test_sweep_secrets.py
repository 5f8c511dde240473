"""Secrets of the environment, of overrides and of configuration files appear in nothing that a sweep leaves or says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sweeping import make_project, sweep_command, sweep_environment
from tracked_runs import files_below
from wandb_server import WandbServer

from pipeline.tracking.mirrored import MirroredRun
from pipeline.tracking.reading import read_offline

pytestmark = pytest.mark.integration

ENVIRONMENT = {
    "DATABASE_PASSWORD": "correct-horse-battery-staple-4711",
    "HF_TOKEN": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345",
    "WANDB_API_KEY": "0123456789abcdef" * 2 + "fedcba98",
}
GIVEN = {"config": "sk-" + "canary0123456789canary0123456789", "url": "hunter2-canary-7"}
LEAKY = "# @package _global_\ndefaults: [sft]\ntracking: {{project: {secret}}}\n"


def leaks(content: bytes) -> list[str]:
    return [name for name, secret in (ENVIRONMENT | GIVEN).items() if secret.encode() in content]


class Project:
    """A folder in which the command line is called; what it says is looked through at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_project(folder / "project")
        (folder / "home").mkdir()
        self.environment = {**sweep_environment(self.folder), **ENVIRONMENT, "HOME": str(folder / "home")}

    def call(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, cwd=self.folder, env=self.environment
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert not leaks(said.encode()), "the terminal shows a secret"
        assert done.returncode == status, said[-3000:]
        return said

    def sweep(self, *words: str, status: int = 0) -> str:
        command = [word for word in sweep_command(self.folder, *words) if word != "tracking=disabled"]
        return self.call(*command, "tracking=offline", status=status)


def groups_of_trials(runs: Path, folder: Path) -> dict[str, str]:
    """Return by trial's folder the group in the file that W&B's client wrote of its training."""
    found = {}
    for path in runs.glob("*/wandb/*.run.json"):
        run = MirroredRun.load(path)
        if run.job_type == "sft":
            found[path.parts[-3]] = read_offline(runs.parent / str(run.fragment), folder).group
    return found


def test_no_secret_is_in_what_a_sweep_leaves_or_sends(tmp_path: Path) -> None:
    project = Project(tmp_path)
    fixed = ("sft.max_steps=2", "objective=[{metric: validation_loss}]")
    drawn = ("sft.optimizer.learning_rate=tag(log,interval(1e-3,1e-2))", "sweep.method=random", "sweep.trials=2")
    project.sweep(*drawn, *fixed)
    runs = project.folder / "outputs" / "runs"
    (record,) = runs.glob("*/sweep.json")
    name = record.parent.name
    assert groups_of_trials(runs, tmp_path / "reader") == {f"{name}_0": name, f"{name}_1": name}
    project.call(sys.executable, "-m", "pipeline", "compare", name)
    project.sweep("sft.optimizer.learning_rate=1e-3,1e-2", *fixed, "sweep.wandb_file=sweep.yaml")
    with WandbServer(api_key=ENVIRONMENT["WANDB_API_KEY"]) as server:
        project.environment["WANDB_BASE_URL"] = server.url
        project.call(sys.executable, "-m", "pipeline", "runs", "sync")
        project.call(sys.executable, "-m", "pipeline", "runs", "workspace", name)
        assert (server.problems, len(server.views)) == ([], 1)
        assert server.leaks((ENVIRONMENT | GIVEN).values()) == []
        assert server.leaks(["validation_loss"]), "what was looked through is what is sent"
    left = {**files_below(tmp_path / "project"), **files_below(tmp_path / "home")}
    found = {name: kinds for name, content in left.items() if (kinds := leaks(content))}
    assert found == {}
    # What was looked through is what a sweep leaves: the parent's record, the children's, W&B's and the comparison.
    names = {Path(name).name for name in left}
    expected = "sweep.json sweep.yaml comparison.html comparison.json items.json report.html config.yaml run.log"
    assert {*expected.split(), "study.db", "manifest.json", "metrics.jsonl"} <= names
    assert any(name.endswith(".wandb") for name in names)
    assert sum(name == "work.json" for name in (Path(path).name for path in left)) == 2  # two children ran


@pytest.mark.parametrize(
    "words",
    [
        (f"tracking.project={GIVEN['config']}", "seed=1,2"),
        (f"tracking.project={GIVEN['config']},plain",),
        (f"model.id=https://me:{GIVEN['url']}@host/model", "seed=1,2"),
        (f"tracking.project={ENVIRONMENT['DATABASE_PASSWORD']}", "seed=1,2", "sweep.wandb_file=sweep.yaml"),
        (f"+sweep.space={{sft.lora.rank: [4, 8], tracking.project: [{GIVEN['config']}, plain]}}",),
        (f"sweep.space={{sft.lora.rank: [4, 8], tracking.project: [{GIVEN['config']}, plain]}}",),  # Hydra refuses it
    ],
)
def test_a_sweep_that_is_given_a_secret_does_not_start(tmp_path: Path, words: tuple[str, ...]) -> None:
    project = Project(tmp_path)
    project.sweep(*words, status=2)
    left = files_below(tmp_path / "project")
    assert {name: kinds for name, content in left.items() if (kinds := leaks(content))} == {}
    assert not (project.folder / "sweep.yaml").exists()


def test_a_secret_in_a_file_of_the_user_is_named_by_its_key_alone(tmp_path: Path) -> None:
    project = Project(tmp_path)
    own = project.folder / "own" / "experiment" / "leaky.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(LEAKY.format(secret=GIVEN["config"]))
    command = [*sweep_command(project.folder)[:5], "--config-dir", "own", "+experiment=leaky", "seed=1,2"]
    said = project.call(*command, status=2)
    assert "tracking.project: it looks like an API key" in said
    own.unlink()
    left = files_below(tmp_path / "project")
    assert {name: kinds for name, content in left.items() if (kinds := leaks(content))} == {}
