"""How every page is made from its template: one file that needs nothing else, runs no script and prints."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.pages.numbers import compact
from pipeline.pages.text import typographic, visible


def page_environment() -> Environment:
    """Return an environment that escapes everything and refuses names that nobody defined."""
    environment = Environment(
        loader=PackageLoader("pipeline.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(visible=visible, typographic=typographic, compact=compact, pretty=_pretty)
    return environment


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)
