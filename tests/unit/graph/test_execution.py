from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fake_stages
import pytest
from fake_stages import make_config, make_suites, run_chain, write_source

from pipeline.artifacts.store import Store
from pipeline.config.root import Config
from pipeline.errors import ArtifactError, DataError, Interrupted, LockError, StorageError
from pipeline.graph.execution import Executed
from pipeline.graph.run_folder import RunFolder, linked_ids


class Chain:
    """A source, an outputs folder, and what the last run said."""

    def __init__(self, folder: Path) -> None:
        self.source = write_source(folder / "rows.txt")
        self.outputs = folder / "outputs"
        self.lines: list[str] = []

    def config(self, *stages: str) -> Config:
        return make_config(self.outputs, self.source, stages or ("curate", "sft", "evaluate"))

    def run(self, config: Config | None = None, *suites: str) -> dict[str, Executed]:
        self.lines = []
        done, self.folder = run_chain(config or self.config(), make_suites(*suites), self.lines.append)
        return {executed.node.name: executed for executed in done}

    def line(self, name: str, state: str) -> str:
        found = [line for line in self.lines if line.split()[:2] == [name, state]]
        assert len(found) == 1, self.lines
        return found[0]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


NODES = ["curate", "sft", "samples-answers-base", "samples-answers-sft", "report"]


def ran(done: dict[str, Executed]) -> list[str]:
    return [name for name, executed in done.items() if not executed.reused]


def test_the_first_run_makes_everything_and_the_second_nothing(chain: Chain) -> None:
    first = chain.run()
    assert ran(first) == NODES
    assert "(first run)" in chain.line("sft", "running")
    second = chain.run()
    assert ran(second) == []
    assert "(nothing it reads has changed)" in chain.line("sft", "reused")
    assert [done.artifact.id for done in second.values()] == [done.artifact.id for done in first.values()]


def test_a_hyperparameter_reruns_what_depends_on_it_and_says_so(chain: Chain) -> None:
    chain.run()
    config = chain.config()
    config.sft.optimizer.learning_rate = 1e-4
    assert ran(chain.run(config)) == ["sft", "samples-answers-sft", "report"]
    assert "changed since the last one: sft.optimizer.learning_rate: 0.0002 -> 0.0001)" in chain.line("sft", "running")
    assert "input policy: policy changed" in chain.line("samples-answers-sft", "running")
    assert ran(chain.run()) == []  # back again: both results are kept


def test_the_reason_is_what_differs_from_the_most_similar_result(chain: Chain) -> None:
    def config(**changes: int) -> Config:
        made = chain.config("curate", "sft")
        for key, value in changes.items():
            setattr(made.sft, key, value)
        return made

    chain.run(config())
    chain.run(config(seed=3, batch_size=4))
    chain.run(config(seed=3, batch_size=4, num_epochs=9))
    told = "changed since the last one: sft.num_epochs: 3 -> 9)"
    assert told in chain.line("sft", "running")  # beside the newest, from which it differs in one key
    chain.run(config(num_epochs=9))
    assert told in chain.line("sft", "running")  # beside the oldest


def test_keys_that_do_not_affect_results_rerun_nothing(chain: Chain) -> None:
    chain.run()
    config = chain.config()
    config.sft.keep_checkpoints, config.sft.save_every, config.name, config.tracking.project = 9, 1, "other", "p"
    assert ran(chain.run(config)) == []


def test_an_edited_row_reruns_what_reads_its_split(chain: Chain) -> None:
    chain.run()
    write_source(chain.source, test="another question")
    assert ran(chain.run()) == ["curate", "samples-answers-base", "samples-answers-sft", "report"]
    assert "data.sources[0] content changed" in chain.line("curate", "running")
    write_source(chain.source, test="another question", train="another lesson")
    assert ran(chain.run()) == ["curate", "sft", "samples-answers-sft", "report"]
    assert "input dataset: demonstrations/train changed" in chain.line("sft", "running")


def test_rows_that_come_out_the_same_cut_the_chain_off(chain: Chain) -> None:
    chain.run()
    config = chain.config()
    config.curate.seed = 1  # another fingerprint, the same tables
    assert ran(chain.run(config)) == ["curate"]


def test_a_second_suite_samples_only_that_suite(chain: Chain) -> None:
    chain.run()
    assert ran(chain.run(None, "answers", "more")) == ["samples-more-base", "samples-more-sft", "report"]


def test_suites_that_differ_in_name_and_checks_share_their_samples(chain: Chain) -> None:
    chain.run()
    suites = make_suites("answers")
    suites["renamed"] = suites.pop("answers")
    suites["renamed"].name, suites["renamed"].description = "renamed", "the same items"
    done, _ = run_chain(chain.config(), suites, chain.lines.append)
    assert [executed.node.name for executed in done if not executed.reused] == ["report"]


def test_a_limit_of_the_evaluation_changes_the_samples(chain: Chain) -> None:
    write_source(chain.source, test="third\ntest fourth")
    chain.run()
    config = chain.config()
    config.evaluate.limit = 1
    done = chain.run(config)
    assert ran(done) == ["samples-answers-base", "samples-answers-sft", "report"]
    assert done["samples-answers-base"].artifact.file("samples.txt").read_text() == "base 0.0 third"


