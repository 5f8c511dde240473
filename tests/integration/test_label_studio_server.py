"""A real Label Studio server: pairs are pushed, people sign up and judge them, and what they said comes back.

The server is installed from PyPI into an environment of its own below the user's cache, once (about a minute and a
gigabyte); ``PIPELINE_LABEL_STUDIO`` names another environment that has it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from pipeline.config.data import DataConfig, SourceConfig, TableName
from pipeline.config.ingest import IngestConfig
from pipeline.labels.collecting import Collected, Reporting, collect
from pipeline.labels.pairs import LABELING_CONFIG
from pipeline.labels.votes import Status

pytestmark = pytest.mark.integration

VERSION = "1.23.2"
PAIRS = [
    {"id": "sky", "prompt": "Why is the sky blue?", "chosen": "Short waves scatter most.", "rejected": "It is\npaint."},
    {"id": "sum", "prompt": "2 + 2?", "completion_a": "4", "completion_b": "5"},
    {"id": "tea", "prompt": "Name a tea, \"quoted\".", "completions": ["Assam; or\tCeylon", "Coffee, <b>no</b>"]},
    {
        "id": "talk",
        "prompt": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Bye?"},
        ],
        "response_1": "Bye.",
        "response_2": "Zażółć gęślą jaźń 👋",
    },
    {"id": "left", "prompt": "Nobody answers this.", "answer1": "x", "answer2": "y"},
]  # fmt: skip
# What each person is to say: the text that is better, a tie, or that it was skipped.
PLANTED: dict[tuple[str, str], str] = {
    ("sky", "ann"): "Short waves scatter most.", ("sky", "bob"): "Short waves scatter most.", ("sky", "cyd"): "tie",
    ("sum", "ann"): "4", ("sum", "bob"): "5", ("sum", "cyd"): "skip",
    ("tea", "ann"): "tie", ("tea", "bob"): "skip", ("tea", "cyd"): "Coffee, <b>no</b>",
    ("talk", "ann"): "Zażółć gęślą jaźń 👋", ("talk", "cyd"): "Bye.",
}  # fmt: skip


@dataclass(frozen=True)
class Server:
    url: str
    token: str  # of the first account


def environment_of_its_own() -> Path:
    """Return an environment with the server, installed where it is not."""
    if given := os.environ.get("PIPELINE_LABEL_STUDIO"):
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "finetune-pipeline-tests" / f"label-studio-{VERSION}"
    if not (folder / "installed").is_file():
        venv.create(folder, with_pip=True, clear=True)
        install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", f"label-studio=={VERSION}"]
        subprocess.run(install, check=True, timeout=1800)
        (folder / "installed").touch()
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, token = tmp_path_factory.mktemp("label-studio"), secrets.token_hex(20)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        **os.environ, "LABEL_STUDIO_BASE_DATA_DIR": str(folder), "COLLECT_ANALYTICS": "false", "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "", "LATEST_VERSION_CHECK": "false", "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    }  # fmt: skip
    command = [
        environment_of_its_own() / "bin" / "label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1",
        "--port", str(port), "--username", "owner@example.com", "--password", "planted-votes-1", "--user-token", token,
        "--data-dir", str(folder),
    ]  # fmt: skip
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=variables, cwd=folder, stdout=log, stderr=log)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while not answers(url):
            assert process.poll() is None, (folder / "log.txt").read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.5)
        yield Server(url, token)
    finally:
        process.terminate()
        process.wait(timeout=30)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/version", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def label(server: Server, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "label", *words, f"label.url={server.url}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LABEL_STUDIO_API_KEY": token or server.token},
    )
    assert (token or server.token) not in done.stdout + done.stderr
    return done


def as_owner(server: Server, method: str, target: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Token {server.token}"}
    return httpx.request(method, f"{server.url}{target}", headers=headers, trust_env=False, timeout=60, **more)


class Person:
    """Somebody who signs up in the browser and answers as the editor does."""

    def __init__(self, server: Server, name: str) -> None:
        self.http = httpx.Client(base_url=server.url, trust_env=False, timeout=30)
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.http.get("/user/signup/").text)
        assert found is not None
        form = {"csrfmiddlewaretoken": found[1], "email": f"{name}@example.com", "password": "planted-votes-1"}
        answer = self.http.post("/user/signup/", data=form, headers={"Referer": server.url})
        assert answer.status_code == 302, answer.text[:500]
        self.id = str(self.http.get("/api/current-user/whoami").json()["id"])

    def send(self, method: str, target: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"X-CSRFToken": self.http.cookies["csrftoken"], "Referer": str(self.http.base_url)}
        answer = self.http.request(method, target, json=body, headers=headers)
        assert answer.is_success, answer.text[:500]
        sent: dict[str, Any] = answer.json()
        return sent

    def judge(self, task: dict[str, Any], better: str) -> int:
        """Answer a task as it is shown."""
        shown = {task["data"]["answer1"]: "Left", task["data"]["answer2"]: "Right", "tie": "Tie"}
        result = [] if better == "skip" else [choice(shown[better])]
        body = {"result": result, "was_cancelled": better == "skip", "lead_time": 4.25}
        return int(self.send("POST", f"/api/tasks/{task['id']}/annotations/", body)["id"])


def choice(value: str) -> dict[str, Any]:
    return {"from_name": "preference", "to_name": "prompt", "type": "choices", "value": {"choices": [value]}}


@pytest.fixture(scope="module")
def judged(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Person], int]]:
    """A project that three people have judged: its export, who they are, and the project's number."""
    folder = tmp_path_factory.mktemp("pairs")
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS[:2]), encoding="utf-8")
    words = ("label.project=Planted votes", f"label.path={pairs}", "label.batch_size=2")
    done = label(server, "push", *words)
    assert done.returncode == 0, done.stderr
    assert "2 pairs" in done.stdout
    assert "2 pushed + 0 that were there already" in done.stdout
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    assert "5 pairs" in (done := label(server, "push", *words)).stdout
    assert "3 pushed + 2 that were there already" in done.stdout
    (project,) = as_owner(server, "GET", "/api/projects/").json()["results"]
    listed = as_owner(server, "GET", f"/api/tasks/?project={project['id']}").json()["tasks"]
    tasks = {task["data"]["id"]: task for task in listed}
    assert tasks.keys() == {pair["id"] for pair in PAIRS}
    people = {name: Person(server, name) for name in ("ann", "bob", "cyd")}
    for (pair, name), better in PLANTED.items():
        changed = (pair, name) == ("sum", "bob")
        number = people[name].judge(tasks[pair], "4" if changed else better)
        if changed:  # changes his mind, as the editor's "Update" does
            side = "Left" if tasks[pair]["data"]["answer1"] == better else "Right"
            people[name].send("PATCH", f"/api/annotations/{number}/", {"result": [choice(side)]})
    draft = {"result": [choice("Left")], "lead_time": 1.0}
    people["bob"].send("POST", f"/api/tasks/{tasks['talk']['id']}/drafts", draft)
    export = folder / "export.json"
    done = label(server, "pull", "label.project=Planted votes", f"label.path={export}")
    assert done.returncode == 0, done.stderr
    assert "5 tasks with 11 annotations" in done.stdout
    yield export, people, int(project["id"])
    for person in people.values():
        person.http.close()


