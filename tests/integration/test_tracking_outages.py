"""A server that is refused, hangs, fails or dies at any moment costs at most 15 s and not one row."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracked_runs import API_KEY, Invocation, inspect, recorded, row, steps_and_values
from wandb_server import WandbServer

from pipeline.artifacts.artifact import Artifact
from pipeline.config.shared import TrackingMode
from pipeline.errors import TrackingError
from pipeline.tracking.delivery import sync
from pipeline.tracking.run import Run

pytestmark = pytest.mark.integration

MOST_SECONDS = 15.0
STEPS = range(1, 9)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer(api_key=API_KEY) as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        yield running


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that the same invocation takes without any server."""
    began = time.monotonic()
    chain(tmp_path_factory.mktemp("baseline") / "outputs", TrackingMode.offline)
    return time.monotonic() - began


def chain(outputs: Path, mode: TrackingMode = TrackingMode.auto) -> tuple[list[Run], list[Artifact], float]:
    """Run two stages in one invocation; return runs, artifacts and the longest time that a training step waited."""
    slowest = 0.0
    with Invocation(outputs, "first", mode) as invocation:
        first, dataset = invocation.stage_run("curate", "a", [1])
        run = invocation.start("sft", "b" * 64, [dataset])
        for step in STEPS:
            began = time.monotonic()
            run.log(row(step), step)
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.1)
        policy = invocation.seal()
        run.finish(policy)
    return [first, run], [dataset, policy], slowest


def require_everything_is_delivered(server: WandbServer, outputs: Path, runs: list[Run], made: list[Artifact]) -> None:
    """Sync, and find every step once and every artifact committed."""
    sync(outputs)
    for run, artifact in zip(runs, made, strict=True):
        stored = server.runs[str(run.wandb_run_id)]
        assert steps_and_values(stored.history) == recorded(artifact.path / "metrics.jsonl")
        assert server.artifact(artifact.id).state == "COMMITTED"
    linked = {server.artifacts[identity].name for identity in server.runs[str(runs[1].wandb_run_id)].inputs}
    assert linked == {made[0].id}
    assert server.problems == []


MOMENTS = ["UpsertBucket", "file_stream", "CreateArtifact", "manifest", "deep", "CommitArtifact", "UseArtifact"]


