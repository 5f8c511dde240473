"""Keys and tokens. All of them are made up, and put together here so that no scanner of sources takes them for real."""

import pytest
from made_rows import comparison, demonstration, only_prompt

from pipeline.data.filters.registry import Drop, build_filter
from pipeline.data.rows import Reason

LETTERS = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA3cE5gI7kM9oQ"
PEM_LINE = "MIIEpAIBAAKCAQEA7bq98Kf0wHqmT2xUeJ3nVb5sYcR1dLzGhXoP4iWk6AtNfM8v"
PRIVATE = "-----BEGIN RSA " + f"PRIVATE KEY-----\n{PEM_LINE}\n{PEM_LINE[:20]}==\n-----END RSA " + "PRIVATE KEY-----"
SECRETS = {
    "private key": PRIVATE,
    "AWS access key": "AKIA" + "Q7ZJ2M4NX9B3KD5T",
    "GitHub token": "ghp" + f"_{LETTERS[:36]}",
    "GitLab token": "glpat" + f"-{LETTERS[:20]}",
    "Hugging Face token": "hf" + f"_{LETTERS[:34]}",
    "API key": "sk" + f"-proj-{LETTERS[:40]}",
    "Slack token": "xoxb" + "-2048135790-7531902468-aB3dE5gH7jK9",
    "Google API key": "AIza" + LETTERS[:35],
    "Stripe key": "sk" + f"_live_{LETTERS[:24]}",
    "signed token": "eyJ" + f"{LETTERS[:20]}.eyJ{LETTERS[:30]}.{LETTERS[:43]}",
}


@pytest.mark.parametrize(("name", "secret"), SECRETS.items())
def test_a_secret_is_found_named_and_never_repeated(name, secret):
    result = build_filter("secrets", {})(demonstration(f"Set the key to {secret} and restart."))
    assert isinstance(result, Drop)
    assert (result.reason, result.detail) == (Reason.secret, f"looks like: {name}")
    assert result.shown == demonstration("Set the key to <SECRET> and restart.")
    assert secret not in str(result)


@pytest.mark.parametrize(
    "text",
    [
        "Use sk-learn, or sk-your-api-key-goes-here-please, or sk-xxxxxxxxxxxxxxxxxxxxxxxx1.",
        "AWS writes " + "AKIA" + "IOSFODNN7EXAMPLE in its manuals.",
        "A key file begins with -----BEGIN RSA " + "PRIVATE KEY----- and goes on in base64.",
        "-----BEGIN PUBLIC KEY-----\n" + PEM_LINE,
        "ghp_short, hf_model, AIza, glpat-, xoxb-1, eyJhbGci",
        "the commit d670460b4b4aece5915caf5c68d12f560a9fe3e4",
        "task-force-of-the-city-of-greater-manchester-2024",
    ],
)
def test_what_only_looks_like_a_secret_stays(text):
    row = only_prompt(text)
    assert build_filter("secrets", {})(row) is row


def test_masking_keeps_the_row():
    row = comparison(f"Use {SECRETS['GitHub token']}.", "Ask your administrator.")
    result = build_filter("secrets", {"action": "mask"})(row)
    assert result == comparison("Use <SECRET>.", "Ask your administrator.")
