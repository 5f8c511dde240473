"""The process is ended at every named step of every save; a rerun must come to the same result, and no reader ever
sees half of anything.

One driver process imports everything once and forks a child per kill, because the imports would be most of the time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fake_stages
import pytest

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.durable import KILL_POINTS
from pipeline.artifacts.store import Store

# Reads a job per line, {"outputs", "source", "kill", "steps"}; forks; answers with the child's raw wait status.
DRIVER = """
import json, os, pathlib, sys
import fake_stages
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.environ.pop("PIPELINE_KILL_AT", None)
        if job["kill"]:
            os.environ["PIPELINE_KILL_AT"] = job["kill"]
        os.environ["FAKE_STEP_LOG"] = job["steps"]
        config = fake_stages.make_config(pathlib.Path(job["outputs"]), pathlib.Path(job["source"]))
        config.force = job["force"]
        fake_stages.run_chain(config, say=lambda text: None)
        os._exit(0)
    print(os.waitpid(pid, 0)[1], flush=True)
"""
KILLED, DONE = 9, 0


class Driver:
    """Runs the fake chain in children that may be killed."""

    def __init__(self) -> None:
        tests = Path(fake_stages.__file__).parent
        self._process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            env={**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, kill: str = "", force: tuple[str, ...] = ()) -> int:
        """Run the chain below ``folder`` and return the wait status of its process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {
            "outputs": str(folder / "outputs"),
            "source": str(folder / "rows.txt"),
            "steps": str(folder / "steps"),
            "kill": kill,
            "force": list(force),
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=30) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def driver() -> Driver:
    driver = Driver()
    yield driver
    driver.close()


def results(folder: Path) -> dict[str, str]:
    """What the chain came to: the id of each node's artifact, by the newest run folder."""
    newest = max((folder / "outputs" / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    linked: dict[str, str] = json.loads((newest / "artifacts.json").read_text())
    return linked


def assert_nothing_half_sealed(folder: Path) -> None:
    """Whatever a reader can find is whole."""
    store = Store(folder / "outputs")
    visible = store.folders()
    assert [artifact.path for artifact in store.artifacts()] == [
        path for path in sorted(visible, key=lambda path: Artifact.open(path).manifest.created)
    ]
    for path in visible:
        assert Artifact.open(path).problems() == []
        assert Artifact.open(path).unlisted_files() == []
    pointers = sorted(store.artifact_root.glob("*.current")) if store.artifact_root.is_dir() else []
    for pointer in pointers:
        Artifact.open(store.artifact_root / pointer.read_text().strip())


def assert_tidy(folder: Path) -> None:
    """Nothing of the killed process is left."""
    outputs = folder / "outputs"
    assert [str(path) for path in outputs.rglob("tmp-*")] == []
    assert [path.name for path in (outputs / "work").iterdir() if path.is_dir()] == []
    assert list((outputs / "artifacts").glob("corrupt-*")) == []


@pytest.fixture(scope="module")
def expected(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The results of a chain that nobody killed."""
    folder = tmp_path_factory.mktemp("expected")
    fake_stages.write_source(folder / "rows.txt")
    assert driver.run(folder) == DONE
    assert (folder / "steps").read_text().split() == ["1", "2", "3", "4", "5", "6"]
    return results(folder)


def kill_and_go_on(driver: Driver, folder: Path, kill: str) -> bool:
    """Kill a run at a point and run again; return whether the point was passed at all."""
    fake_stages.write_source(folder / "rows.txt")
    status = driver.run(folder, kill)
    assert status in {KILLED, DONE}
    assert_nothing_half_sealed(folder)
    assert driver.run(folder) == DONE
    assert_nothing_half_sealed(folder)
    assert_tidy(folder)
    return status == KILLED


# A checkpoint is replaced only where a stage commits one step twice, which the fake chain does not: see below.
POINTS = [point for point in KILL_POINTS if point != "checkpoint.set_aside"]


@pytest.mark.parametrize("point", POINTS)
def test_a_rerun_after_a_kill_comes_to_the_same_result(
    driver: Driver, expected: dict[str, str], tmp_path: Path, point: str
) -> None:
    assert kill_and_go_on(driver, tmp_path, point), f"{point} is not passed"
    assert results(tmp_path) == expected


@pytest.mark.integration
@pytest.mark.parametrize("point", POINTS)
def test_and_so_it_does_after_a_kill_at_any_passage(
    driver: Driver, expected: dict[str, str], tmp_path: Path, point: str
) -> None:
    passage = 0
    while True:
        passage += 1
        folder = tmp_path / str(passage)
        folder.mkdir()
        killed = kill_and_go_on(driver, folder, f"{point}:{passage}")
        assert results(folder) == expected
        # At most the steps since the last checkpoint were made twice.
        assert len((folder / "steps").read_text().split()) <= fake_stages.NUM_STEPS + fake_stages.SAVE_EVERY
        if not killed:
            break
    assert passage > 1


@pytest.mark.parametrize("point", ["seal.manifest", "seal.synced", "seal.renamed", "seal.current", "seal.cleaned"])
def test_a_forced_run_that_is_killed_leaves_the_old_artifact_or_the_new(
    driver: Driver, expected: dict[str, str], tmp_path: Path, point: str
) -> None:
    fake_stages.write_source(tmp_path / "rows.txt")
    assert driver.run(tmp_path) == DONE
    for force in ("sft", "evaluate"):
        # Sealing the same content again publishes nothing, so those two points are not passed.
        published = point not in {"seal.synced", "seal.renamed"}
        assert driver.run(tmp_path, point, (force,)) == (KILLED if published else DONE)
        assert_nothing_half_sealed(tmp_path)
    assert driver.run(tmp_path) == DONE
    assert results(tmp_path) == expected


REPLACE = """
import pathlib, sys
from pipeline.artifacts.checkpoints import CheckpointFolder
folder = CheckpointFolder(pathlib.Path(sys.argv[1]))
for content in ("old", "new"):
    draft = folder.draft()
    (draft / "state").write_text(content)
    folder.commit(draft, 5, {"content": content})
"""


@pytest.mark.parametrize(
    ("kill", "content"),
    [
        ("checkpoint.synced:2", "old"),
        ("checkpoint.set_aside", "old"),
        ("checkpoint.renamed:2", "new"),
        ("checkpoint.committed:2", "new"),
    ],
)
def test_replacing_a_checkpoint_leaves_the_old_one_or_the_new_one(tmp_path: Path, kill: str, content: str) -> None:
    from pipeline.artifacts.checkpoints import CheckpointFolder

    command = [sys.executable, "-c", REPLACE, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, env={**os.environ, "PIPELINE_KILL_AT": kill}, check=False)
    assert done.returncode == -9
    newest = CheckpointFolder(tmp_path / "checkpoints").newest(print)
    assert newest is not None
    assert newest.facts == {"content": content}
    assert (newest.path / "state").read_text() == content


def test_the_check_for_half_sealed_folders_can_fail(driver: Driver, tmp_path: Path) -> None:
    fake_stages.write_source(tmp_path / "rows.txt")
    assert driver.run(tmp_path) == DONE
    assert_nothing_half_sealed(tmp_path)
    artifact = Store(tmp_path / "outputs").folders()[0]
    (artifact / "manifest.json").unlink()
    with pytest.raises(Exception, match="manifest.json is missing"):
        assert_nothing_half_sealed(tmp_path)
