"""The mirror, with the real client, against a server on the loopback interface or on the disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tracked_runs import API_KEY, Invocation, files_below, inspect, read_back, recorded, row, steps_and_values
from wandb_server import WandbServer

from pipeline.config.shared import TrackingMode
from pipeline.errors import TrackingError
from pipeline.tracking.delivery import sync


def test_an_online_run_reads_back_as_it_was_recorded(server: WandbServer, outputs: Path, tmp_path: Path) -> None:
    with Invocation(outputs, "first") as invocation:
        _, dataset = invocation.stage_run("curate", "a")
        run = invocation.start("sft", "b" * 64, [dataset])
        for step in range(1, 6):
            run.log(row(step), step)
        run.log({"validation_loss": 0.75}, 5)  # a second row of the same step
        run.log({"loss": float("nan"), "grad_norm": float("inf")}, 6)
        run.table("samples", ["prompt", "completion"], [["p", "c"], ["q", 3]])
        policy = invocation.seal()
        run.finish(policy)
    found = read_back(run, tmp_path / "read")
    assert steps_and_values(found["history"]) == recorded(policy.path / "metrics.jsonl")
    assert dict(steps_and_values(found["history"]))[5] == {**row(5), "validation_loss": 0.75}
    assert dict(steps_and_values(found["history"]))[6] == {"loss": "NaN", "grad_norm": "Infinity"}
    assert (found["group"], found["job_type"], found["name"], found["state"]) == (
        "first",
        "sft",
        "sft-bbbbbbbb",
        "finished",
    )
    assert found["config"]["sft"] == {"learning_rate": 2e-4}
    assert found["config"]["inputs"] == [
        {"role": "dataset", "id": dataset.id, "kind": "dataset", "digest": dataset.manifest.content_digest}
    ]
    assert found["used"] == [f"{dataset.id}:v0"]
    logged = {entry["name"]: entry for entry in found["logged"]}[f"{policy.id}:v0"]
    assert (logged["type"], logged["state"]) == ("policy", "COMMITTED")
    assert logged["metadata"]["content_digest"] == policy.manifest.content_digest
    assert files_below(Path(logged["folder"])) == files_below(policy.path)
    table = next(b for n, b in server.runs[str(run.wandb_run_id)].files.items() if n.endswith(".table.json"))
    assert json.loads(table) == {"columns": ["prompt", "completion"], "data": [["p", "c"], ["q", 3]]}
    assert len(server.runs) == 2


def test_a_run_that_died_goes_on_under_its_id_and_counts_no_step_twice(server: WandbServer, outputs: Path) -> None:
    with Invocation(outputs, "first") as invocation:
        run = invocation.start("sft", "b" * 64)
        for step in range(1, 8):
            run.log(row(step), step)
        assert server.wait_for("file_stream")
        # The session ends without an end of the run, which is what the mirror sees when training is killed.
    assert server.runs[str(run.wandb_run_id)].state == "failed"
    sent = [step for step, _ in steps_and_values(server.runs[str(run.wandb_run_id)].history)]
    assert sent == [1, 2, 3, 4, 5, 6], "step 7 may be half recorded, so it was held back"
    with Invocation(outputs, "second") as invocation:
        again = invocation.start("sft", "b" * 64)
        again.cut(4)  # the checkpoint
        assert [step for step, _ in recorded(invocation.work.metrics)] == [1, 2, 3, 4]
        for step in range(5, 10):
            again.log(row(step), step)
        policy = invocation.seal()
        again.finish(policy)
    assert again.wandb_run_id == run.wandb_run_id
    assert list(server.runs) == [run.wandb_run_id]
    stored = server.runs[str(run.wandb_run_id)]
    assert steps_and_values(stored.history) == [(step, row(step)) for step in range(1, 10)]
    assert steps_and_values(stored.history) == recorded(policy.path / "metrics.jsonl")
    assert stored.state == "finished"
    assert stored.summary["loss"] == row(9)["loss"]


def test_offline_a_resumed_run_is_rewritten_from_the_record(outputs: Path) -> None:
    with Invocation(outputs, "first", TrackingMode.offline) as invocation:
        run = invocation.start("sft", "b" * 64)
        for step in range(1, 8):
            run.log(row(step), step)
        run.fail(RuntimeError("out of memory"))
    assert len(list(outputs.glob("runs/*/wandb/offline-run-*"))) == 1
    with (outputs / "work" / f"sft-{'b' * 16}" / "metrics.jsonl").open("a") as record:
        record.write('{"step": 8, "loss": 0.1')  # half a line, as a crash leaves it
    with Invocation(outputs, "second", TrackingMode.offline) as invocation:
        again = invocation.start("sft", "b" * 64)
        again.cut(4)
        for step in range(5, 7):
            again.log(row(step), step)
        again.cut(5)  # and once more while the mirror runs, in the same second
        again.log(row(6), 6)
        policy = invocation.seal()
        again.finish(policy)
    fragments = list(outputs.glob("runs/*/wandb/offline-run-*"))
    assert [fragment.parents[1].name for fragment in fragments] == ["second"]
    history, records = inspect(fragments[0])
    assert history == [(step, row(step)) for step in range(1, 7)] == recorded(policy.path / "metrics.jsonl")
    assert again.wandb_run_id == run.wandb_run_id
    manifest = next(entry["artifact"] for entry in records if "artifact" in entry)
    assert (manifest["name"], manifest["type"]) == (policy.id, "policy")
    sources = [Path(entry["local_path"]) for entry in manifest["manifest"]["contents"] if "local_path" in entry]
    assert sources
    assert all(source.is_relative_to(policy.path) for source in sources), "a staged copy would be lost with its folder"


def test_sync_delivers_once_and_replays_lineage(server: WandbServer, outputs: Path, tmp_path: Path) -> None:
    with Invocation(outputs, "first", TrackingMode.offline) as invocation:
        _, dataset = invocation.stage_run("curate", "a")
        run, policy = invocation.stage_run("sft", "b", range(1, 6), [dataset])
    assert server.requests == []
    shutil.move(outputs, tmp_path / "moved")  # runs are delivered from wherever they are
    outputs = tmp_path / "moved"
    told: list[str] = []
    done = sync(outputs, say=told.append)
    assert [(delivery.name, delivery.state) for delivery in done] == [
        ("curate-aaaaaaaa", "delivered"), ("sft-bbbbbbbb", "delivered"),
    ]  # fmt: skip
    assert done[1].num_rows == 5
    found = read_back(run, tmp_path / "read")
    assert steps_and_values(found["history"]) == [(step, row(step)) for step in range(1, 6)]
    assert found["used"] == [f"{dataset.id}:v0"]
    assert files_below(Path(found["logged"][0]["folder"])) == files_below(outputs / "artifacts" / policy.id)
    before = len(server.requests)
    assert {delivery.state for delivery in sync(outputs)} == {"delivered before"}
    assert len(server.requests) == before, "what has been delivered is not sent again"


def test_sync_says_when_an_artifact_can_no_longer_be_sent(server: WandbServer, outputs: Path) -> None:
    with Invocation(outputs, "first", TrackingMode.offline) as invocation:
        _, dataset = invocation.stage_run("curate", "a")
    shutil.rmtree(dataset.path)
    with pytest.raises(TrackingError, match=r"not delivered in full:\n  curate-aaaaaaaa "):
        sync(outputs)
    assert all(artifact.state == "PENDING" for artifact in server.artifacts.values())


def test_sync_without_a_key_names_what_is_missing(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert sync(outputs) == []
    with Invocation(outputs, "first", TrackingMode.offline) as invocation:
        invocation.stage_run("curate", "a")
    with pytest.raises(TrackingError, match="WANDB_API_KEY"):
        sync(outputs)


def test_a_refused_connection_costs_next_to_nothing(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with WandbServer() as gone:
        pass
    monkeypatch.setenv("WANDB_BASE_URL", gone.url)
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with Invocation(outputs, "first", TrackingMode.online) as invocation:
        began = time.monotonic()
        run = invocation.start("sft", "b" * 64)
        assert time.monotonic() - began < 4.0
        run.log(row(1), 1)
        policy = invocation.seal()
        run.finish(policy)
    shown = capsys.readouterr().out
    assert "WARNING  W&B: tracking.mode=online is not possible" in shown
    fragment = next(outputs.glob("runs/*/wandb/offline-run-*"))
    assert inspect(fragment)[0] == [(1, row(1))]


@pytest.mark.parametrize("mode", [TrackingMode.online, TrackingMode.offline])
def test_texts_alerts_links_and_surroundings_arrive(server: WandbServer, outputs: Path, mode: TrackingMode) -> None:
    registry = "loopback/models/help-desk"
    with Invocation(outputs, "first", mode, registry=registry) as invocation:
        run = invocation.start("sft", "b" * 64)
        run.written([{"prompt": "p", "completion": "old"}])
        run.log(row(1), 1)
        run.log(row(2), 2)
        run.written([{"prompt": "p", "completion": "gone"}])
        run.log(row(3), 3)
        run.cut(2)
        run.alert("sft: length_drifts", "the completions grow")
        run.log(row(3), 3)
        run.written([{"prompt": "p", "completion": "new"}, {"prompt": "q", "completion": "x", "score": 0.5}])
        run.log(row(4), 4)
        policy = invocation.seal()
        run.finish(policy)
        report = invocation.start("curate", "c" * 64)
        report.register(policy)
        report.finish(invocation.seal("report\n"))
    assert (policy.path / "written.jsonl").read_text().count("\n") == 3
    if mode is TrackingMode.offline:
        assert server.requests == []
        sync(outputs)
    stored = server.runs[str(run.wandb_run_id)]
    tables = {entry["_step"]: entry["written"] for entry in stored.history if "written" in entry}
    assert (tables[1]["nrows"], tables[4]["nrows"]) == (1, 3)
    last = json.loads(stored.files[tables[4]["path"]])
    assert last["columns"] == ["step", "prompt", "completion", "score"]
    assert last["data"] == [[1, "p", "old", None], [4, "p", "new", None], [4, "q", "x", 0.5]]
    assert [alert["title"] for alert in server.alerts] == ["sft: length_drifts"]
    assert [(link["artifactPortfolioName"], link["projectName"]) for link in server.links] == [("help-desk", "models")]
    assert server.artifacts[server.links[0]["artifactID"]].name == policy.id
    assert sorted(server.artifact(policy.id).aliases) == ["first", "latest"]
    metadata = json.loads(str(server.artifact(policy.id).metadata))
    assert (metadata["metrics"], metadata["stage"]) == ({"rows": 3}, "sft")
    invoked = stored.config["invocation"]
    assert invoked["command"].startswith("python -m pipeline ")
    assert invoked["libraries"]["wandb"]
    assert set(invoked["source"]) == {"commit", "dirty"}
    assert ("source.diff" in stored.files) == invoked["source"]["dirty"]


def test_the_repository_that_a_command_is_called_in_is_recorded_without_secrets(
    server: WandbServer, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("DATABASE_PASSWORD", CANARIES["environment"])
    rows = project / "rows.csv"
    rows.write_text("old row\n", encoding="utf-8")
    named = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init"], ["add", "rows.csv"], [*named, "commit", "-m", "first"]):
        subprocess.run(["git", *words], check=True, capture_output=True)
    rows.write_text(f"new row {CANARIES['environment']}\n", encoding="utf-8")
    with Invocation(outputs, "first", TrackingMode.online) as invocation:
        run, _ = invocation.stage_run("sft", "b", steps=[1])
    sync(outputs)  # a machine that is busy may have gone offline in between
    stored = server.runs[str(run.wandb_run_id)]
    invoked = stored.config["invocation"]
    assert invoked["project"]["dirty"] is True
    assert invoked["project"]["commit"] != (invoked["source"] or {}).get("commit")
    difference = stored.files["project.diff"].decode()
    assert "-old row\n+new row [redacted]\n" in difference
    assert ("source.diff" in stored.files) == bool((invoked["source"] or {}).get("dirty"))


GATES = {"pass": ["PASS", "PASS"], "inconclusive": ["PASS", "INCONCLUSIVE"], "fail": ["INCONCLUSIVE", "FAIL"], "": []}


def test_an_artifact_goes_by_the_worst_of_its_gates(server: WandbServer, outputs: Path) -> None:
    sealed = {}
    with Invocation(outputs, "first", TrackingMode.online) as invocation:
        for digit, (worst, outcomes) in enumerate(GATES.items()):
            run = invocation.start("sft", str(digit) * 64)
            run.log(row(1), 1)
            gates = [{"name": f"gate {number}", "outcome": outcome} for number, outcome in enumerate(outcomes)]
            sealed[worst] = invocation.seal(f"{worst} is the worst", gates)
            run.finish(sealed[worst])
    sync(outputs)  # a machine that is busy may have gone offline in between
    for worst, artifact in sealed.items():
        own = {f"gates-{worst}"} if worst else set()
        assert set(server.artifact(artifact.id).aliases) == {"latest", "first", *own}


CANARIES = {
    "environment": "correct-horse-battery-staple-4711",
    "hub": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345",
    "config": "sk-" + "canary0123456789canary0123456789",
    "url": "hunter2-canary-7",
}


@pytest.mark.parametrize("mode", [TrackingMode.online, TrackingMode.offline])
def test_no_secret_reaches_a_file_or_a_request(
    server: WandbServer, outputs: Path, monkeypatch: pytest.MonkeyPatch, mode: TrackingMode
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", CANARIES["environment"])
    monkeypatch.setenv("HF_TOKEN", CANARIES["hub"])
    with Invocation(outputs, "first", mode, tags=[f"tag {CANARIES['environment']}"]) as invocation:
        invocation.session.close()
        config = {
            "model": {"api_key": CANARIES["config"], "note": f"uses {CANARIES['hub']}", "num_tokens": 7},
            "command": f"train model.id=https://me:{CANARIES['url']}@host/x db={CANARIES['environment']}",
        }
        invocation.session = type(invocation.session)(invocation.session.config, outputs, invocation.folder, config)
        run = invocation.start("sft", "b" * 64)
        run.log(row(1), 1)
        run.notice(f"loaded with {CANARIES['config']}")
        run.table("samples", ["text"], [[CANARIES["hub"]]])
        if mode is TrackingMode.online:
            run.finish(invocation.seal())
        else:
            run.fail(RuntimeError(f"401 for {CANARIES['hub']} at https://me:{CANARIES['url']}@host"))
    secrets = {**CANARIES, "W&B key": API_KEY}
    for name, content in files_below(outputs).items():
        leaked = [kind for kind, secret in secrets.items() if secret.encode() in content]
        assert not leaked, f"{name} holds {leaked}"
    assert server.leaks(secrets.values()) == []
    assert any(b"[redacted]" in content for content in files_below(outputs).values())
    assert any(b'"num_tokens": 7' in content for content in files_below(outputs).values()), "redacted too much"
    if mode is TrackingMode.online:
        assert server.runs[str(run.wandb_run_id)].config["model"]["api_key"] == "[redacted]"


def test_importing_tracking_and_starting_nothing_imports_no_client(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "import pipeline.tracking.job, pipeline.tracking.delivery\n"
        "from pipeline.tracking.session import TrackingSession\n"
        "from pipeline.config.shared import TrackingConfig\n"
        f"outputs = Path({str(tmp_path)!r})\n"
        "with TrackingSession(TrackingConfig(), outputs, outputs / 'runs' / 'x', {}): pass\n"
        "assert not {'wandb', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "runs" / "x" / "wandb").exists()


def test_the_known_default_server_is_that_of_the_installed_client() -> None:
    from pipeline.tracking.server import DEFAULT_BASE_URL

    script = "from wandb.sdk.lib import urls; print(urls.DEFAULT_BASE_URL)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert re.findall(r"https://\S+", done.stdout) == [DEFAULT_BASE_URL]
