"""The address of an endpoint and the key for it, checked before anything is sent."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from pipeline.errors import ConfigError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def check_address(url: str) -> str:
    """Return the address without a slash at its end.

    Raises:
        ConfigError: It is none, holds a password, or would send the key in the clear.
    """
    problem = address_problem(url)
    if problem is not None:
        raise ConfigError(problem)
    return urlsplit(url.strip()).geturl().rstrip("/")


def address_problem(url: str) -> str | None:
    """Return what is wrong with an address, or None."""
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"base_url={url}: give an address up to its version, such as https://api.openai.com/v1."
    if parts.username or parts.password or parts.query or parts.fragment:
        return "base_url: give the address alone; the key belongs into the environment variable of `api_key_env`."
    return None


def is_loopback(url: str) -> bool:
    """Whether an address is this machine, which no proxy serves."""
    return urlsplit(url).hostname in LOOPBACK


def find_key(variable: str | None) -> str | None:
    """Return the key that an environment variable holds; None where none is named.

    Raises:
        ConfigError: The variable is not set, or holds what no header can carry.
    """
    if variable is None:
        return None
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise ConfigError("api_key_env: give the name of an environment variable, not the key itself.")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"api_key_env: the environment variable {variable} is not set. Put the key into it.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"api_key_env: {variable} holds characters that no key has. Copy it again.")
    return key
