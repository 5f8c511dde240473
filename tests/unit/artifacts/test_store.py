from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.artifacts.artifact import content_digest
from pipeline.artifacts.manifest import ArtifactKind, Manifest, Parent
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Artifact, Provenance, Store
from pipeline.errors import ArtifactError, LockError

FINGERPRINT = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "outputs")


def seal(store: Store, content: str = "weights", fingerprint: str = FINGERPRINT, **outcome: object) -> Artifact:
    with store.lock("sft", fingerprint):
        work = store.work("sft", fingerprint)
        (work.staging / "adapter").mkdir()
        (work.staging / "adapter" / "adapter.safetensors").write_text(content)
        (work.staging / "costs.json").write_text("{}")
        work.metrics.write_text('{"step": 1, "loss": 2.0}\n')
        values = {"parts": {"policy": "d" * 64}, "metrics": {"loss": 2.0}, "resolved": {"dtype": "float32"}, **outcome}
        return store.seal(
            work,
            kind=ArtifactKind.policy,
            stage="sft",
            version=1,
            fingerprint=fingerprint,
            parents=[Parent("dataset", ArtifactKind.dataset, "curate-x", {"demonstrations/train": "e" * 64})],
            config={"sft": {"seed": 17}},
            outcome=StageOutcome(**values),  # type: ignore[arg-type]
            provenance=Provenance(environment={"python": "3.11"}, wall_seconds=1.5),
        )


def test_what_is_sealed_is_what_is_read(store: Store) -> None:
    artifact = seal(store)
    assert artifact.id == f"sft-0123456789abcdef-{artifact.manifest.content_digest[:16]}"
    found = store.current("sft", FINGERPRINT)
    assert found is not None
    assert found.manifest == artifact.manifest
    assert found.file("adapter/adapter.safetensors").read_text() == "weights"
    assert set(found.manifest.files) == {"adapter/adapter.safetensors", "costs.json", "metrics.jsonl"}
    assert (found.manifest.metrics, found.manifest.wall_seconds) == ({"loss": 2.0}, 1.5)
    assert list(store.work_root.glob("sft-*/")) == []
    assert (store.artifact_root / "sft-0123456789abcdef.current").read_text().strip() == artifact.id
    assert store.current("sft", OTHER) is None


def test_a_file_outside_the_manifest_is_not_part_of_the_artifact(store: Store) -> None:
    artifact = seal(store)
    (artifact.path / "adapter" / "adapter_model.bin").write_text("smuggled")
    with pytest.raises(ArtifactError, match="has no file 'adapter/adapter_model.bin'"):
        artifact.file("adapter/adapter_model.bin")
    assert artifact.unlisted_files() == ["adapter/adapter_model.bin"]