def ingested(path: Path, **source: Any) -> Collected:
    bad: list[dict[str, Any]] = []
    data = DataConfig(name="server", sources=[SourceConfig(table=TableName.exports, path=str(path), **source)])
    collected = collect(data, IngestConfig(), {}, Reporting(bad_record=bad.append, account=lambda _: None))
    assert bad == []
    return collected


def said(collected: Collected, people: dict[str, Person]) -> dict[tuple[str, str], str]:
    """What was said, in the words of ``PLANTED``."""
    names = {person.id: name for name, person in people.items()}
    pairs = {str(pair["prompt"]): pair["id"] for pair in PAIRS}
    found = {}
    for vote in collected.votes:
        if vote.status not in {Status.submitted, Status.skipped}:
            continue
        item = collected.items[vote.item]
        prompt = item.prompt[0]["content"] if len(item.prompt) == 1 else str(item.prompt)
        better = "skip"
        if vote.status is Status.submitted:
            assert vote.ranks is not None
            best = item.candidates[vote.candidates[vote.ranks.index(1)]].messages[0]["content"]
            better = "tie" if vote.is_tie else best
        found[str(pairs[prompt]), names[str(vote.annotator)]] = better
    return found


def test_votes_come_back_as_they_were_planted(judged: tuple[Path, dict[str, Person], int]) -> None:
    export, people, _ = judged
    collected = ingested(export)
    assert said(collected, people) == PLANTED
    assert [vote.status for vote in collected.votes].count(Status.draft) == 1
    assert collected.accounts[0].unlabelled == 1
    assert {vote.seconds for vote in collected.votes if vote.status is Status.submitted} == {4.25}
    assert all(vote.created for vote in collected.votes)
    wrong = {**PLANTED, ("sky", "ann"): "tie"}
    assert said(collected, people) != wrong


