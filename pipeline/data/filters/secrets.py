"""The filter on keys and tokens that give access to something."""

from __future__ import annotations

import re
from typing import Literal

from pipeline.data.filters.registry import Drop, Filter, register_filter
from pipeline.data.filters.texts import all_texts, with_texts
from pipeline.data.rows import Reason, Row

# What each begins with, and its whole form, as its issuer documents or issues it.
_FORMS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "private key",
        ("-----BEGIN",),
        r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\s|\\n)+(?:[A-Z][\w-]+: [^\n]{0,100}\s+){0,3}"
        r"[A-Za-z0-9+/=]{32,}(?:(?:\s|\\n)+[A-Za-z0-9+/=]{4,})*(?:(?:\s|\\n)*-----END [A-Z0-9 ]{0,40}-----)?",
    ),
    ("AWS access key", ("AKIA", "ASIA"), r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
    ("GitHub token", ("github_pat_",), r"\bgithub_pat_[A-Za-z0-9_]{36,255}\b"),
    ("GitLab token", ("glpat-",), r"\bglpat-[A-Za-z0-9_-]{20,64}"),
    ("Hugging Face token", ("hf_",), r"\bhf_[A-Za-z0-9]{30,64}\b"),
    ("API key", ("sk-",), r"(?<![\w-])sk-(?:(?:proj|svcacct|admin|ant-api\d\d|or-v1)-)?[A-Za-z0-9_-]{20,200}"),
    ("Slack token", ("xox",), r"\bxox[abeoprs]-[0-9A-Za-z-]{20,255}"),
    ("Google API key", ("AIza",), r"\bAIza[0-9A-Za-z_-]{35}"),
    ("Stripe key", ("k_live_",), r"\b[rs]k_live_[0-9A-Za-z]{20,255}"),
    ("signed token", ("eyJ",), r"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{20,2000}"),
)
MASK = "<SECRET>"
MIN_CHARACTERS = 10  # different ones; "sk-xxxxxxxxxxxxxxxxxxxxxxxx" stands for a key and is none


@register_filter("secrets")
def secrets(*, action: Literal["drop", "mask"] = "drop") -> Filter:
    """No text holds what looks like a private key or an access token.

    Placeholders such as `sk-your-api-key-goes-here-please` and keys that call themselves an example are none.
    """
    forms = [(name, beginnings, re.compile(pattern)) for name, beginnings, pattern in _FORMS]
    all_beginnings = [beginning for _, beginnings, _ in _FORMS for beginning in beginnings]

    def mask(text: str, found: set[str]) -> str:
        for name, beginnings, pattern in forms:
            if any(beginning in text for beginning in beginnings):

                def replaced(match: re.Match[str], name: str = name) -> str:
                    if not _is_random(match[0]):
                        return match[0]
                    found.add(name)
                    return MASK

                text = pattern.sub(replaced, text)
        return text

    def check(row: Row) -> Row | Drop:
        found: set[str] = set()
        together = "\n".join(all_texts(row))
        for beginning in all_beginnings:
            if beginning in together:
                mask(together, found)
                break
        if not found:
            return row
        masked = with_texts(row, lambda text: mask(text, found))
        return masked if action == "mask" else Drop(Reason.secret, f"looks like: {', '.join(sorted(found))}", masked)

    return check


def _is_random(text: str) -> bool:
    """Whether a token is made of many different characters, digits among them, and does not say what it is for."""
    if text.startswith("-----BEGIN"):
        return True
    return len(set(text)) >= MIN_CHARACTERS and any(map(str.isdigit, text)) and "EXAMPLE" not in text.upper()