def test_force_recomputes_once_and_adds(chain: Chain) -> None:
    first = chain.run()
    config = chain.config()
    config.force = ["sft"]
    done = chain.run(config)
    assert ran(done) == ["sft"]  # the same weights come out, so that nothing after it runs
    assert "asked for by `force`" in chain.line("sft", "running")
    assert done["sft"].artifact.id == first["sft"].artifact.id
    config.force = ["evaluate"]
    assert ran(chain.run(config)) == ["samples-answers-base", "samples-answers-sft", "report"]


def test_a_corrupt_artifact_is_made_again_and_the_rest_kept(chain: Chain) -> None:
    first = chain.run()
    path = first["sft"].artifact.file("adapter.txt")
    path.write_text(path.read_text()[::-1])
    done = chain.run()
    assert ran(done) == ["sft"]
    assert any("adapter.txt has another SHA-256" in line and "renamed to corrupt-sft-" in line for line in chain.lines)
    assert done["sft"].artifact.id == first["sft"].artifact.id


def test_a_run_folder_links_its_artifacts_and_holds_the_report(chain: Chain) -> None:
    done = chain.run()
    folder = chain.folder.path
    assert json.loads((folder / "artifacts.json").read_text()) == {n: d.artifact.id for n, d in done.items()}
    link = folder / "artifacts" / "sft"
    assert not os.path.isabs(os.readlink(link))
    assert (link / "adapter.txt").read_text() == done["sft"].artifact.file("adapter.txt").read_text()
    assert (folder / "report.json").read_bytes() == done["report"].artifact.file("report.json").read_bytes()
    again = chain.run()
    assert chain.folder.path != folder
    assert (chain.folder.path / "report.html").is_file()
    assert ran(again) == []


def test_outputs_can_move_as_a_whole_and_artifacts_one_by_one(chain: Chain, tmp_path: Path) -> None:
    chain.run()
    shutil.move(chain.outputs, tmp_path / "moved")
    chain.outputs = tmp_path / "moved"
    assert ran(chain.run()) == []
    shutil.copytree(tmp_path / "moved" / "artifacts", tmp_path / "new" / "artifacts")
    for pointer in (tmp_path / "new" / "artifacts").glob("*.current"):
        pointer.unlink()
    chain.outputs = tmp_path / "new"
    assert ran(chain.run()) == []
    (tmp_path / "sources").mkdir()
    chain.source = chain.source.rename(tmp_path / "sources" / "rows.txt")
    assert ran(chain.run()) == []


def test_inputs_name_artifacts_by_id_and_path(chain: Chain) -> None:
    first = chain.run()
    config = chain.config("curate", "sft", "evaluate")
    config.inputs.sft.policy = first["sft"].artifact.id[:12]
    done = chain.run(config)
    assert done["sft"].artifact.manifest.parents[1].id == first["sft"].artifact.id
    config = chain.config("evaluate")
    config.inputs.evaluate.dataset = str(first["curate"].artifact.path)
    config.inputs.evaluate.policy = ["base", first["sft"].artifact.id, done["sft"].artifact.id]
    evaluated = chain.run(config)
    assert len(evaluated) == 4
    assert ran(evaluated) == ["report"]  # every policy has been sampled before, under another name


def test_a_reference_that_leads_nowhere_stops_before_anything_runs(chain: Chain) -> None:
    config = chain.config()
    config.inputs.sft.policy = "sft-000"
    config.inputs.evaluate.policy = ["base", "/nowhere/policy"]
    with pytest.raises(ArtifactError) as caught:
        chain.run(config)
    assert "inputs.sft.policy: No policy 'sft-000'" in str(caught.value)
    assert "inputs.evaluate.policy: No policy '/nowhere/policy'" in str(caught.value)
    assert Store(chain.outputs).folders() == []


def test_a_missing_split_stops_before_training(chain: Chain) -> None:
    write_source(chain.source, test="")
    with pytest.raises(
        DataError, match="The test split of the table 'demonstrations' is empty, and the suite 'answers'"
    ):
        chain.run()
    assert [artifact.manifest.stage for artifact in Store(chain.outputs).artifacts()] == ["curate"]
    write_source(chain.source, train="")
    with pytest.raises(DataError, match="The train split .* and the stage 'sft' needs it"):
        chain.run()


def test_a_missing_source_is_told_by_its_key(chain: Chain) -> None:
    chain.source.unlink()
    with pytest.raises(DataError, match=r"data\.sources\[0\]\.path"):
        chain.run()