@pytest.mark.parametrize(
    ("moment", "fault"),
    [(moment, "hang") for moment in MOMENTS]
    + [(moment, fault) for moment in ("UpsertBucket", "deep", "UseArtifact") for fault in ("error", "drop")],
)
def test_a_server_that_fails_in_the_middle(
    server: WandbServer, tmp_path: Path, baseline: float, moment: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "outputs"
    server.break_on(moment, fault)
    began = time.monotonic()
    runs, made, slowest = chain(outputs)
    lost = time.monotonic() - began - baseline
    shown = capsys.readouterr().out
    assert server.fault == fault, "the fault never happened, so nothing was tested"
    assert lost < MOST_SECONDS
    assert slowest < 0.5, "a training step waited for the server"
    assert len(re.findall("offline from here on", shown)) == 1
    for run, artifact in zip(runs, made, strict=True):
        rows = recorded(artifact.path / "metrics.jsonl")
        assert [step for step, _ in rows] == list(STEPS) or run is runs[0]
        fragments = list(outputs.glob(f"runs/*/wandb/offline-run-*-{run.wandb_run_id}"))
        if fragments:  # the run before the fault has been delivered
            assert inspect(fragments[0])[0] == rows
    assert list(outputs.glob(f"runs/*/wandb/offline-run-*-{runs[1].wandb_run_id}"))
    server.heal()
    require_everything_is_delivered(server, outputs, runs, made)
    with capsys.disabled():
        print(f"\n{moment} {fault}: {lost:.1f} s lost, a step waited {slowest * 1000:.0f} ms at most")


@pytest.mark.parametrize("fault", ["hang", "error", "drop", "refuse", "key"])
@pytest.mark.parametrize("mode", [TrackingMode.auto, TrackingMode.online])
def test_a_server_that_fails_from_the_start(
    server: WandbServer, tmp_path: Path, baseline: float, fault: str, mode: TrackingMode,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if fault == "refuse":
        server.stop()
    elif fault == "key":
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    else:
        server.fault = fault
    began = time.monotonic()
    _, made, slowest = chain(tmp_path / "outputs", mode)
    lost = time.monotonic() - began - baseline
    shown = capsys.readouterr().out
    assert lost < MOST_SECONDS
    assert slowest < 0.5
    assert ("WARNING" in shown) == (mode is TrackingMode.online)
    assert len(recorded(made[1].path / "metrics.jsonl")) == len(STEPS)
    assert len(list((tmp_path / "outputs").glob("runs/*/wandb/offline-run-*"))) == 2
    with capsys.disabled():
        print(f"\n{mode} {fault}: {lost:.1f} s lost")


def test_a_server_that_is_gone_for_good(server: WandbServer, tmp_path: Path, baseline: float) -> None:
    began = time.monotonic()
    with Invocation(tmp_path / "outputs", "first") as invocation:
        run = invocation.start("sft", "b" * 64)
        run.log(row(1), 1)
        assert server.wait_for("UpsertBucket")
        server.stop()
        for step in range(2, 9):
            run.log(row(step), step)
        policy = invocation.seal()
        run.finish(policy)
    assert time.monotonic() - began - baseline < MOST_SECONDS
    fragments = list((tmp_path / "outputs").glob("runs/*/wandb/offline-run-*"))
    assert len(fragments) == 1
    assert inspect(fragments[0])[0] == [(step, row(step)) for step in STEPS]


@pytest.mark.parametrize("moment", ["UpsertBucket", "file_stream", "CommitArtifact", "UseArtifact"])
def test_a_delivery_that_is_cut_off_goes_on(server: WandbServer, tmp_path: Path, moment: str) -> None:
    outputs = tmp_path / "outputs"
    runs, made, _ = chain(outputs, TrackingMode.offline)
    server.break_on(moment, "error")
    with pytest.raises(TrackingError, match=r"curate-aaaaaaaa|sft-bbbbbbbb"):
        sync(outputs, seconds=6)
    assert server.fault == "error"
    server.heal()
    require_everything_is_delivered(server, outputs, runs, made)
    assert {delivery.state for delivery in sync(outputs)} == {"delivered before"}


def test_a_sync_without_a_server_sends_nothing_and_says_so(server: WandbServer, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    chain(outputs, TrackingMode.offline)
    server.stop()
    with pytest.raises(TrackingError, match="Nothing was delivered"):
        sync(outputs)


REGISTRY = "loopback/models/help-desk"
TEXTS = {2: "old", 4: "newer", 6: "newest"}  # what the policy writes before the rows of these steps
ALERTS = (3, 5)  # the steps at which somebody is called


def watched_chain(outputs: Path, mode: TrackingMode = TrackingMode.auto) -> tuple[list[Run], list[Artifact], float]:
    """Run a chain whose training writes texts and calls for attention, and whose report registers the policy."""
    slowest = 0.0
    with Invocation(outputs, "first", mode, registry=REGISTRY) as invocation:
        first, dataset = invocation.stage_run("curate", "a", [1])
        run = invocation.start("sft", "b" * 64, [dataset])
        for step in STEPS:
            began = time.monotonic()
            if step in TEXTS:
                run.written([{"prompt": "p", "completion": TEXTS[step]}])
            run.log(row(step), step)
            if step in ALERTS:
                run.alert(f"alert {step}", f"the loss of step {step}")
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.1)
        policy = invocation.seal()
        run.finish(policy)
        last = invocation.start("curate", "c" * 64, [policy])
        last.register(policy)
        report = invocation.seal("report\n")
        last.finish(report)
    return [first, run, last], [dataset, policy, report], slowest


@pytest.fixture(scope="module")
def watched_baseline(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that the same invocation takes without any server."""
    began = time.monotonic()
    watched_chain(tmp_path_factory.mktemp("baseline") / "outputs", TrackingMode.offline)
    return time.monotonic() - began


def require_all_of_it_once(server: WandbServer, outputs: Path, runs: list[Run], made: list[Artifact]) -> None:
    """Sync, and find tables, alerts, links, lineage, rows and artifacts; a second sync adds nothing."""
    sync(outputs)
    stored = server.runs[str(runs[1].wandb_run_id)]
    tables = {entry["_step"]: entry.pop("written") for entry in stored.history if "written" in entry}
    assert {step: table["nrows"] for step, table in tables.items()} == {2: 1, 4: 2, 6: 3}
    last = json.loads(stored.files[tables[6]["path"]])
    assert last["data"] == [[step, "p", text] for step, text in TEXTS.items()]
    rows = [{k: v for k, v in entry.items() if k != "written"} for entry in stored.history]
    assert steps_and_values(rows) == recorded(made[1].path / "metrics.jsonl")
    # Whether a server that broke off heard of an alert nobody knows: better twice than never.
    counts = Counter(alert["title"] for alert in server.alerts)
    assert set(counts) == {f"alert {step}" for step in ALERTS}
    assert max(counts.values()) <= 2
    assert [link["artifactPortfolioName"] for link in server.links] == ["help-desk"]
    assert server.artifacts[server.links[0]["artifactID"]].name == made[1].id
    for run, inputs in ((runs[1], [made[0]]), (runs[2], [made[1]])):
        used = [server.artifacts[identity].name for identity in server.runs[str(run.wandb_run_id)].inputs]
        assert used == [artifact.id for artifact in inputs]
    committed = Counter(entry.name for entry in server.artifacts.values() if entry.state == "COMMITTED")
    assert {artifact.id: committed[artifact.id] for artifact in made} == {artifact.id: 1 for artifact in made}
    assert {delivery.state for delivery in sync(outputs)} == {"delivered before"}
    assert Counter(alert["title"] for alert in server.alerts) == counts
    assert server.problems == []


@pytest.mark.parametrize("fault", ["hang", "error", "drop"])
@pytest.mark.parametrize("moment", ["written_", "NotifyScriptableRunAlert", "LinkArtifact"])
def test_tables_alerts_and_links_outlive_a_server_that_fails_in_the_middle(
    server: WandbServer, tmp_path: Path, watched_baseline: float, moment: str, fault: str
) -> None:
    outputs = tmp_path / "outputs"
    server.break_on(moment, fault)
    began = time.monotonic()
    runs, made, slowest = watched_chain(outputs)
    lost = time.monotonic() - began - watched_baseline
    assert server.fault == fault, "the fault never happened, so nothing was tested"
    assert lost < MOST_SECONDS
    assert slowest < 0.5, "a training step waited for the server"
    server.heal()
    require_all_of_it_once(server, outputs, runs, made)


@pytest.mark.parametrize("fault", ["hang", "error", "drop", "offline"])
def test_tables_alerts_and_links_are_delivered_where_there_was_no_server(
    server: WandbServer, tmp_path: Path, watched_baseline: float, fault: str
) -> None:
    outputs = tmp_path / "outputs"
    server.fault = None if fault == "offline" else fault
    began = time.monotonic()
    runs, made, slowest = watched_chain(outputs, TrackingMode.offline if fault == "offline" else TrackingMode.auto)
    assert time.monotonic() - began - watched_baseline < MOST_SECONDS
    assert slowest < 0.5
    assert (server.runs, server.alerts, server.links) == ({}, [], [])
    server.heal()
    require_all_of_it_once(server, outputs, runs, made)
