"""The check of the language that a completion is written in."""

from __future__ import annotations

from functools import cache
from typing import Any

from pipeline.checks.registry import Check, CheckItem, register_check
from pipeline.errors import ConfigError

MAX_CHARACTERS = 2000  # that are looked at


@register_check("in_language")
def in_language(*, language: str) -> Check:
    """The completion is written in a language, as py3langid tells it (extra `language`).

    Args:
        language: An ISO 639 code, such as `de`.
    """
    identifier = language_identifier()
    if language not in identifier.labels:
        raise ConfigError(
            f"in_language.language={language!r} is unknown. Known: {', '.join(sorted(identifier.labels))}."
        )

    def check(completion: str, item: CheckItem) -> bool:
        text = completion.strip()[:MAX_CHARACTERS]
        return any(map(str.isalpha, text)) and identifier.classify(text)[0] == language

    return check


@cache
def language_identifier() -> Any:
    """Load the language model, 4.6 MB of arrays, once per process."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise ConfigError("Telling languages apart needs py3langid: pip install finetune-pipeline[language]") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