def test_completions_are_shown_in_the_order_that_the_task_records(judged: tuple[Path, dict[str, Person], int]) -> None:
    tasks = {task["data"]["id"]: task["data"] for task in json.loads(judged[0].read_bytes())}
    assert tasks["talk"]["prompt"] == PAIRS[3]["prompt"]
    first = {"sky": "Short waves scatter most.", "sum": "4", "tea": "Assam; or\tCeylon", "talk": "Bye.", "left": "x"}
    for name, text in first.items():
        assert tasks[name]["answer2" if tasks[name]["swapped"] else "answer1"] == text
    assert {data["swapped"] for data in tasks.values()} == {True, False}


@pytest.mark.parametrize(("kind", "ending"), [("JSON_MIN", "json"), ("CSV", "csv"), ("TSV", "tsv")])
def test_the_servers_other_formats_say_the_same(
    server: Server, judged: tuple[Path, dict[str, Person], int], tmp_path: Path, kind: str, ending: str
) -> None:
    _, people, project = judged
    params = {"exportType": kind, "download_all_tasks": "true"}
    answer = as_owner(server, "GET", f"/api/projects/{project}/export", params=params)
    path = tmp_path / f"export.{ending}"
    path.write_bytes(answer.content)
    xml = tmp_path / "interface.xml"
    xml.write_text(LABELING_CONFIG, encoding="utf-8")
    carried = {key: better for key, better in PLANTED.items() if better != "skip"}
    for more in ({}, {"labeling_config": str(xml)}):
        assert said(ingested(path, **more), people) == carried


def test_a_personal_access_token_is_traded_for_short_lived_ones(
    server: Server, judged: tuple[Path, dict[str, Person], int], tmp_path: Path
) -> None:
    answer = as_owner(server, "POST", "/api/token/")
    token = answer.json()["token"]
    path = tmp_path / "export.json"
    done = label(server, "pull", "label.project=Planted votes", f"label.path={path}", token=token)
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_bytes()) == json.loads(judged[0].read_bytes())
    refused = label(server, "pull", "label.project=Planted votes", f"label.path={path}", token=f"{token}x")
    assert refused.returncode == 10
    assert "401" in refused.stderr


def test_what_the_server_refuses_is_one_message(
    server: Server, judged: tuple[Path, dict[str, Person], int], tmp_path: Path
) -> None:
    path = tmp_path / "export.json"
    for words, token, told in (
        (("label.project=Planted votes",), "0" * 40, "401"),
        (("label.project=Nothing here",), None, "no project 'Nothing here'"),
    ):
        done = label(server, "pull", *words, f"label.path={path}", token=token)
        assert done.returncode == 10
        assert told in done.stderr
        assert "Traceback" not in done.stderr
        assert not path.exists()
    other = "<View><Text name='t' value='$text'/><Choices name='c' toName='t'><Choice value='x'/></Choices></View>"
    made = as_owner(server, "POST", "/api/projects/", json={"title": "Another one", "label_config": other})
    assert made.status_code == 201
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps(PAIRS[0]), encoding="utf-8")
    done = label(server, "push", "label.project=Another one", f"label.path={pairs}")
    assert done.returncode == 10
    assert "shows text; pushed tasks have answer1, answer2, prompt" in done.stderr
