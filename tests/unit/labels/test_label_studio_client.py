"""The client against a server on the loopback interface that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.__main__ import run
from pipeline.commands.label import parse
from pipeline.errors import ConfigError, DataError, LabelServerError
from pipeline.labels.connection import check_url, find_token
from pipeline.labels.importers.label_studio_interface import parse_interface
from pipeline.labels.importers.label_studio_wording import read_choice
from pipeline.labels.pairs import LABELING_CONFIG, TASK_KEYS, pair_task, read_pairs
from pipeline.labels.server import LabelStudioClient, Project

TOKEN = "0123456789abcdef0123456789abcdef01234567"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyIjoiMSJ9.c2lnbmF0dXJl"
PROJECT = Project(id=7, title="Pairs", labeling_config=LABELING_CONFIG)
LISTED = {"id": 7, "title": "Pairs", "label_config": LABELING_CONFIG}


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    authorization: str | None
    body: Any


@dataclass
class Stub:
    """Answers in the order given, per method and path; the last one stays."""

    url: str = ""
    answers: dict[str, list[tuple[int, dict[str, str], Any]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, where: str, *answers: Any) -> None:
        """Say what to answer: a body, a status, or (status, headers, body)."""
        full = [
            answer if isinstance(answer, tuple) else (answer, {}, "") if isinstance(answer, int) else (200, {}, answer)
            for answer in answers
        ]
        self.answers[where] = full

    def count(self, where: str) -> int:
        return sum(f"{asked.method} {asked.path}" == where for asked in self.asked)


@pytest.fixture
def stub() -> Iterator[Stub]:
    state = Stub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            state.asked.append(Asked(self.command, parts.path, query, self.headers.get("Authorization"), body))
            prepared = state.answers.get(f"{self.command} {parts.path}") or [(404, {}, {"detail": "Not found."})]
            status, headers, content = prepared.pop(0) if len(prepared) > 1 else prepared[0]
            if status == 0:  # hang up
                self.close_connection = True
                return
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


class Client(LabelStudioClient):
    """One that remembers how long it would have waited."""

    def __init__(self, stub: Stub, token: str = TOKEN, seconds: float = 5.0) -> None:
        self.waited: list[float] = []
        super().__init__(stub.url, token, seconds=seconds, sleep=self.waited.append)


def test_a_project_is_found_on_whichever_page_it_stands(stub: Stub) -> None:
    others = [{"id": index, "title": f"other {index}", "label_config": ""} for index in range(100)]
    pages = [{"count": 101, "results": others}, {"count": 101, "results": [LISTED]}]
    stub.on("GET /api/projects/", *pages)
    with Client(stub) as client:
        assert client.find_project("Pairs") == PROJECT
    assert [asked.query["page"] for asked in stub.asked] == ["1", "2"]
    assert {asked.authorization for asked in stub.asked} == {f"Token {TOKEN}"}
    stub.on("GET /api/projects/", *pages)
    with Client(stub) as client:
        assert client.find_project("Nothing") is None


def test_two_projects_of_one_name_are_not_guessed_between(stub: Stub) -> None:
    stub.on("GET /api/projects/", {"count": 2, "results": [LISTED, {**LISTED, "id": 8}]})
    with Client(stub) as client, pytest.raises(LabelServerError, match="2 projects called 'Pairs'"):
        client.find_project("Pairs")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_reading_is_tried_again_and_waits_longer_each_time(stub: Stub, status: int) -> None:
    stub.on("GET /api/projects/", status, status, {"count": 0, "results": []})
    with Client(stub) as client:
        assert client.find_project("Pairs") is None
        assert client.waited == [0.5, 1.0]
    stub.on("GET /api/projects/", (status, {"Retry-After": "7"}, ""), {"count": 0, "results": []})
    with Client(stub) as client:
        client.find_project("Pairs")
        assert client.waited == [7.0]
    stub.on("GET /api/projects/", (status, {"Retry-After": "86400"}, ""), status)
    with Client(stub) as client, pytest.raises(LabelServerError, match=f"with {status}"):
        client.find_project("Pairs")
    assert client.waited == [30.0, 1.0, 2.0, 4.0]


def test_a_dropped_connection_is_tried_again_only_for_reading(stub: Stub) -> None:
    stub.on("GET /api/projects/", 0, {"count": 0, "results": []})
    stub.on("POST /api/projects/7/import", 0, {"task_count": 1})
    with Client(stub) as client:
        assert client.find_project("Pairs") is None
        with pytest.raises(LabelServerError, match="cannot be reached"):
            client.add_tasks(PROJECT, [{"id": "1"}])
    assert stub.count("POST /api/projects/7/import") == 1


def test_an_import_is_sent_again_only_where_nothing_was_done(stub: Stub) -> None:
    stub.on("POST /api/projects/7/import", 429, {"task_count": 2})
    with Client(stub) as client:
        client.add_tasks(PROJECT, [{"id": "1"}, {"id": "2"}])
    assert [asked.body for asked in stub.asked] == [[{"data": {"id": "1"}}, {"data": {"id": "2"}}]] * 2
    stub.asked.clear()
    stub.on("POST /api/projects/7/import", 503, {"task_count": 2})
    with Client(stub) as client, pytest.raises(LabelServerError, match="with 503"):
        client.add_tasks(PROJECT, [{"id": "1"}, {"id": "2"}])
    assert len(stub.asked) == 1
    stub.on("POST /api/projects/7/import", {"task_count": 1})
    with Client(stub) as client, pytest.raises(LabelServerError, match="imported 1 of 2 tasks"):
        client.add_tasks(PROJECT, [{"id": "1"}, {"id": "2"}])


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "does not know the token"),
        (403, "may not do this"),
        (404, "address of the server"),
        (400, "what it names"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_repeated(stub: Stub, status: int, told: str) -> None:
    body = {"detail": f"No, {TOKEN}.", "validation_errors": {"title": ["too short"]}}
    stub.on("POST /api/projects/", (status, {}, body))
    with Client(stub) as client, pytest.raises(LabelServerError) as caught:
        client.create_project("Pairs", LABELING_CONFIG)
    message = str(caught.value)
    assert f"POST /api/projects/ with {status}: No, [redacted]. {{'title': ['too short']}}. " in message
    assert told in message
    assert TOKEN not in message
    assert len(stub.asked) == 1


@pytest.mark.parametrize("where", ["https://elsewhere.example/login?t=1", "/user/login/"])
def test_a_redirect_is_not_followed(stub: Stub, where: str) -> None:
    stub.on("GET /api/projects/", (302, {"Location": where}, ""))
    with Client(stub) as client, pytest.raises(LabelServerError, match="the token is not carried along") as caught:
        client.find_project("Pairs")
    assert ("https://elsewhere.example," in str(caught.value)) == where.startswith("https")
    assert len(stub.asked) == 1


@pytest.mark.parametrize("body", [b"<html>", {"detail": "x"}, {"count": 3}, {"results": []}, [], b"[" * 100_000])
def test_what_is_no_label_studio_is_recognised(stub: Stub, body: Any) -> None:
    stub.on("GET /api/projects/", body)
    with Client(stub) as client, pytest.raises(LabelServerError, match="Is this a Label Studio server"):
        client.find_project("Pairs")


def test_a_server_that_is_not_there_or_does_not_answer(stub: Stub) -> None:
    with Client(Stub(url="http://127.0.0.1:9")) as client, pytest.raises(LabelServerError, match="cannot be reached"):
        client.find_project("Pairs")
    assert client.waited == []
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # listens and never accepts
    try:
        quiet = Stub(url=f"http://127.0.0.1:{silent.server_port}")
        with Client(quiet, seconds=0.05) as client, pytest.raises(LabelServerError, match="did not answer in time"):
            client.find_project("Pairs")
    finally:
        silent.server_close()
    assert len(client.waited) == 4


def test_a_personal_access_token_buys_short_lived_ones(stub: Stub) -> None:
    stub.on("POST /api/token/refresh/", {"access": "one"}, {"access": "two"})
    stub.on("GET /api/projects/", {"count": 0, "results": []}, 401, {"count": 0, "results": []})
    with Client(stub, JWT) as client:
        client.find_project("Pairs")
        client.find_project("Pairs")
    assert [(asked.path, asked.authorization) for asked in stub.asked] == [
        ("/api/token/refresh/", None),
        ("/api/projects/", "Bearer one"),
        ("/api/projects/", "Bearer one"),
        ("/api/token/refresh/", None),
        ("/api/projects/", "Bearer two"),
    ]
    assert stub.asked[0].body == {"refresh": JWT}
    stub.asked.clear()
    stub.on("GET /api/projects/", (401, {}, {"detail": f"{JWT} and two"}))
    with Client(stub, JWT) as client, pytest.raises(LabelServerError, match="with 401") as caught:
        client.find_project("Pairs")
    assert JWT not in str(caught.value)
    assert stub.count("GET /api/projects/") == 2
    stub.on("POST /api/token/refresh/", (401, {}, {"detail": "Token is invalid"}))
    with Client(stub, JWT) as client, pytest.raises(LabelServerError, match="refresh/ with 401: Token is invalid"):
        client.find_project("Pairs")


def test_an_export_is_written_whole_or_not_at_all(stub: Stub, tmp_path: Path) -> None:
    path, where = tmp_path / "export.json", "GET /api/projects/7/export"
    whole = json.dumps([{"id": number, "annotations": []} for number in range(5000)]).encode()
    stub.on(where, (200, {"Content-Length": str(len(whole))}, whole[:1000]), 502, whole)  # cut off, failed, whole
    with Client(stub, seconds=0.5) as client:
        client.export(PROJECT, path)
    assert path.read_bytes() == whole
    assert stub.asked[0].query == {"exportType": "JSON", "download_all_tasks": "true"}
    stub.on(where, (404, {}, {"detail": "gone"}))
    with Client(stub) as client, pytest.raises(LabelServerError, match="gone"):
        client.export(PROJECT, path)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]
    with Client(stub) as client, pytest.raises(ConfigError, match=r"label\.path"):
        client.export(PROJECT, tmp_path / "no" / "export.json")


@pytest.mark.parametrize(
    "url", ["ftp://x", "localhost:8080", "file:///etc/passwd", "http://", "http://a:b@x", "http://x?y"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"label\.url"):
        check_url(url)
    assert check_url("https://labels.org/ls/") == "https://labels.org/ls"


def test_the_token_is_in_the_environment() -> None:
    assert find_token({"LABEL_STUDIO_API_KEY": f" {TOKEN}\n"}) == TOKEN
    for wrong in ("", "a b", "tökén", "a\x00b"):
        with pytest.raises(ConfigError, match="LABEL_STUDIO_API_KEY") as caught:
            find_token({"LABEL_STUDIO_API_KEY": wrong})
        assert not wrong or wrong not in str(caught.value)


def test_the_command_line_is_checked_as_a_whole() -> None:
    action, config = parse(["push", "label.project=Pairs", "label.path=a=b.jsonl", "label.seed=3"])
    assert (action, config.project, config.path, config.seed) == ("push", "Pairs", "a=b.jsonl", 3)
    assert config.url == "http://localhost:8080"
    for words, told in (
        ([], "There is no action ''"),
        (["pul"], "Did you mean `pull`"),
        (["pull", "label.projct=x"], "Did you mean `label.project`"),
        (["pull", "label.seed=x"], "label.seed=x"),
        (["pull", "label.batch_size=0"], "must be at least 1"),
        (["pull", "x"], "`x` is not an override"),
        (["pull", "label=x"], "name one of its keys"),
        (["pull", "label.path=x"], "label.project: has no value"),
        (["pull", "label.project=ab"], "3 to 50 characters"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse(words)
        assert told in str(caught.value)


def test_push_adds_what_is_missing_and_never_says_the_token(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    path = tmp_path / "pairs.jsonl"
    rows = [{"id": str(n), "prompt": "Why?", "response1": f"a{n}", "response2": f"b{n}"} for n in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = [
        "label",
        "push",
        f"label.url={stub.url}",
        "label.project=Pairs",
        f"label.path={path}",
        "label.batch_size=2",
    ]
    stub.on("GET /api/projects/", {"count": 1, "results": [LISTED]})
    stub.on("GET /api/tasks/", {"total": 1, "tasks": [{"id": 1, "data": {"id": "2"}}]})
    stub.on("POST /api/projects/7/import", {"task_count": 2})
    assert run(words) == 0
    assert "5 pairs" in (out := capsys.readouterr().out)
    assert "4 pushed + 1 that were there already" in out
    sent = [task["data"]["id"] for asked in stub.asked if asked.method == "POST" for task in asked.body]
    assert sent == ["0", "1", "3", "4"]
    stub.on("POST /api/projects/7/import", {"task_count": 2}, 500)
    assert run(words) == 10
    told = capsys.readouterr().err
    assert "2 of 4 pairs are pushed; push again" in told
    assert TOKEN not in told
    stub.on("GET /api/projects/", {"count": 1, "results": [{**LISTED, "label_config": "<View/>"}]})
    assert run(words) == 10
    assert "The labeling interface of 'Pairs' has none of the controls" in capsys.readouterr().err


def test_pull_refuses_what_is_no_export(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    words = ["label", "pull", f"label.url={stub.url}", "label.project=Pairs"]
    stub.on("GET /api/projects/", {"count": 1, "results": [LISTED]})
    whole = [{"id": 1, "annotations": [{}, {}]}]
    for body, status in ((whole, 0), ({"detail": "x"}, 10), (b"<html>", 10), ([3], 10)):
        stub.on("GET /api/projects/7/export", body)
        assert run([*words, f"label.path={tmp_path / 'e.json'}"]) == status
        assert json.loads((tmp_path / "e.json").read_bytes()) == whole
    printed = capsys.readouterr()
    assert "1 tasks with 2 annotations" in printed.out
    assert printed.err.count("sends no export") == 3
    assert run([*words, f"label.path={tmp_path / 'e.csv'}"]) == 2
    assert run([*words, f"label.path={tmp_path / 'no' / 'e.json'}"]) == 2
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    assert run([*words, f"label.path={tmp_path / 'e.json'}"]) == 2
    assert "LABEL_STUDIO_API_KEY is not set" in capsys.readouterr().err


def test_the_order_shown_is_decided_once_and_recorded() -> None:
    rows = [{"id": str(n), "prompt": "Why?", "completions": ["one", "two"]} for n in range(400)]
    tasks = [pair_task(row, seed=0) for row in rows]
    assert tasks == [pair_task(row, seed=0) for row in rows]
    assert tasks != [pair_task(row, seed=1) for row in rows]
    for task in tasks:
        shown = (task["answer1"], task["answer2"])
        assert shown == (("two", "one") if task["swapped"] else ("one", "two"))
    # Half of 400 with a standard deviation of 10: five of them on either side.
    assert 150 < sum(task["swapped"] for task in tasks) < 250
    assert tasks[0].keys() > TASK_KEYS


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "x", "chosen": "a", "rejected": "b"}, ":2: E_ID: the pair has no id"),
        ({"id": "1", "chosen": "a", "rejected": "b"}, ":2: E_SCHEMA: the pair has no `prompt`"),
        ({"id": "1", "prompt": "x", "chosen": "a", "rejected": "a"}, ":2: E_SAMEPAIR"),
        ({"id": "1", "prompt": "x", "chosen": "a", "rejected": " "}, ":2: E_EMPTY"),
        (
            {"id": "1", "prompt": "x", "chosen": "a"},
            "which two completions to compare; its columns: chosen, id, prompt",
        ),
        ({"id": "0", "prompt": "x", "chosen": "a", "rejected": "b"}, "the id '0' is that of line 1 as well"),
        ({"id": "1", "prompt": "x", "chosen": True, "rejected": "b"}, ":2: E_SCHEMA"),
    ],
)
def test_a_row_that_is_no_pair_stops_the_push(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = {"id": "0", "prompt": "x", "chosen": "a", "rejected": "b"}
    path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(read_pairs(path, 0))
    assert told in str(caught.value)


def test_our_own_interface_is_understood() -> None:
    interface = parse_interface(LABELING_CONFIG)
    assert set(interface.objects.values()) == TASK_KEYS
    wordings = [read_choice(choice) for choice in interface.controls["preference"].choices]
    assert [(wording.side, wording.tie) for wording in wordings if wording] == [(0, False), (None, True), (1, False)]
