"""Anything can be evaluated: an adapter folder, another model with its own tokenizer, a model behind HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Scripted, completion, serve_chat
from tiny import make_tiny_model

from pipeline.__main__ import run

FURTHER_TEXT = ("Some other words altogether, so that the merges are not the same ones: abcabc defdef.",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with different tokenizers, an adapter of the first, and a suite of own prompts."""
    folder = tmp_path_factory.mktemp("policies")
    make_tiny_model(folder / "model")
    make_tiny_model(folder / "other", text=FURTHER_TEXT, vocab_size=300, seed=1)
    write_adapter(folder / "model", folder / "tuned")
    turns = [{"role": "user", "content": f"What about order {number}?"} for number in range(12)]
    rows = [
        {"id": f"row-{number:02d}", "messages": [turn, {"role": "assistant", "content": f"Order {number} is ready."}]}
        for number, turn in enumerate(turns)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suites = folder / "configs" / "suite"
    suites.mkdir(parents=True)
    common = "table: demonstrations\nsplit: test\nbatch_size: 2\n"
    (suites / "written.yaml").write_text(
        f"kind: generation\n{common}sampling: {{max_new_tokens: 8}}\n"
        "checks: [{name: max_words, params: {limit: 5}}]\n"
    )
    (suites / "likely.yaml").write_text(f"kind: likelihood\n{common}")
    return folder


def write_adapter(model: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from pipeline.config.shared import LoRAConfig
    from pipeline.models.loading import add_lora, save_adapter

    policy = add_lora(AutoModelForCausalLM.from_pretrained(model).requires_grad_(False), LoRAConfig(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    save_adapter(policy, folder)


@pytest.fixture
def home(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve_chat() as state:
        yield state


def evaluate(home: Path, *arguments: str, policies: str, suites: str) -> int:
    return run([
        "train", "+experiment=evaluate", "model=hub", f"model.id={home / 'model'}", "data=jsonl",
        f"data.path={home / 'rows.jsonl'}", "curate.test_fraction=0.5", "curate.near_duplicates.enabled=false",
        "tracking=disabled", "model.dtype=float32", "runtime.num_threads=1", f"evaluate.suites=[{suites}]",
        f"inputs.evaluate.policy=[{policies}]", f"--config-dir={home / 'configs'}", *arguments,
    ])  # fmt: skip


def write_endpoint(home: Path, url: str, **fields: Any) -> None:
    values = {"base_url": url, "model": "toy", "max_concurrency": 1, **fields}
    (home / "configs" / "endpoint").mkdir(exist_ok=True)
    text = "".join(f"{key}: {value}\n" for key, value in values.items())
    (home / "configs" / "endpoint" / "toy.yaml").write_text(text)


def last_report() -> dict[str, Any]:
    return dict(json.loads(sorted(Path("outputs/runs").iterdir())[-1].joinpath("report.json").read_text()))


def samples(policy: str, suite: str = "written") -> list[dict[str, Any]]:
    run_folder = sorted(Path("outputs/runs").iterdir())[-1]
    path = run_folder / "artifacts" / f"samples-{suite}-{policy}" / "samples.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_adapter_and_another_model_beside_the_base(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policies = f"base,{home / 'tuned'},folder:{home / 'other'}"
    assert evaluate(home, policies=policies, suites="written,likely") == 0
    report = last_report()
    assert report["policies"] == ["base", "tuned", "other"]
    written = {policy: [row["completion"] for row in samples(policy)] for policy in report["policies"]}
    assert written["base"] != written["tuned"] != written["other"]
    assert [suite["notes"] != [] for suite in report["suites"]] == [True, True]
    assert {entry["metric"] for entry in report["metrics"] if entry["suite"] == "likely"} == {"bits_per_byte"}
    tokens = {policy: [row["tokens"] for row in samples(policy, "likely")] for policy in report["policies"]}
    assert tokens["base"] == tokens["tuned"] != tokens["other"]  # its own tokenizer
    named = report["provenance"]["policies"]
    assert named["base"] is None
    assert named["tuned"] == "adapter tuned of model"
    assert named["other"].startswith("other (")
    assert "divide text into tokens differently" in capsys.readouterr().out

    assert evaluate(home, policies=policies, suites="written,likely") == 0  # nothing is sampled again
    assert capsys.readouterr().out.count(" reused ") == 8  # the data set, six samples and the report
    assert last_report() == report
    moved = home / "elsewhere" / "tuned"
    shutil.copytree(home / "tuned", moved)
    assert evaluate(home, policies=f"base,{moved}", suites="written,likely") == 0  # the same adapter in another place
    assert capsys.readouterr().out.count(" reused ") == 5
    shutil.rmtree(home / "elsewhere")


def test_the_answers_of_a_model_are_those_of_a_run_with_it_as_base(home: Path) -> None:
    assert evaluate(home, policies=f"base,folder:{home / 'other'}", suites="written") == 0
    beside = samples("other")
    assert evaluate(home, f"model.id={home / 'other'}", policies="base", suites="written") == 0
    assert samples("base") == beside


def test_a_model_behind_http(home: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "a-key-that-nobody-may-see")
    server.rule = lambda body: completion(f"Answer to {body['messages'][-1]['content']}")
    server.script = [Scripted(status=429), Scripted(content=b"garbage"), completion(None, refusal="I must not.")]
    write_endpoint(home, server.url, api_key_env="TOY_KEY")
    monkeypatch.setattr("pipeline.data.chat_client.MAX_WAIT", 0.01)
    assert evaluate(home, "model.system_prompt=Be brief.", policies="base,http:toy", suites="written") == 0
    rows = samples("toy")
    assert sum(row["completion"] == "I must not." for row in rows) == 1
    assert sum(row["completion"].startswith("Answer to What about") for row in rows) == len(rows) - 1
    asked = len(server.asked)
    assert asked == len(rows) + 2
    assert [turn["role"] for turn in server.asked[-1]["messages"]] == ["user"]  # the system prompt is the base's
    assert server.asked[-1]["max_tokens"] == 8
    report = last_report()
    assert report["provenance"]["policies"]["toy"] == f"toy at {server.url}"
    everything = b"".join(path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file())
    assert b"a-key-that-nobody-may-see" not in everything
    assert evaluate(home, "model.system_prompt=Be brief.", policies="http:toy,base", suites="written") == 0
    assert len(server.asked) == asked  # sealed


def test_without_the_base_the_first_policy_is_the_baseline(
    home: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.rule = lambda body: completion("An answer.")
    write_endpoint(home, server.url)
    for policies, names in (
        (str(home / "tuned"), ["tuned"]),
        ("http:toy", ["toy"]),
        (f"{home / 'other'},{home / 'tuned'}", ["other", "tuned"]),
    ):
        assert evaluate(home, policies=policies, suites="written") == 0, capsys.readouterr().err
        report = last_report()
        assert (report["policies"], report["baseline"]) == (names, names[0])
        assert (
            f"baseline: {names[0]}, the first policy, because evaluate.baseline is not set" in capsys.readouterr().out
        )
    assert {entry["baseline"] for entry in report["metrics"]} == {None, "other"}
    assert evaluate(home, policies=f"{home / 'tuned'},base", suites="written") == 0
    assert last_report()["baseline"] == "base"  # wherever it stands
    assert "the first policy" not in capsys.readouterr().out
    assert evaluate(home, "evaluate.baseline=base", policies=str(home / "tuned"), suites="written") == 2
    assert "evaluate.baseline=base: it is not among the policies that are evaluated (tuned)" in capsys.readouterr().err


def test_a_remote_evaluation_that_is_cut_off_goes_on(
    home: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([completion("one"), completion("two"), completion("three"), Scripted(status=401)])
    server.rule = lambda body: next(answers, completion("later"))
    write_endpoint(home, server.url)
    assert evaluate(home, policies="http:toy", suites="written") == 11
    assert "answers with 401" in capsys.readouterr().err
    assert evaluate(home, policies="http:toy", suites="written") == 0
    rows = samples("toy")
    assert len(server.asked) == len(rows) + 1  # every item was answered once, and one request failed
    assert {"one", "two", "three", "later"} == {row["completion"] for row in rows}


@pytest.mark.parametrize(
    ("policies", "suites", "expected"),
    [
        ("base,http:toy", "likely", "an HTTP endpoint only writes text"),
        ("base,http:tou", "written", "there is no endpoint `tou`. Did you mean `toy`?"),
        ("base,folder:nowhere", "written", "there is no such folder"),
    ],
)
def test_what_cannot_be_evaluated_is_told_before_anything_runs(
    home: Path, policies: str, suites: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_endpoint(home, "http://127.0.0.1:9/v1")
    assert evaluate(home, policies=policies, suites=suites) == 2
    assert expected in capsys.readouterr().err
    assert not Path("outputs/artifacts").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"base_model_name_or_path": "someone/Else-1B"}, "was made for someone/Else-1B"),
        ({"peft_type": "IA3"}, "only LoRA adapters"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is set"),
        ({"r": 3}, "does not fit this base model"),
        (None, "can run code when it is read"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    home: Path, tmp_path: Path, change: dict[str, Any] | None, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(home / "tuned", bad)
    if change is None:
        (bad / "adapter_model.bin").write_bytes(b"\x80\x04")
    else:
        config = json.loads((bad / "adapter_config.json").read_text())
        (bad / "adapter_config.json").write_text(json.dumps({**config, **change}))
    assert evaluate(home, "evaluate.baseline=bad", policies=str(bad), suites="written") == 8
    assert expected in capsys.readouterr().err
