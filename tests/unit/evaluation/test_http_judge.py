"""The judge behind an endpoint, against a server that limits, hangs, answers garbage, nothing or far too much."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Scripted, completion, serve_chat
from judging import answer_row, judging_job

from pipeline.config.endpoints import EndpointConfig
from pipeline.config.judges import JudgeConfig
from pipeline.errors import ConfigError, EndpointError
from pipeline.evaluation.verdicts import read_verdicts
from pipeline.stages.verdicts import judge_samples
from pipeline.tracking.job import StageJob

NONCE = re.compile(r'"nonce": "([0-9a-f]{16})"')


def asked_text(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


def verdict(body: dict[str, Any], letter: str | None = None) -> Scripted:
    """Prefer the answer that says good, as a fair judge would."""
    text = asked_text(body)
    nonce = NONCE.search(text)
    assert nonce is not None
    first = text.partition("[answer A")[2].partition("[end of answer A")[0]
    said = letter or ("A" if "good" in first else "B")
    return completion(f'{{"nonce": "{nonce.group(1)}", "verdict": "{said}"}}', prompt_tokens=500)


def judge_job(folder: Path, server: ChatServer, count: int = 8, **changes: Any) -> StageJob:
    settings = {"timeout_seconds": 0.5, "max_retries": 2, "max_concurrency": 2, **changes}
    endpoint = EndpointConfig(base_url=server.url, model="judge", **settings)
    judge = JudgeConfig(name="remote", kind="http", endpoint=endpoint, batch_size=4)
    names = [f"i{number}" for number in range(count)]
    first = [answer_row(name, f"good {name}") for name in names]
    second = [answer_row(name, f"bad {name}") for name in names]
    return judging_job(folder, judge, {"tuned": first, "base": second})


def statuses(job: StageJob) -> Counter[str]:
    return Counter(row.status for row in read_verdicts(job.staging / "verdicts.jsonl"))


def test_both_orders_are_asked_and_the_same_request_never_twice(tmp_path: Path) -> None:
    with serve_chat() as server:
        server.rule = verdict
        outcome = judge_samples(judge_job(tmp_path, server))
        assert outcome.metrics == {"questions": 16, "identical": 0, "no_completion": 0, "ok": 16}
        bodies = [asked_text(body) for body in server.asked]
        assert len(bodies) == len(set(bodies)) == 16
        assert all(body["temperature"] == 0 and body["max_tokens"] == 64 for body in server.asked)
        judge_samples(judge_job(tmp_path / "elsewhere", server))
        assert len(server.asked) == 32  # with another cache it asks again, so the cache below is not idle
        cached = judge_job(tmp_path / "again", server)
        cached.runtime.cache = str(tmp_path / "cache")
        judge_samples(cached)
        assert len(server.asked) == 32


@pytest.mark.slow
def test_every_kind_of_failure_is_retried_within_bounds_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.chat_client.MAX_WAIT", 0.01)
    with serve_chat() as server:
        troubles = {
            "i0": [Scripted(status=429, headers={"Retry-After": "0"}, content={"error": "slow down"})],  # then well
            "i1": [Scripted(status=500, content="oops")] * 3,  # for good
            "i2": [Scripted(delay=1.0, content="late")] * 3,
            "i3": [Scripted(content=b"<html>garbage")] * 3,
            "i4": [Scripted(content=b"")] * 3,
            "i5": [Scripted(content=b"x" * (10 << 20))] * 3,
            "i6": [completion("I would rather not say which is better.")],
            "i7": [completion(None, refusal="I cannot judge this.")],
        }
        left = {name: list(scripted) for name, scripted in troubles.items()}

        def rule(body: dict[str, Any]) -> Scripted:
            text = asked_text(body)
            name = next(name for name in troubles if f"good {name}" in text)
            first_shown_good = "good" in text.partition("[answer A")[2].partition("[end of answer A")[0]
            return left[name].pop(0) if first_shown_good and left[name] else verdict(body)

        server.rule = rule
        outcome = judge_samples(job := judge_job(tmp_path, server))
        assert statuses(job) == Counter({"ok": 9, "error": 4, "timeout": 1, "parse_fail": 1, "refused": 1})
        assert outcome.metrics["questions"] == 16 == sum(statuses(job).values())
        attempts = Counter(asked_text(body) for body in server.asked)
        assert max(attempts.values()) == 3  # one and two retries
        # 16 questions; the 429 costs one more, five that fail for good two more each.
        assert len(server.asked) == 16 + 1 + 5 * 2
        details = {row.id: row.detail for row in read_verdicts(job.staging / "verdicts.jsonl") if row.score is None}
        assert "500" in str(details["i1"])
        assert "bytes" in str(details["i5"])
        assert "rather not say" in str(details["i6"])


def test_a_killed_run_asks_nothing_twice_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    class Killed(BaseException):
        """As a power cut: nothing handles it."""

    with serve_chat() as server:
        server.rule = verdict
        prices = {"input_price": 2.0, "output_price": 6.0}
        judge_samples(whole := judge_job(tmp_path / "whole", server, **prices))
        expected = (whole.staging / "verdicts.jsonl").read_bytes()
        server.asked.clear()
        job = judge_job(tmp_path / "killed", server, **prices)
        progress = job.run.progress

        def kill(total: int, done: int) -> None:
            if done == 2:
                raise Killed

        job.run.progress = kill  # type: ignore[method-assign, assignment]
        with pytest.raises(Killed):
            judge_samples(job)
        assert len(server.asked) == 8  # two batches of four
        assert not (job.staging / "verdicts.jsonl").exists()
        job.run.progress = progress  # type: ignore[method-assign]
        judge_samples(job)
        assert (job.staging / "verdicts.jsonl").read_bytes() == expected
        bodies = [asked_text(body) for body in server.asked]
        assert len(bodies) == len(set(bodies)) == 16
        for one in (whole, job):  # 500 tokens of a prompt and 4 of an answer are 1,024 millionths
            costs = json.loads((one.staging / "costs.json").read_text())
            assert (costs["cost"], costs["cost_per_thousand"]) == (0.016384, 1.024)


def test_a_wrong_key_ends_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with serve_chat() as server:
        server.rule = lambda body: Scripted(status=401, content={"error": "bad key sk-secret"})
        with pytest.raises(EndpointError, match="401") as caught:
            judge_samples(judge_job(tmp_path, server, api_key_env="JUDGE_KEY", max_concurrency=1))
        assert "sk-secret" not in str(caught.value)
        assert len(server.asked) == 1
        assert server.keys == ["Bearer sk-secret"]


def test_the_cost_cap_stops_before_it_is_passed(tmp_path: Path) -> None:
    with serve_chat() as server:
        server.rule = verdict
        job = judge_job(tmp_path, server, input_price=100.0, output_price=100.0, max_cost=0.5, max_concurrency=1)
        with pytest.raises(EndpointError, match="max_cost"):
            judge_samples(job)
        # An answer costs 0.05: nine are paid for, or a few less, because the next one could cost more than is left.
        assert 5 <= len(server.asked) <= 9


def test_an_http_judge_without_an_endpoint_is_told(tmp_path: Path) -> None:
    judge = JudgeConfig(name="remote", kind="http")
    rows = {"a": [answer_row("i", "one")], "b": [answer_row("i", "two")]}
    with pytest.raises(ConfigError, match="judge `remote`: it has no `endpoint`"):
        judge_samples(judging_job(tmp_path, judge, rows))
