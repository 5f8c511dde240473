from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.artifacts.checkpoints import CheckpointFolder
from pipeline.errors import CheckpointError

FILES = {"adapter.safetensors": b"weights", "optimizer.pt": b"moments", "rng.json": b"{}"}


def commit(folder: CheckpointFolder, step: int, **facts: object) -> None:
    draft = folder.draft()
    for name, content in FILES.items():
        (draft / name).write_bytes(content + str(step).encode())
    folder.commit(draft, step, dict(facts))


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def test_the_newest_checkpoint_comes_back_with_its_facts(folder: CheckpointFolder) -> None:
    notices: list[str] = []
    assert folder.newest(notices.append) is None
    commit(folder, 2, epoch=0.5)
    commit(folder, 10, epoch=1.5, best=2)
    newest = folder.newest(notices.append)
    assert newest is not None
    assert (newest.step, newest.facts) == (10, {"epoch": 1.5, "best": 2})
    assert (newest.path / "adapter.safetensors").read_bytes() == b"weights10"
    assert folder.step(2).facts == {"epoch": 0.5}
    assert notices == []


@pytest.mark.parametrize("name", [*FILES, "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["empty", "half", "one byte less", "one bit", "deleted"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(
    folder: CheckpointFolder, name: str, damage: str
) -> None:
    commit(folder, 4)
    commit(folder, 8)
    path = folder.step(8).path / name
    content = path.read_bytes()
    flipped = bytes([content[0], content[1] ^ 1]) + content[2:]
    damaged = {"empty": b"", "half": content[: len(content) // 2], "one byte less": content[:-1], "one bit": flipped}
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    notices: list[str] = []
    newest = folder.newest(notices.append)
    assert newest is not None
    assert newest.step == 4
    assert len(notices) == 1
    assert name in notices[0]
    assert (folder.path / "corrupt-step-00000008").is_dir()
    commit(folder, 8)  # done again: the name is free
    assert folder.step(8).step == 8


def test_training_never_starts_at_zero_in_silence(folder: CheckpointFolder) -> None:
    for step in (4, 8):
        commit(folder, step)
        (folder.step(step).path / "rng.json").write_bytes(b"?")
    for _ in range(2):  # the second attempt finds no checkpoint at all, only those set aside
        with pytest.raises(CheckpointError, match="not started again from the beginning"):
            folder.newest(lambda text: None)
    assert CheckpointError("").exit_status == 5


def test_order_is_by_step_and_not_by_time_of_writing(folder: CheckpointFolder) -> None:
    for step in (3, 1, 2):
        commit(folder, step)
    for step, time in ((1, 300), (2, 200), (3, 100)):
        os.utime(folder.step(step).path, (time, time))
    newest = folder.newest(print)
    assert newest is not None
    assert newest.step == 3
    folder.rotate(keep=2, also=set())
    assert folder.steps() == [2, 3]


def test_rotation_keeps_the_newest_and_those_asked_for(folder: CheckpointFolder) -> None:
    for step in range(1, 7):
        commit(folder, step)
    folder.rotate(keep=2, also={3})
    assert folder.steps() == [3, 5, 6]
    assert not list(folder.path.glob("tmp-*"))


def test_nothing_is_deleted_while_the_newest_is_bad(folder: CheckpointFolder) -> None:
    for step in (1, 2, 3):
        commit(folder, step)
    (folder.step(3).path / "rng.json").unlink()
    with pytest.raises(CheckpointError):
        folder.rotate(keep=1, also=set())
    assert folder.steps() == [1, 2, 3]


def test_a_checkpoint_of_the_same_step_is_replaced_whole(folder: CheckpointFolder) -> None:
    commit(folder, 5, best=1)
    commit(folder, 5, best=5)
    assert folder.step(5).facts == {"best": 5}
    assert [path.name for path in folder.path.iterdir()] == ["step-00000005"]


def test_an_interrupted_replacement_is_undone(folder: CheckpointFolder) -> None:
    commit(folder, 5, best=1)
    (folder.path / "step-00000005").rename(folder.path / "replaced-step-00000005")
    newest = folder.newest(print)
    assert newest is not None
    assert newest.facts == {"best": 1}


def test_a_checkpoint_under_the_name_of_another_step_is_refused(folder: CheckpointFolder) -> None:
    commit(folder, 5)
    (folder.path / "step-00000005").rename(folder.path / "step-00000009")
    with pytest.raises(CheckpointError, match="altered"):
        folder.step(9)
