from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from compared_runs import write_sweep
from fake_stages import make_config, run_chain, write_source

from pipeline.artifacts.checkpoints import CheckpointFolder
from pipeline.artifacts.store import Store
from pipeline.commands import manual
from pipeline.commands.runs import USAGE, age, parse, run_command, size
from pipeline.errors import ArtifactError, ConfigError, LockError


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    run_chain(make_config(tmp_path / "outputs", write_source(tmp_path / "rows.txt")), say=lambda text: None)
    return tmp_path / "outputs"


def runs(outputs: Path, *words: str) -> int:
    return run_command([*words, f"runtime.outputs={outputs}"])


def id_of(outputs: Path, stage: str) -> str:
    return next(a.id for a in Store(outputs).artifacts() if a.manifest.stage == stage)


def line_with(text: str, part: str) -> str:
    found = [line for line in text.splitlines() if part in line]
    assert len(found) == 1, text
    return found[0]


def test_words_come_before_overrides() -> None:
    request = parse(["verify", "sft-01", "curate", "runtime.outputs=/x=y"])
    assert (request.action, request.words, request.store.outputs) == ("verify", ["sft-01", "curate"], Path("/x=y"))
    assert parse(["list"]).store.outputs == Path("outputs")
    assert parse(["prune", "--apply"]).apply


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "There is no action ''"),
        (["remove"], "There is no action 'remove'"),
        (["list", "sft-01"], "`runs list` does not take sft-01"),
        (["verify", "--apply"], "`runs verify` does not take --apply"),
        (["list", "sft.seed=1"], "does not take sft.seed"),
    ],
)
def test_what_does_not_belong_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match="Usage: python -m pipeline runs") as caught:
        run_command(arguments)
    assert told in str(caught.value)


def test_a_workspace_of_what_is_no_sweep_says_so(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, [], sweep="rates_sweep")
    for word in ("rate_sweep", str(tmp_path)):
        with pytest.raises(ConfigError, match="holds no sweep.json, so it is no sweep") as caught:
            runs(tmp_path, "workspace", word)
        assert f"`runs workspace {word}`" in str(caught.value)
        assert "Move the folder away" not in str(caught.value)
        assert ("Did you mean `rates_sweep`?" in str(caught.value)) is (word == "rate_sweep")
    (sweep / "sweep.json").write_text("{", encoding="utf-8")  # one that is there and broken is another matter
    with pytest.raises(ArtifactError, match="Move the folder away"):
        runs(tmp_path, "workspace", "rates_sweep")


def test_help_names_every_action() -> None:
    actions = "runs list | verify [ID ...] | prune [--apply] | sync | workspace SWEEP"
    assert actions in USAGE
    assert actions in manual.USAGE


