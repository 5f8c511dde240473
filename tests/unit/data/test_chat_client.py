"""The client against a server on the loopback interface that answers badly in every way that real ones do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Scripted, completion, serve_chat

from pipeline.config.endpoints import EndpointConfig
from pipeline.data import spending
from pipeline.data.chat_client import ChatClient
from pipeline.data.chat_replies import ChatRequest, parse_reply
from pipeline.data.endpoint_address import check_address
from pipeline.data.rows import Message
from pipeline.errors import ConfigError, EndpointError

SECRET = "a-key-that-nobody-may-see"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve_chat() as state:
        yield state


def ask(text: str = "Hello?", **fields: Any) -> ChatRequest:
    return ChatRequest(messages=[Message(role="user", content=text)], max_tokens=8, **fields)


def endpoint(server: ChatServer, **fields: Any) -> EndpointConfig:
    return EndpointConfig(base_url=server.url, model="toy", **fields)


class Waits(list[float]):
    """Notes how long is waited and does not wait."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def test_the_request_is_the_protocol_s_and_the_answer_is_read(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", SECRET)
    answer = completion("Yes.", finish_reason="length", prompt_tokens=7)
    top = [{"token": "Yes", "logprob": -0.1}, {"token": " Yes", "logprob": -3.0}, {"token": "Yes", "logprob": -0.2}]
    answer.content["choices"][0]["logprobs"] = {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": top}]}
    server.script = [answer]
    config = endpoint(server, api_key_env="TOY_KEY", extra={"reasoning_effort": "low"})
    with ChatClient(config, None) as client:
        reply = client.complete(ask(temperature=0.5, top_p=0.9, seed=3, top_logprobs=5))
    assert server.asked == [
        {
            "model": "toy", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 8, "temperature": 0.5,
            "top_p": 0.9, "seed": 3, "logprobs": True, "top_logprobs": 5, "reasoning_effort": "low",
        }
    ]  # fmt: skip
    assert server.keys == [f"Bearer {SECRET}"]
    assert (reply.status, reply.text, reply.finish_reason) == ("ok", "Yes.", "length")
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 1)
    assert reply.top_logprobs == {"Yes": -0.1, " Yes": -3.0}


def test_what_may_pass_is_tried_again(server: ChatServer) -> None:
    waits = Waits()
    server.script = [
        Scripted(status=429, content={"error": "slow down"}, headers={"Retry-After": "7"}),
        Scripted(status=503, content=b"<html>busy"),
        Scripted(content=b"\xff\x00 garbage"),
        Scripted(content={"choices": []}),
        Scripted(status=0),
        completion("At last."),
    ]
    with ChatClient(endpoint(server), None, sleep=waits) as client:
        assert client.complete(ask()).text == "At last."
    assert client.spending.requests == 6
    assert client.spending.retries == 5
    assert [round(wait) for wait in waits if wait > 0.5][0] == 7  # what the server asked for
    assert {2.0, 4.0, 8.0, 16.0} <= set(waits)


@pytest.mark.parametrize(
    ("scripted", "status", "detail"),
    [
        (Scripted(status=500, content=b"broken"), "error", "status 500: broken"),
        (Scripted(content=b"{"), "error", "not a chat completion: no JSON"),
        (Scripted(content={"choices": [{"message": {"content": None}}]}), "error", "its message has no content"),
        (Scripted(content=b"x" * (9 << 20)), "error", "more than 8,388,608 bytes"),
        (Scripted(delay=0.6, content={}), "timeout", "no whole answer within 0.3 s"),
        (Scripted(content={"choices": "a long answer that never ends"}, drip=0.05), "timeout", "no whole answer"),
    ],
)
def test_what_does_not_pass_says_so_and_is_asked_again_next_time(
    server: ChatServer, tmp_path: Path, scripted: Scripted, status: str, detail: str
) -> None:
    server.rule = lambda body: scripted
    config = endpoint(server, max_retries=1, timeout_seconds=0.3)
    with ChatClient(config, tmp_path, sleep=Waits()) as client:
        reply = client.complete(ask())
        assert (reply.status, reply.text) == (status, "")
        assert detail in reply.detail
        assert client.spending.requests == 2
        server.rule = lambda body: completion("Better.")
        assert client.complete(ask()).text == "Better."