@pytest.mark.parametrize("name", ["adapter/adapter.safetensors", "costs.json", "metrics.jsonl", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_any_damage_is_noticed_and_the_folder_set_aside(store: Store, name: str, damage: str) -> None:
    artifact = seal(store)
    path = artifact.path / name
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        at = content.index(b"2") if name == "manifest.json" else 0
        path.write_bytes(
            content[:-1] if damage == "cut" else content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        )
    with pytest.raises(ArtifactError):
        Artifact.open(artifact.path)
    notices: list[str] = []
    assert store.current("sft", FINGERPRINT, notices.append) is None
    assert len(notices) == 1
    assert name in notices[0]
    assert "will be made again" in notices[0]
    assert store.artifacts() == []
    assert [path.name for path in store.artifact_root.glob("corrupt-*")] == [notices[0].split()[-6]]
    assert seal(store).id == artifact.id  # recomputed under the same name
    assert store.current("sft", FINGERPRINT) is not None


def test_every_flipped_bit_of_a_manifest_is_noticed(store: Store) -> None:
    artifact = seal(store)
    path = artifact.path / "manifest.json"
    content = path.read_bytes()
    accepted = []
    for index in range(0, len(content), 5):
        path.write_bytes(content[:index] + bytes([content[index] ^ 4]) + content[index + 1 :])
        try:
            manifest = Artifact.open(artifact.path, verify=False).manifest
        except ArtifactError:
            continue
        accepted.append(manifest == artifact.manifest)
    assert all(accepted)  # only white space between the values can differ unnoticed
    assert len(accepted) < len(content) // 10


def test_a_manifest_of_another_format_or_shape_is_refused(store: Store) -> None:
    manifest = seal(store).manifest
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    with pytest.raises(ValueError, match="format version is 2"):
        Manifest.from_json(replace(manifest, format_version=2).to_json())
    with pytest.raises(ValueError, match="kind"):
        Manifest.from_json(replace(manifest, kind="weights").to_json())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="altered"):
        Manifest.from_json(json.dumps({**json.loads(text), "stage": "dpo"}))


def test_a_name_that_leads_out_of_the_folder_is_damage(store: Store) -> None:
    artifact = seal(store)
    record = artifact.manifest.files["costs.json"]
    evil = replace(artifact.manifest, files={"../../secret": record})
    problems = Artifact(artifact.path, evil).problems()
    assert any("leads out of the folder" in problem for problem in problems)


def test_a_link_in_an_artifact_is_damage(store: Store, tmp_path: Path) -> None:
    artifact = seal(store)
    costs = artifact.path / "costs.json"
    (tmp_path / "elsewhere").write_bytes(costs.read_bytes())
    costs.unlink()
    costs.symlink_to(tmp_path / "elsewhere")
    assert artifact.problems() == ["costs.json is not a plain file"]


def test_errors_name_what_is_needed_and_what_makes_it(store: Store, tmp_path: Path) -> None:
    artifact = seal(store)
    with pytest.raises(ArtifactError, match="is a policy, made by the stage 'sft'; a dataset is needed.*'curate'"):
        Artifact.open(artifact.path, ArtifactKind.dataset)
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(ArtifactError, match="manifest.json is missing. It is written last.*'sft'"):
        Artifact.open(tmp_path / "unfinished", ArtifactKind.policy)
    with pytest.raises(ArtifactError, match="no such folder"):
        Artifact.open(tmp_path / "nothing")


def test_references_are_paths_ids_and_unique_beginnings(store: Store) -> None:
    first, second = seal(store, "one"), seal(store, "two", OTHER)
    assert store.open(first.id).id == first.id
    assert store.open(str(second.path)).id == second.id
    assert store.open("sft-0123").id == first.id
    with pytest.raises(ArtifactError, match="begins several artifact ids"):
        store.open("sft-")
    with pytest.raises(ArtifactError, match="neither a sealed folder nor the beginning of an id"):
        store.open("dpo-")
    with pytest.raises(ArtifactError, match="a dataset is needed"):
        store.open(first.id, ArtifactKind.dataset)


def test_force_adds_an_artifact_and_moves_current(store: Store) -> None:
    first = seal(store, "one")
    second = seal(store, "two")
    assert {artifact.id for artifact in store.artifacts()} == {first.id, second.id}
    current = store.current("sft", FINGERPRINT)
    assert current is not None
    assert current.id == second.id
    assert store.is_current(second)
    assert not store.is_current(first)
    (second.path / "costs.json").write_text("?")
    older = store.current("sft", FINGERPRINT, lambda text: None)
    assert older is not None
    assert older.id == first.id


def test_sealing_the_same_content_twice_keeps_the_first_folder(store: Store) -> None:
    first = seal(store)
    second = seal(store, metrics={"loss": 3.0})
    assert second == first
    assert len(store.artifacts()) == 1
    assert not list(store.work_root.glob("sft-*/"))


def test_content_that_is_made_again_is_current_again(store: Store) -> None:
    first = seal(store, "one")
    assert seal(store, "two").id != first.id
    assert seal(store, "one").id == first.id
    found = store.current("sft", FINGERPRINT)
    assert found is not None
    assert found.id == first.id  # although the other one is newer


def test_a_damaged_folder_of_the_same_content_gives_way(store: Store) -> None:
    first = seal(store)
    (first.path / "costs.json").write_text("?")
    again = seal(store)
    assert (again.id, again.problems()) == (first.id, [])
    assert len(list(store.artifact_root.glob("corrupt-*"))) == 1


def test_work_that_a_crash_left_behind_its_result_goes_and_that_of_others_stays(store: Store) -> None:
    seal(store)
    work = store.work("sft", FINGERPRINT)
    store.discard_sealed_work("sft", FINGERPRINT)
    assert work.path.is_dir()  # somebody is about to write there
    shutil.rmtree(work.staging)
    with store.lock("sft", FINGERPRINT):
        store.discard_sealed_work("sft", FINGERPRINT)
        assert work.path.is_dir()
    store.discard_sealed_work("sft", FINGERPRINT)
    assert not work.path.exists()


def test_timings_do_not_move_the_content_digest(store: Store) -> None:
    first = seal(store).manifest
    record = first.files["costs.json"]
    for name in ("costs.json", "metrics.jsonl", "written.jsonl"):  # what tells of the course of a run, and no result
        files = {**first.files, name: replace(record, sha256="f" * 64)}
        assert content_digest(files) == first.content_digest
    for name in ("adapter/adapter.safetensors", "adapter/costs.json", "report.json"):
        files = {**first.files, name: replace(record, sha256="f" * 64)}
        assert content_digest(files) != first.content_digest
    files = {**first.files, "costs.json": replace(record, sha256="f" * 64)}
    assert Artifact(store.open("sft-").path, replace(first, files=files)).problems() == [
        "costs.json has another SHA-256 than when it was sealed"
    ]


def test_a_copied_artifact_is_found_without_its_pointer(store: Store, tmp_path: Path) -> None:
    artifact = seal(store)
    other = Store(tmp_path / "elsewhere")
    other.artifact_root.mkdir(parents=True)
    shutil.copytree(artifact.path, other.artifact_root / artifact.id)
    found = other.current("sft", FINGERPRINT)
    assert found is not None
    assert found.id == artifact.id
    assert other.is_current(found)
    assert str(tmp_path) not in (artifact.path / "manifest.json").read_text()


def test_of_several_without_a_pointer_the_newest_is_taken(store: Store) -> None:
    seal(store, "one")
    newest = seal(store, "two")
    (store.artifact_root / "sft-0123456789abcdef.current").unlink()
    found = store.current("sft", FINGERPRINT)
    assert found is not None
    assert found.id == newest.id


def test_all_64_digits_of_a_fingerprint_count(store: Store) -> None:
    seal(store)
    assert store.current("sft", FINGERPRINT[:-1] + "0") is None
    work = store.work("sft", FINGERPRINT)
    work.remember("dtype", "float32")
    with pytest.raises(ArtifactError, match="another fingerprint"):
        store.work("sft", FINGERPRINT[:-1] + "0")


def test_work_is_remembered_and_staging_is_not(store: Store) -> None:
    work = store.work("sft", FINGERPRINT)
    work.remember("dtype", "bfloat16")
    (work.staging / "half").write_text("x")
    again = store.work("sft", FINGERPRINT)
    assert again.recall("dtype") == "bfloat16"
    assert again.recall("nothing", 7) == 7
    assert list(again.staging.iterdir()) == []


UNSEALABLE = ("weights.bin", "state.PT", "state.pth", "last.ckpt", "rng.pkl", "rng.pickle", "tree.joblib", "rows.npy")


@pytest.mark.parametrize("name", [*UNSEALABLE, "rows.npz", "deep/rng.pkl", "manifest.json"])
def test_formats_that_can_hold_code_are_not_sealed(store: Store, name: str) -> None:
    work = store.work("sft", FINGERPRINT)
    (work.staging / name).parent.mkdir(exist_ok=True)
    (work.staging / name).write_text("x")
    with pytest.raises(ValueError, match=f"must not be sealed.*{name}"):
        store.seal(
            work, kind=ArtifactKind.policy, stage="sft", version=1, fingerprint=FINGERPRINT, parents=[], config={},
            outcome=StageOutcome(parts={}),
        )  # fmt: skip
    assert store.artifacts() == []


def test_a_link_is_not_sealed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    work = store.work("sft", FINGERPRINT)
    (work.staging / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"must not be sealed.*weights\.safetensors"):
        store.seal(
            work, kind=ArtifactKind.policy, stage="sft", version=1, fingerprint=FINGERPRINT, parents=[], config={},
            outcome=StageOutcome(parts={}),
        )  # fmt: skip


def test_an_empty_result_is_not_sealed(store: Store) -> None:
    with pytest.raises(ValueError, match="wrote nothing"):
        store.seal(
            store.work("sft", FINGERPRINT), kind=ArtifactKind.policy, stage="sft", version=1, fingerprint=FINGERPRINT,
            parents=[], config={}, outcome=StageOutcome(parts={}),
        )  # fmt: skip


HOLD = (
    "import pathlib, sys\n"
    "from pipeline.artifacts.store import Store\n"
    "with Store(pathlib.Path(sys.argv[1])).lock('sft', sys.argv[2]):\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)


def holder(store: Store) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", HOLD, str(store.outputs), FINGERPRINT]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_process_is_told_who_holds_the_lock(store: Store) -> None:
    with holder(store) as process:
        refused = rf"being made by process {process.pid} on .* since .*Store"
        with pytest.raises(LockError, match=refused), store.lock("sft", FINGERPRINT, wait=False):
            pytest.fail("two processes hold one lock")
        with store.lock("sft", OTHER, wait=False):  # another fingerprint is free
            pass
        process.kill()
        process.wait()
    with store.lock("sft", FINGERPRINT, wait=False):  # a dead holder's lock is free at once
        pass


def test_waiting_names_the_holder_once_and_then_goes_on(store: Store) -> None:
    notices: list[str] = []
    with holder(store) as process:

        def release(text: str) -> None:
            notices.append(text)
            process.kill()

        with store.lock("sft", FINGERPRINT, wait=True, notice=release):
            pass
        assert len(notices) == 1
        assert f"process {process.pid} on" in notices[0]
        process.wait()


def test_a_lock_whose_file_was_deleted_meanwhile_is_taken_anew(store: Store) -> None:
    """`runs prune` deletes the files of locks; one that nobody can open by name keeps nobody out."""
    file = store.lock_file("sft", FINGERPRINT)
    with holder(store) as process:

        def prune(text: str) -> None:
            file.unlink()
            process.kill()

        with store.lock("sft", FINGERPRINT, wait=True, notice=prune):
            assert file.exists()
            with pytest.raises(LockError), store.lock("sft", FINGERPRINT, wait=False):
                pytest.fail("two hold one lock")
        process.wait()
