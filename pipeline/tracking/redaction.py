"""What must never be written down or sent: how secrets are recognised and replaced."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

REDACTED = "[redacted]"

# A name is secret by its words: `api_key`, `HF_TOKEN`, `dbPassword`, but not `max_tokens` or `tokenizer`.
SECRET_WORDS = frozenset(
    {"apikey", "accesskey", "secret", "secrets", "password", "passwd", "passphrase", "credential", "credentials"}
    | {"auth", "authorization"}
)
SECRET_LAST_WORDS = frozenset({"key", "keys", "token"})
# What may stand before "key" or "token" without making a secret of it.
HARMLESS_QUALIFIERS = frozenset(
    {"eos", "bos", "pad", "unk", "sep", "cls", "mask", "end", "image", "special", "first", "last", "stop", "per"}
    | {"primary", "foreign", "sort", "group", "prompt", "cache", "join", "public", "split"}
)
REFERENCE = re.compile(r"^(env:\w+|\$\{.*\})$")  # names a secret, does not hold one

SECRET_VALUES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a Hugging Face token", re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}")),
    ("an API key", re.compile(r"\bsk-[A-Za-z0-9_-]{16,}")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})")),
    ("a GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{16,}")),
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    ("a Slack token", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}")),
    ("a JSON web token", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")),
    (
        "a private key",
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    ),
    ("a URL with a password", re.compile(r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)")),
    ("a W&B API key", re.compile(r"\bwandb_v\d+_[A-Za-z0-9_]{20,}")),
    # Git commits look the same, so 40 hex digits behind a word for a commit are let through.
    ("a W&B API key", re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")),
)
COMMIT_BEFORE = re.compile(
    r"(?:commit|revision|snapshots|sha1?|git|rev)\W{0,4}$|hub:[\w.-]+(?:/[\w.-]+)?@$", re.IGNORECASE
)
LOOK_BEHIND = 220  # characters: a name of the hub has at most 96 on each side of its slash
MIN_ENVIRONMENT_SECRET = 8  # characters; shorter values would redact ordinary words


def is_secret_name(name: str) -> bool:
    """Say whether a key or an environment variable is named like a secret."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = [word for word in re.split(r"[^a-z0-9]+", parts) if word]
    if not words:
        return False
    if SECRET_WORDS.intersection(words) or any(word.endswith("password") for word in words):  # PGPASSWORD
        return True
    return words[-1] in SECRET_LAST_WORDS and not (len(words) > 1 and words[-2] in HARMLESS_QUALIFIERS)


def _secret_spans(text: str) -> Iterator[tuple[str, int, int]]:
    for reason, pattern in SECRET_VALUES:
        for match in pattern.finditer(text):
            before = text[max(0, match.start() - LOOK_BEHIND) : match.start()]
            if reason == "a W&B API key" and COMMIT_BEFORE.search(before):
                continue
            yield reason, match.start(), match.end()


class Redactor:
    """Replaces secrets in texts and in nested values."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Remember the secret values of the environment, longest first, so that none is left behind in part."""
        values = os.environ if environment is None else environment
        self._known = sorted(
            {value for name, value in values.items() if is_secret_name(name) and len(value) >= MIN_ENVIRONMENT_SECRET},
            key=len,
            reverse=True,
        )

    def text(self, text: str) -> str:
        """Return the text with every secret replaced."""
        for secret in self._known:
            text = text.replace(secret, REDACTED)
        for _, start, end in sorted(_secret_spans(text), key=lambda span: span[1], reverse=True):
            text = text[:start] + REDACTED + text[end:]
        return text

    def value(self, value: Any, key: str = "") -> Any:
        """Return a copy of a nested value in which secrets, by name or by form, are replaced.

        What a section holds is secret where the section's name says so, as in `credentials: {user: …, pin: …}`.
        """
        if isinstance(value, Mapping):
            prefix = f"{key}." if key else ""
            return {self.text(str(name)): self.value(item, f"{prefix}{name}") for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, key) for item in value]
        if not isinstance(value, str):
            return value
        if value and is_secret_name(key) and not REFERENCE.match(value):
            return REDACTED
        # The key stands before the value, so that `revision` lets the hash of a commit through.
        prefix = f"{key}="
        redacted = self.text(prefix + value)
        return redacted[len(prefix) :] if redacted.startswith(prefix) else self.text(value)

    def reason(self, value: str, key: str) -> str | None:
        """Say why a value under a key counts as a secret; None where it does not."""
        if value and is_secret_name(key) and not REFERENCE.match(value):
            return "its name says that it holds a secret"
        if any(secret in value for secret in self._known):
            return "it holds the value of a secret environment variable"
        found = next(_secret_spans(f"{key}={value}"), None)
        return f"it looks like {found[0]}" if found else None


def find_secrets(config: Mapping[str, Any], overrides: Iterable[str] = ()) -> list[str]:
    """Name the configuration keys and overrides that hold a secret, each with the reason and without the value.

    A command that finds one refuses to start: the resolved configuration is written beside every result.
    """
    redactor = Redactor()
    found = []
    for key, value in _leaves(config, ""):
        reason = redactor.reason(value, key)
        if reason:
            found.append(f"{key}: {reason}")
    for override in overrides:
        key, _, value = override.partition("=")
        name = redactor.text(key.lstrip("+~"))
        reason = redactor.reason(value.strip("'\""), name)
        if reason and not any(line.startswith(f"{name}: ") for line in found):
            found.append(f"{name}: {reason}")
    return found


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, path)
    elif isinstance(value, str):
        yield path, value


class RedactionFilter(logging.Filter):
    """Replaces secrets in log records, their arguments and their tracebacks."""

    def __init__(self, redactor: Redactor | None = None) -> None:
        """Share a redactor, or make one from the environment."""
        super().__init__()
        self._redactor = redactor or Redactor()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, redacted."""
        record.msg, record.args = self._redactor.text(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        if record.exc_text:
            record.exc_text = self._redactor.text(record.exc_text)
        return True


def redact(value: Any) -> Any:
    """Return a copy of a nested value without secrets, the environment's included."""
    return Redactor().value(value)
