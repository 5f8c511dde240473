"""Text that models and users wrote, made harmless to show. Escaping is the template's; this is about the rest."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
UNSHOWABLE = re.compile("[\x80-\x9f\ud800-\udfff\ufffe\uffff]")
# They change the order in which later characters are shown, past the end of the text that holds them.
DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Return a text in which control characters can be seen and do nothing.

    Control characters become their pictures, marks that reverse the reading direction their code points, and what has
    no bytes in UTF-8 the replacement character. Line feeds and tabs stay.
    """
    plain = CONTROL.sub(lambda found: _picture(found.group()), text.replace("\r\n", "\n"))
    plain = DIRECTION.sub(lambda found: f"\u2039U+{ord(found.group()):04X}\u203a", plain)
    return UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", plain)


def typographic(number: str) -> str:
    """Write the hyphens of a number as minus signs, and keep an interval on one line."""
    whole = re.sub(r"\[[^\[\]]*\]", lambda found: found.group().replace(" ", "\N{NO-BREAK SPACE}"), number)
    # Not the hyphen of a name such as run-7, but that of an exponent.
    return re.sub(r"(?:(?<!\w)|(?<=\de))-(?=[\d.])", "\N{MINUS SIGN}", whole)


def _picture(character: str) -> str:
    return "\N{SYMBOL FOR DELETE}" if character == "\x7f" else chr(0x2400 + ord(character))
