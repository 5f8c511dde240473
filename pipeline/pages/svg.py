"""Elements, scales and ticks of the plots. Colours come from the page's style sheet, so plots follow its theme."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

from pipeline.pages.text import visible

NUM_COLOURS = 7  # classes c0 (the baseline, grey) to c6, from Okabe and Ito's colour-blind-safe palette


def element(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """Return one SVG element. Children that are not markup are escaped; ``_`` becomes ``-``, or nothing at the end."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup("<{}{}>{}</{}>").format(Markup(tag), Markup(written), Markup("").join(children), Markup(tag))


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start", limit: int = 200) -> Markup:
    """Return a text of at most `limit` characters; what is cut off is read in its tooltip."""
    shown = visible(content)
    if len(shown) > limit:
        return element(
            "text", element("title", shown), shown[: limit - 1] + "…", x=x, y=y, class_=class_, text_anchor=anchor
        )
    return element("text", shown, x=x, y=y, class_=class_ or None, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def picture(width: float, height: float, title: str, children: Iterable[Markup]) -> Markup:
    """Return a whole SVG with a name that a screen reader can say."""
    return element(
        "svg",
        element("title", visible(title)),
        *children,
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        role="img",
        aria_label=visible(title),
        style=f"--width: {_value(width)}px",
    )


def colour(index: int) -> str:
    """Return the class of the n-th policy's colour."""
    return f"c{index if index < NUM_COLOURS else 1 + (index - 1) % (NUM_COLOURS - 1)}"


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values to positions, with round ticks."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the position of a value; one outside is put at the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Return at most `most` + 1 multiples of 1, 2 or 5 times a power of ten between the ends."""
        step = tick_step(self.high - self.low, most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def scale_around(values: Iterable[float], start: float, end: float, *, include: float | None = None) -> Scale:
    """Return a scale that holds all values with a margin of 6 % at both ends."""
    held = [*values, *([include] if include is not None else [])]
    low, high = min(held, default=0.0), max(held, default=1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        margin = abs(low) * 0.5 or 1.0
        return Scale(low - margin, high + margin, start, end)
    margin = 0.06 * (high - low)
    return Scale(low - margin, high + margin, start, end)


def tick_step(span: float, most: int) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that divides a span into at most `most` parts."""
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def tick_text(value: float, step: float) -> str:
    """Write a tick with the decimals that its step needs."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}".replace("-", "\N{MINUS SIGN}")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _value(value: str | float) -> str:
    """Write a coordinate with at most two decimals, the same on every machine."""
    if isinstance(value, str):
        return value
    shown = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if shown in {"-0", ""} else shown