def test_a_failed_stage_keeps_its_work_and_goes_on_from_its_checkpoint(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = tmp_path / "steps"
    monkeypatch.setenv(fake_stages.STEP_LOG, str(steps))
    reference = Chain(tmp_path / "reference") if (tmp_path / "reference").mkdir() is None else None
    assert reference is not None
    expected = reference.run()["sft"].artifact.manifest
    steps.unlink()
    monkeypatch.setenv(fake_stages.FAIL_AT, "6:bug")
    with pytest.raises(RuntimeError, match="a bug") as caught:
        chain.run()
    note = caught.value.__notes__[0]
    assert "its work up to the checkpoint of step 4 is kept in" in note
    assert "Go on with: python -m pipeline train +experiment=fake" in note
    monkeypatch.delenv(fake_stages.FAIL_AT)
    done = chain.run()
    assert ran(done) == NODES[1:]
    assert "from the checkpoint of step 4" in chain.line("sft", "resuming")
    assert steps.read_text().split() == ["1", "2", "3", "4", "5", "5", "6"]
    assert done["sft"].artifact.manifest.content_digest == expected.content_digest
    rows = [json.loads(row) for row in done["sft"].artifact.file("metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_an_interrupt_and_a_full_disk_have_their_exit_status(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fake_stages.FAIL_AT, "3:interrupt")
    with pytest.raises(Interrupted, match="checkpoint of step 2 is kept") as caught:
        chain.run()
    assert caught.value.exit_status == 130
    monkeypatch.setenv(fake_stages.FAIL_AT, "5:disk")
    with pytest.raises(StorageError, match=r"Cannot write adapter.txt: the disk is full.*\n.*step 4.*\nGo on with"):
        chain.run()


def test_branches_and_overrides_change_what_a_stage_starts_from(chain: Chain) -> None:
    done = chain.run(chain.config("curate", "sft", "dpo", "evaluate"))
    assert done["dpo"].artifact.manifest.parents[1].id == done["sft"].artifact.id
    assert set(done) == {*NODES, "dpo", "samples-answers-dpo"}


def test_the_report_is_the_same_to_the_last_byte(chain: Chain, tmp_path: Path) -> None:
    first = chain.run()["report"].artifact
    (tmp_path / "second").mkdir()
    second = Chain(tmp_path / "second").run()["report"].artifact
    assert first.file("report.json").read_bytes() == second.file("report.json").read_bytes()
    assert first.manifest.content_digest == second.manifest.content_digest


@pytest.mark.slow
@pytest.mark.parametrize("wait", [True, False])
def test_a_second_process_waits_or_leaves_and_reuses(chain: Chain, wait: bool) -> None:
    chain.run(chain.config("curate"))
    script = Path(fake_stages.__file__)
    ready = chain.outputs.parent / "ready"
    hold = (
        "import pathlib, runpy, sys, time\n"
        "import fake_stages\n"
        "original = fake_stages.train\n"
        "def slow(job):\n"
        f"    pathlib.Path({str(ready)!r}).touch(); time.sleep(0.7); return original(job)\n"
        "fake_stages.train = slow\n"
        f"fake_stages.run_chain(fake_stages.make_config(pathlib.Path({str(chain.outputs)!r}), "
        f"pathlib.Path({str(chain.source)!r})))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{script.parent}:{script.parents[1]}"}
    with subprocess.Popen([sys.executable, "-c", hold], env=environment, stdout=subprocess.PIPE) as first:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        config = chain.config()
        config.runtime.wait_for_lock = wait
        if wait:
            done = chain.run(config)
            waited = next(line for line in chain.lines if line.startswith("Waiting for sft-"))
            assert f"process {first.pid} on" in waited
            assert done["sft"].reused
        else:
            with pytest.raises(LockError, match=f"process {first.pid} on") as caught:
                chain.run(config)
            assert caught.value.exit_status == 6
        assert first.wait(timeout=30) == 0


@pytest.mark.slow
def test_of_several_processes_at_once_one_makes_each_artifact(chain: Chain, tmp_path: Path) -> None:
    script = Path(fake_stages.__file__)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{script.parent}:{script.parents[1]}",
        fake_stages.STEP_LOG: str(tmp_path / "steps"),
    }
    command = [sys.executable, str(script), str(chain.outputs), str(chain.source)]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert (tmp_path / "steps").read_text().split() == ["1", "2", "3", "4", "5", "6"]
    sealed = [line.split()[0] for output in outputs for line in output.splitlines() if line.split()[1:2] == ["sealed"]]
    assert sorted(sealed) == sorted(NODES)
    assert len(Store(chain.outputs).artifacts()) == len(NODES)
    assert len(list((chain.outputs / "runs").iterdir())) == 4


def test_run_folders_never_share_a_name_or_leave_theirs(tmp_path: Path) -> None:
    folders = [RunFolder.create(tmp_path, "../strange name", "3").path for _ in range(20)]
    assert len(set(folders)) == 20
    assert {path.parent for path in folders} == {tmp_path / "runs"}
    assert all(path.name.split("_", 2)[2].startswith("strange-name_3") for path in folders)


def test_where_links_are_not_possible_the_list_remains(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    done = chain.run(chain.config("curate"))
    assert linked_ids(chain.folder.path) == {"curate": done["curate"].artifact.id}
    assert list((chain.folder.path / "artifacts").iterdir()) == []