@pytest.mark.parametrize("status", [400, 401, 403, 404, 307])
def test_what_will_not_pass_ends_at_once_and_keeps_the_key(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("TOY_KEY", SECRET)
    elsewhere = {"Location": f"{server.url}/elsewhere"}
    server.rule = lambda body: Scripted(status=status, content=f"refused {SECRET}".encode(), headers=elsewhere)
    with (
        ChatClient(endpoint(server, api_key_env="TOY_KEY"), None) as client,
        pytest.raises(EndpointError, match=f"answers with {status}: refused") as caught,
    ):
        client.complete(ask())
    assert SECRET not in str(caught.value)
    assert len(server.asked) == 1


def test_a_refusal_is_an_answer(server: ChatServer, tmp_path: Path) -> None:
    server.script = [completion(None, refusal="I will not."), completion("partly", finish_reason="content_filter")]
    with ChatClient(endpoint(server), tmp_path) as client:
        assert [client.complete(ask(text)).status for text in ("a", "b", "a")] == ["refused"] * 3
    assert len(server.asked) == 2


def test_nothing_is_asked_twice(server: ChatServer, tmp_path: Path) -> None:
    server.rule = lambda body: completion(f"answer {len(server.asked)}")
    with ChatClient(endpoint(server), tmp_path) as client:
        first = client.complete(ask())
    with ChatClient(endpoint(server, timeout_seconds=3, max_retries=0), tmp_path) as client:
        again = client.complete(ask())
        assert (again.text, again.cached) == (first.text, True)
        assert client.spending.requests == 0
        assert client.spending.cached == 1
        other = [client.complete(ask(**changed)) for changed in ({"seed": 1}, {"temperature": 0.1}, {"draw": 1})]
    assert {reply.text for reply in other} == {"answer 2", "answer 3", "answer 4"}
    kept = next(tmp_path.rglob("*.json"))
    kept.write_text("{", encoding="utf-8")  # damaged: asked again
    with ChatClient(endpoint(server), tmp_path) as client:
        for fields in ({}, {"seed": 1}, {"temperature": 0.1}, {"draw": 1}):
            assert client.complete(ask(**fields)).status == "ok"
        assert (client.spending.requests, client.spending.cached) == (1, 3)


def test_all_are_asked_and_come_back_in_order(server: ChatServer) -> None:
    server.rule = lambda body: Scripted(
        content=completion(body["messages"][0]["content"][::-1]).content, delay=0.05 if "0" in str(body) else 0.0
    )
    seen: dict[int, str] = {}
    with ChatClient(endpoint(server, max_concurrency=3), None) as client:
        replies = client.complete_all(
            [ask(f"number {n}") for n in range(7)], lambda n, reply: seen.update({n: reply.text})
        )
    assert [reply.text for reply in replies] == [f"{n} rebmun" for n in range(7)]
    assert seen == {n: reply.text for n, reply in enumerate(replies)}


def test_an_error_stops_the_others(server: ChatServer) -> None:
    def rule(body: dict[str, Any]) -> Scripted:
        return Scripted(status=401) if "4" in str(body["messages"]) else Scripted(status=503)

    server.rule = rule
    with (
        ChatClient(endpoint(server, max_concurrency=2, max_retries=50), None) as client,
        pytest.raises(EndpointError, match="401"),
    ):
        client.complete_all([ask("4"), *[ask(str(n)) for n in (1, 2, 3)]])
    assert len(server.asked) <= 4  # nobody waits through fifty retries


def test_the_pace_is_kept(server: ChatServer) -> None:
    with ChatClient(endpoint(server, requests_per_minute=600, max_concurrency=4), None) as client:
        client.complete_all([ask(str(n)) for n in range(4)])
    gaps = [later - before for before, later in zip(server.times, server.times[1:], strict=False)]
    assert server.times[-1] - server.times[0] > 0.25, gaps  # three gaps of 0.1 s, less what threads take to start


def test_the_cap_holds_in_the_worst_case(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A prompt of 6 bytes is at most 22 tokens: 22 x 10 + 8 x 100 = 1,020 millionths at most; each answer then takes
    # 10 x 10 + 2 x 100 = 300. With a cap of 2,000 the third still fits (600 + 1,020), the fifth no longer (1,200).
    server.rule = lambda body: completion("two words")
    config = endpoint(server, input_price=10, output_price=100, max_cost=2000e-6, max_concurrency=1)
    with ChatClient(config, tmp_path) as client:
        with pytest.raises(EndpointError, match="max_cost"):
            client.complete_all([ask(f"Hello{n}") for n in range(9)])
        assert len(server.asked) == 4
        assert client.spending.cost == pytest.approx(1200e-6)
        assert (client.spending.prompt_tokens, client.spending.completion_tokens) == (40, 8)
    # Another stage of the same command has a client of its own and the same purse: of the 800 left, 720 may be spent.
    small = replace(ask("Hello9"), max_tokens=5)
    with ChatClient(config, tmp_path) as client:
        with pytest.raises(EndpointError, match="0.0012 is spent"):
            client.complete(ask("Hello9"))
        assert client.complete(small).status == "ok"
        assert client.spending.cost == pytest.approx(300e-6)
    assert len(server.asked) == 5
    monkeypatch.setattr(spending, "_budgets", {})  # a command later; what is kept costs nothing, so it gets further
    with ChatClient(config, tmp_path) as client, pytest.raises(EndpointError, match="max_cost"):
        client.complete_all([ask(f"Hello{n}") for n in range(9)])
    assert len(server.asked) == 9


def test_answers_that_were_lost_count_as_if_they_were_billed(server: ChatServer) -> None:
    server.rule = lambda body: Scripted(content=b"garbage")
    config = endpoint(server, input_price=10, output_price=100, max_cost=2500e-6, max_retries=9)
    with ChatClient(config, None, sleep=Waits()) as client:
        with pytest.raises(EndpointError, match="max_cost"):
            client.complete(ask("Hello0"))
        assert client.spending.cost == pytest.approx(2 * 1020e-6)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [("TOY_KEY", None, "TOY_KEY is not set"), ("sk-abc", None, "not the key itself"), ("TOY_KEY", "a b", "characters")],
)
def test_a_key_that_cannot_be_used_is_refused_unseen(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, expected: str
) -> None:
    monkeypatch.delenv("TOY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TOY_KEY", value)
    with pytest.raises(ConfigError, match=expected) as caught:
        ChatClient(endpoint(server, api_key_env=variable), None)
    assert "sk-abc" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://a/v1", "api.example.com", "https://me:secret@a.org/v1", "https://a.org/v1?k=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_address(url)
    assert "secret" not in str(caught.value)


def test_logprobs_that_are_missing_or_odd_are_none() -> None:
    def read(logprobs: Any) -> dict[str, float] | None:
        return parse_reply(
            json.dumps({"choices": [{"message": {"content": "x"}, "logprobs": logprobs}]}).encode()
        ).top_logprobs

    assert read(None) is None
    assert read({"content": []}) is None
    assert read({"content": [{"top_logprobs": [{"token": "a"}]}]}) is None
    assert read({"content": [{"top_logprobs": [{"token": "a", "logprob": float("-inf")}]}]}) == {"a": -9999.0}
