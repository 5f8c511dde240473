"""`compare`: runs side by side, from what they left behind. No model is loaded and nothing is evaluated again."""

from __future__ import annotations

import gc
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.durable import storage_errors, write_durably
from pipeline.config.shared import RuntimeConfig
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError

USAGE = (
    "Usage: python -m pipeline compare [RUN | GLOB | SWEEP | group:NAME | wandb:ENTITY/PROJECT/GROUP ...] "
    "[--baseline RUN[:POLICY]] [--by SUITE/METRIC] [--policy NAME|all] [--out DIR] [runtime.outputs=DIR]."
)
OPTIONS = ("--baseline", "--by", "--policy", "--out")
OUTPUTS = "runtime.outputs="


@dataclass(frozen=True, kw_only=True)
class Request:
    """A command line of `compare`."""

    words: list[str]
    options: dict[str, str]
    outputs: Path

    def option(self, name: str) -> str | None:
        """Return the value of an option, None where it was not given."""
        return self.options.get(f"--{name}")


def parse(arguments: Sequence[str]) -> Request:
    """Read the command line: words that name runs, options, and ``runtime.outputs=DIR``.

    Raises:
        ConfigError: An option is unknown, or has no value.
    """
    words, options, outputs, waiting = [], {}, RuntimeConfig().outputs, None
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if waiting:
            options[waiting], waiting = argument, None
        elif argument.startswith(OUTPUTS):
            outputs = value
        elif not argument.startswith("-"):
            words.append(argument)
        elif name not in OPTIONS:
            raise ConfigError(f"`compare` does not take {name}.{near_miss(name, OPTIONS)} {USAGE}")
        elif equals:
            options[name] = value
        else:
            waiting = name
    if waiting:
        raise ConfigError(f"{waiting} needs a value. {USAGE}")
    return Request(words=words, options=options, outputs=Path(outputs))


def compare_command(arguments: list[str]) -> int:
    """Compare, print the table, write the page, the table and the values, and return the exit status."""
    from pipeline.comparison.building import build_comparison
    from pipeline.comparison.selecting import choose
    from pipeline.comparison.writing import csv_text, terminal_lines
    from pipeline.pages.comparison_page import comparison_page

    request = parse(arguments)
    given = request.option("out")
    if given:
        require_room_for_files(given)
    gc.disable()  # hundreds of runs are millions of small objects, none of which goes before the end
    chosen = choose(request.words, request.outputs)
    comparison = build_comparison(
        chosen, baseline=request.option("baseline"), by=request.option("by"), policy=request.option("policy")
    )
    folder = Path(given) if given else request.outputs / "comparisons" / folder_name(comparison)
    written = {
        "comparison.html": comparison_page(comparison),
        "comparison.csv": csv_text(comparison),
        "comparison.json": json.dumps(comparison, indent=1, sort_keys=True, allow_nan=False) + "\n",
    }
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in written.items():
        write_durably(folder / name, content)
    for line in terminal_lines(comparison):
        print(line)
    print(f"\ncomparison  {folder / 'comparison.html'}  (comparison.csv and comparison.json lie beside it)")
    return 0


def require_room_for_files(out: str) -> None:
    """Ask whether files can be made in a folder that may not exist yet; nothing of it is made.

    Raises:
        ConfigError: They cannot.
    """
    try:
        there = next(path for path in (Path(out), *Path(out).absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            return
    except OSError as error:
        raise ConfigError(
            f"--out {out}: no files can be made there: {error.strerror}. Name a folder, which need not exist."
        ) from error


def folder_name(comparison: dict[str, Any]) -> str:
    """Return the same name for the same runs: that of their sweep, else the first one and how many there are."""
    names = [entry["name"] for entry in comparison["sweeps"]] or [run["name"] for run in comparison["runs"]]
    more = f"_and_{len(names) - 1}_more" if len(names) > 1 else ""
    return re.sub(r"[^A-Za-z0-9._-]", "-", names[0]).strip(".") + more
