"""The closed registry of importers: what one is, how one is registered, and which one reads a file.

A plugin registers its own as this package does::

    register_importer(Importer(name="my_tool", recognises=looks_like_mine, open=open_mine))
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.data import SourceConfig
from pipeline.config.suggestions import near_miss
from pipeline.config.tables import TableConfig
from pipeline.errors import ConfigError, DataError
from pipeline.labels.votes import Imported

# No file is recognised by two of them.
BUILT_IN_MODULES: tuple[str, ...] = (
    "pipeline.labels.importers.label_studio",
    "pipeline.labels.importers.argilla",
    "pipeline.labels.importers.openassistant",
    "pipeline.labels.importers.prodigy",
    "pipeline.labels.importers.hh_rlhf",
    "pipeline.labels.importers.helpsteer",
    "pipeline.labels.importers.ultrafeedback",
    "pipeline.labels.importers.llamafactory",
    "pipeline.labels.importers.openai",
    "pipeline.labels.importers.sharegpt",
)

ReadRecord = Callable[[dict[str, Any]], Imported]  # raises BadRowError for a record that cannot be used at all


@dataclass(frozen=True, kw_only=True)
class ImportContext:
    """What an importer may know beside the records."""

    source: SourceConfig
    key: str  # `data.sources[0]`, for messages
    name: str  # what the votes' `source` is to say
    path: Path  # of the file, for what lies beside it
    sample: Sequence[Mapping[str, Any]]  # the fields of the first records


@dataclass(frozen=True, kw_only=True)
class Importer:
    """A format."""

    name: str
    recognises: Callable[[Sequence[Mapping[str, Any]], Path], bool]  # from the first records and the path
    open: Callable[[ImportContext], ReadRecord]  # checks the configuration once, then reads record by record


_importers: dict[str, Importer] = {}


def most(looks_right: Iterable[bool]) -> bool:
    """Whether more than half of the first records look right, because a few bad ones do not make another format."""
    found = list(looks_right)
    return 2 * sum(found) > len(found)


def register_importer(importer: Importer) -> None:
    """Add an importer under a name that is still free.

    Raises:
        ConfigError: The name is taken.
    """
    if importer.name in _importers:
        raise ConfigError(f"The importer name `{importer.name}` is taken. Choose another.")
    _importers[importer.name] = importer


def importers() -> dict[str, Importer]:
    """Return every importer by name, in the order in which they are asked whether they recognise a file."""
    for module in BUILT_IN_MODULES:
        importlib.import_module(module)
    return dict(_importers)


def choose_importer(context: ImportContext, tables: Mapping[str, TableConfig]) -> Importer:
    """Return the importer or table that a source names, or the one that recognises its file.

    Tables are asked where no importer recognises the file, because they go by the names of columns alone.

    Raises:
        ConfigError: There is no importer or table of that name, or one name stands for both.
        DataError: Nothing recognises the file, or several do.
    """
    # Imported here, because importers are written against this module.
    from pipeline.labels.importers.table import table_importer

    registered = importers()
    if both := sorted(registered.keys() & tables.keys()):
        raise ConfigError(f"table/{both[0]}.yaml: `{both[0]}` is the name of an importer. Give the table another name.")
    declared = {name: table_importer(table) for name, table in tables.items()}
    known = {**registered, **declared}
    wanted = context.source.importer
    if wanted != "auto":
        if wanted not in known:
            raise ConfigError(
                f"{context.key}.importer: there is no importer `{wanted}`.{near_miss(wanted, known)} "
                f"Importers: {', '.join(sorted(known))}."
            )
        return known[wanted]
    found: list[Importer] = []
    for group in (registered, declared):
        found = found or [each for each in group.values() if each.recognises(context.sample, context.path)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(importer.name for importer in found or known.values()))
    problem = "fits several formats" if found else "is no format that is recognised"
    columns = ", ".join(sorted({str(name)[:40] for fields in context.sample for name in fields})[:20])
    raise DataError(
        f"{context.path} {problem} (its fields: {columns}). Set `{context.key}.importer` to one of: {names}."
    )