def test_list_shows_runs_artifacts_and_work(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(outputs)
    adapter = store.open(id_of(outputs, "sft")).file("adapter.txt")
    adapter.write_text("short")
    work = store.work("dpo", "f" * 64)
    CheckpointFolder(work.path / "checkpoints").commit(work.checkpoints.draft(), 40, {})
    assert runs(outputs, "list") == 0
    printed = capsys.readouterr().out
    assert line_with(printed, "_fake_0").split()[1:3] == ["5", "yes"]
    assert line_with(printed, "curate-").split()[1:4] == ["dataset", "curate", "current"]
    assert line_with(printed, "sft-").split()[1:4] == ["policy", "sft", "corrupt"]
    assert "half-finished  step 40" in line_with(printed, "dpo-ffffffffffffffff")
    with store.lock("dpo", "f" * 64):
        runs(outputs, "list")
    assert f"worked on by process {os.getpid()}" in line_with(capsys.readouterr().out, "dpo-ffff")


def test_list_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs(tmp_path / "none", "list") == 0
    assert "no runs in" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_verify_walks_to_the_data_set(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs(outputs, "verify", "report-") == 0
    printed = capsys.readouterr().out
    assert "5 artifacts verified" in printed
    assert "5 intact, 0 wrong" in printed
    assert runs(outputs, "verify", id_of(outputs, "curate")) == 0
    assert "1 artifacts verified" in capsys.readouterr().out


def test_verify_sees_one_flipped_bit_in_an_ancestor(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Store(outputs).open(id_of(outputs, "curate")).file("demonstrations/train.txt")
    content = rows.read_bytes()
    rows.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert runs(outputs, "verify", "report-") == ArtifactError.exit_status == 4
    printed = capsys.readouterr().out
    assert line_with(printed, "wrong   ").startswith("wrong   curate-")
    assert "demonstrations/train.txt has another SHA-256" in printed


def test_verify_names_missing_parents_foreign_files_and_bad_manifests(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(outputs)
    dataset, policy = id_of(outputs, "curate"), store.open(id_of(outputs, "sft"))
    shutil.rmtree(store.artifact_root / dataset)
    (policy.path / "adapter_model.bin").write_text("?")
    (store.open(id_of(outputs, "report")).path / "manifest.json").write_text("{}")
    assert runs(outputs, "verify") == 4
    printed = capsys.readouterr().out
    assert f"its dataset {dataset} (dataset) is missing" in printed
    assert "adapter_model.bin is not in the manifest" in printed
    assert "manifest.json is unusable" in printed
    assert "0 intact, 4 wrong" in printed


def test_verify_of_an_unknown_artifact_is_an_error(outputs: Path) -> None:
    with pytest.raises(ArtifactError, match="neither a sealed folder"):
        runs(outputs, "verify", "dpo-0")


def test_prune_deletes_what_no_run_reaches_and_only_when_asked(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(outputs)
    kept = {artifact.id for artifact in store.artifacts()}
    config = make_config(outputs, tmp_path / "rows.txt")
    config.sft.optimizer.learning_rate = 1e-4
    _, folder = run_chain(config, say=lambda text: None)
    assert runs(outputs, "prune") == 0
    assert "nothing to prune" in capsys.readouterr().out
    shutil.rmtree(folder.path)
    unreached = {artifact.id: artifact for artifact in store.artifacts() if artifact.id not in kept}
    assert {artifact.manifest.stage for artifact in unreached.values()} == {"sft", "samples", "report"}
    total = sum(p.stat().st_size for a in unreached.values() for p in a.path.rglob("*") if p.is_file())
    runs(outputs, "prune")
    assert f"3 folders, {total:,} bytes would be deleted" in capsys.readouterr().out
    assert {artifact.id for artifact in store.artifacts()} == kept | unreached.keys()
    runs(outputs, "prune", "--apply")
    assert f"deleted 3 folders, {total:,} bytes" in capsys.readouterr().out
    assert {artifact.id for artifact in store.artifacts()} == kept
    assert len(list(store.artifact_root.glob("*.current"))) == len(kept)
    assert list(store.work_root.iterdir()) == []  # locks of finished stages
    assert runs(outputs, "verify") == 0


def test_prune_leaves_recent_work_and_waits_for_nobody(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(outputs)
    fresh, old, held = (store.work("dpo", digit * 64) for digit in "abc")
    month_ago = time.time() - 40 * 86400
    for work in (old, held):
        for path in [*work.path.rglob("*"), work.path]:
            os.utime(path, (month_ago, month_ago))
    (store.artifact_root / "corrupt-sft-x").mkdir()
    with store.lock("dpo", "c" * 64):
        runs(outputs, "prune")
        printed = capsys.readouterr().out
        assert old.path.name in printed
        assert "half-finished, untouched for 40 days" in printed
        assert fresh.path.name not in printed
        assert held.path.name not in printed
        with pytest.raises(LockError, match="Prune when it is done"):
            runs(outputs, "prune", "--apply")
    runs(outputs, "prune", "--apply")
    assert fresh.path.is_dir()
    assert not old.path.exists()
    assert not (store.artifact_root / "corrupt-sft-x").exists()


def test_sizes_and_ages_read_well() -> None:
    assert [size(n) for n in (0, 999, 1000, 26_400_000, 1.5e13)] == ["0 B", "999 B", "1.0 kB", "26.4 MB", "15.0 TB"]
    assert [age(s) for s in (-1, 59, 60, 7200, 86400 * 3)] == ["0 s", "59 s", "1 min", "2 h", "3 d"]
