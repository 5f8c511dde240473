"""Regular expressions of users, searched within a bound of time.

Python's ``re`` backtracks without end on a pattern such as ``(a+)+$`` and cannot be stopped but by a signal in the main
thread. The module ``regex`` reads the same syntax and looks at a clock while it matches.
"""

from __future__ import annotations

from collections.abc import Callable

import regex

from pipeline.errors import ConfigError, DataError

SECONDS = 1.0  # per text; a pattern that backtracks little needs far below a millisecond for a completion


class PatternTimeoutError(DataError):
    """A search took longer than it may, so there is no verdict on the text."""


def bounded_search(pattern: str, where: str, *, seconds: float = SECONDS) -> Callable[[str], bool]:
    """Return a function that says whether the pattern matches somewhere in a text.

    Args:
        pattern: In Python's syntax.
        where: What asks for it; messages begin with it.
        seconds: That one search may take. A search that takes longer has no verdict: whether it would have been yes
            or no must not depend on how fast the machine is.

    Raises:
        ConfigError: It is no regular expression.

    The function raises a `PatternTimeoutError`.
    """
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ConfigError(f"{where} {pattern!r} is no regular expression: {error}. Correct it.") from None

    def search(text: str) -> bool:
        try:
            return compiled.search(text, timeout=seconds) is not None
        except TimeoutError:
            raise PatternTimeoutError(
                f"{where} {pattern!r} has not finished on a text of {len(text):,} characters after {seconds:g} s: it "
                f"tries the same characters again and again. Write it so that no repetition stands within another "
                f"one, or make the inner one possessive, as in `(?:a++b?)+`. The text begins {text[:60]!r}."
            ) from None

    return search
