"""What counts as a secret, and that nothing of it is left."""

from __future__ import annotations

import io
import json
import logging

import pytest

from pipeline.tracking.redaction import RedactionFilter, Redactor, find_secrets, is_secret_name, redact

HEX40 = "0123456789abcdef0123456789abcdef01234567"

SECRETS = {
    "hugging face": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
    "openai": "sk-proj-abcdefghijklmnop0123456789",
    "github": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github fine-grained": "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "gitlab": "glpat" + "-abcdefghij0123456789",
    "google": "AIza" + "SyA-abcdefghijklmnopqrstuvwxyz_0123",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "aws for a while": "ASIAIOSFODNN7EXAMPLE",
    "wandb": HEX40,
    "wandb of today": "wandb_v1_" + "AbCdEfGhIjKlMnOpQrStUv",
    "old hugging face": "api_org_" + "AbCdEfGhIjKlMnOpQrSt",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "slack": "xoxb-123456789012-abcdefghij",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
    "cut private key": "-----BEGIN PRIVATE KEY-----\nMIIEow",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_replaced_wherever_it_stands(secret: str) -> None:
    redactor = Redactor({})
    assert redactor.text(f"before {secret} after").startswith("before [redacted]")
    assert secret not in redactor.text(f"'{secret}'")
    assert secret not in json.dumps(redactor.value({"a": [{"b": f"x={secret}"}]}))
    assert secret not in json.dumps(redactor.value({secret: 1}))


def test_only_the_password_of_a_url_goes() -> None:
    text = "postgres://me:hunter22@db.example.com:5432/votes and https://example.com:8080/a@b"
    assert Redactor({}).text(text) == "postgres://[redacted]@db.example.com:5432/votes and https://example.com:8080/a@b"


@pytest.mark.parametrize(
    "text",
    [
        "sft-0123456789abcdef-fedcba9876543210",  # an artifact's id
        f"{HEX40}{HEX40[:24]}",  # 64 digits: a SHA-256
        f"commit {HEX40}",
        f"models--org--name/snapshots/{HEX40}/config.json",
        "max_tokens=200 tokens per second, the key point, a secret recipe",
        "task-1234567890123456 risk-averse-behaviour-in-models",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor({}).text(text) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HF_TOKEN", True), ("api_key", True), ("apiKey", True), ("WANDB_API_KEY", True), ("db.password", True),
        ("PGPASSWORD", True), ("AWS_SECRET_ACCESS_KEY", True), ("token", True), ("clientSecret", True),
        ("credentials", True), ("max_tokens", False), ("tokenizer", False), ("num_tokens", False), ("pad_token", False),
        ("eos_token", False),
        ("sort_key", False), ("keyboard", False), ("tokens_per_second", False), ("author", False), ("keep_best", False),
    ],
)  # fmt: skip
def test_names(name: str, expected: bool) -> None:
    assert is_secret_name(name) is expected


def test_a_value_with_a_secret_name_goes_and_numbers_stay() -> None:
    config = {"api_key": "short", "token": 5, "password": None, "secret": "env:MY_SECRET", "max_tokens": 10}
    config |= {"hub_token": "${oc.env:HF_TOKEN}", "auth": "see env:MY_SECRET"}
    expected = {"api_key": "[redacted]", "token": 5, "password": None, "secret": "env:MY_SECRET", "max_tokens": 10}
    expected |= {"hub_token": "${oc.env:HF_TOKEN}", "auth": "[redacted]"}
    assert Redactor({}).value(config) == expected
    assert config["api_key"] == "short", "the caller's own value is not changed"


def test_what_stands_below_a_secret_name_goes_in_copies_as_it_is_refused_in_a_configuration() -> None:
    config = {"store": {"credentials": {"user": "me", "pins": ["1234", 5]}, "sort": {"key": "name"}}}
    assert Redactor({}).value(config) == {
        "store": {"credentials": {"user": "[redacted]", "pins": ["[redacted]", 5]}, "sort": {"key": "name"}}
    }
    assert [line.partition(":")[0] for line in find_secrets(config)] == [
        "store.credentials.user", "store.credentials.pins",
    ]  # fmt: skip


def test_a_revision_is_no_key() -> None:
    config = {"model": {"revision": HEX40, "other": HEX40}}
    assert Redactor({}).value(config) == {"model": {"revision": HEX40, "other": "[redacted]"}}


def test_the_commit_of_a_model_of_the_hub_is_no_key() -> None:
    named = f"hub:Qwen/Qwen3-0.6B@{HEX40}"
    assert Redactor({}).text(f"[base,{named}]") == f"[base,{named}]"
    assert Redactor({}).text(f"hub:{'o' * 96}/{'n' * 96}@{HEX40}").endswith(HEX40)  # the longest name there is
    policies = {"inputs": {"evaluate": {"policy": ["base", named, f"hub:gpt2@{HEX40}"]}}}
    assert find_secrets(policies, [f"inputs.evaluate.policy=[base,{named}]"]) == []
    for other in (HEX40, f"hub:x/y {HEX40}", f"hub:x/y,{HEX40}", f"hub:x/y@main,{HEX40}", f"me@{HEX40}"):
        assert HEX40 not in Redactor({}).text(other), other
        assert find_secrets({}, [f"inputs.evaluate.policy=[base,{other}]"]), other
        assert find_secrets({"inputs": {"evaluate": {"policy": [other]}}}), other


def test_secret_variables_of_the_environment_go_in_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PASSWORD", "correct horse")
    monkeypatch.setenv("OTHER_PASSWORD", "correct horse battery")  # holds the first one
    monkeypatch.setenv("SHORT_TOKEN", "abc")  # would redact ordinary words
    monkeypatch.setenv("PLAIN", "nothing to hide")
    assert redact("a correct horse, a correct horse battery, abc, nothing to hide") == (
        "a [redacted], a [redacted], abc, nothing to hide"
    )


def test_find_secrets_names_the_place_and_never_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "correct horse")
    config = {
        "model": {"id": "org/name", "revision": HEX40, "max_tokens": 5},
        "data": {"sources": [{"path": f"https://me:{SECRETS['openai']}@host/rows"}]},
        "tracking": {"tags": ["ok", "the correct horse"]},
    }
    overrides = ["sft.seed=3", f"+model.token={SECRETS['hugging face']}", "+x.api_key=abc", "data=helpdesk"]
    found = find_secrets(config, overrides)
    assert [line.partition(":")[0] for line in found] == [
        "data.sources.path",
        "tracking.tags",
        "model.token",
        "x.api_key",
    ]
    assert not any(secret in line for line in found for secret in [*SECRETS.values(), "correct horse", "abc"])
    assert find_secrets({"model": config["model"]}, ["sft.seed=3", "model.max_tokens=7"]) == []


def test_the_log_filter_redacts_message_arguments_and_traceback() -> None:
    stream = io.StringIO()
    logger = logging.Logger("test")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    secret = SECRETS["hugging face"]

    def write() -> None:
        logger.info("with %s", secret)
        try:
            raise ValueError(f"401 for {secret}")
        except ValueError:
            logger.exception("failed")

    write()
    assert stream.getvalue().count(secret) >= 2, "without the filter the secret is written"
    stream.truncate(0)
    logger.addFilter(RedactionFilter(Redactor({})))
    write()
    assert secret not in stream.getvalue()
    assert "with [redacted]" in stream.getvalue()
    assert "ValueError: 401 for [redacted]" in stream.getvalue()
