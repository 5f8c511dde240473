"""Runs a case through the entry point at which a user would meet it, and says what became of each row."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bad_inputs.cases import OK, Case
from tiny import make_tiny_model

from pipeline.config.data import CurateConfig, DataConfig, FilterConfig, SourceConfig, SourceFormat, TableName
from pipeline.config.ingest import IngestConfig
from pipeline.config.paths import configs_folder
from pipeline.config.shared import ModelConfig
from pipeline.config.stages import OverlengthPolicy
from pipeline.config.tables import TableConfig, load_tables
from pipeline.data.building import build_row
from pipeline.data.columns import choose_columns
from pipeline.data.curation import Reporting, curate_sources
from pipeline.data.encode import Dropped, encode_demonstration, load_chat
from pipeline.data.rows import BadRowError, Demonstration, Reason, Row
from pipeline.data.sources import read_source
from pipeline.errors import DataError
from pipeline.labels.aggregation import aggregate
from pipeline.labels.collecting import Reporting as LabelsReporting
from pipeline.labels.collecting import collect
from pipeline.labels.quality import assess

NUM_LOOKED_AT = 100
_CODE = re.compile(r"\bE_[A-Z]+\b")


@dataclass(frozen=True)
class Outcome:
    """What became of an input."""

    fates: tuple[str, ...]
    texts: tuple[str, ...] = ()  # of what was accepted


def classify(case: Case, path: Path) -> Outcome:
    """Run a case. Whatever is wrong with the file as a whole is its one fate."""
    try:
        return ENTRIES[case.entry](case, path)
    except DataError as error:
        found = _CODE.search(str(error))
        return Outcome((f"file {found[0] if found else 'without a code'}",))


def read_rows(source: SourceConfig) -> tuple[list[str], list[Row]]:
    """Read a source as `curate` does: each row's fate in order, and the rows that were accepted."""
    records = list(read_source(source, "data.sources[0]"))
    first = [record.fields for record in records if record.fields is not None][:NUM_LOOKED_AT]
    present = list(dict.fromkeys(name for fields in first for name in fields))
    mapping = choose_columns(source, "data.sources[0]", present) if present else None
    fates: list[str] = []
    rows: list[Row] = []
    for record in records:
        try:
            if record.problem is not None:
                raise record.problem
            if mapping is None or record.fields is None:
                raise BadRowError(Reason.schema, "the row has no fields")
            rows.append(build_row(record.fields, mapping, source, "bad/inputs"))
            fates.append(OK)
        except BadRowError as problem:
            fates.append(problem.reason.value)
    return fates, rows


def _rows(case: Case, path: Path) -> Outcome:
    format = SourceFormat.hub if case.options.get("hub") else SourceFormat.auto
    fates, rows = read_rows(SourceConfig(table=case.table, path=str(path), format=format))
    return Outcome(tuple(fates), tuple(_shown(row, case.shows) for row in rows))


def _shown(row: Any, field: str) -> str:
    value = getattr(row, field)
    return value if isinstance(value, str) else value[-1]["content"]


@cache
def _tables() -> dict[str, TableConfig]:
    return load_tables([configs_folder()])


def _votes(case: Case, path: Path) -> Outcome:
    options = dict(case.options)
    labeling_config = options.pop("labeling_config", None)
    source = SourceConfig(
        table=TableName.exports,
        path=str(path),
        labeling_config=labeling_config and str(Path(__file__).with_name("files") / labeling_config),
    )
    config = IngestConfig(max_quarantined_fraction=1.0, **options)
    bad: list[dict[str, Any]] = []
    reporting = LabelsReporting(bad_record=bad.append, account=lambda _: None)
    data = DataConfig(name="bad", sources=[source])
    collected = collect(data, config, _tables(), reporting)
    quality = assess(collected.items, collected.votes, config)
    aggregated = aggregate(collected.items, collected.votes, config, quality.set_aside)
    account = collected.accounts[0]
    numbers = quality.as_dict()
    fates = [
        " ".join([vote.status, *_CODE.findall(vote.note or ""), *(["tie"] if vote.is_tie else [])])
        for vote in collected.votes
    ]
    fates += [entry["reason"] for entry in bad]
    fates += [f"set aside {name}" for name in sorted(quality.set_aside)]
    counted = {
        "unlabelled": account.unlabelled,
        "copy": account.copies,
        "cycle": len([cycle for cycle in numbers["cycles"] if cycle.get("annotator") is None]),
        "contradiction": len(numbers["contradictions"]),
        "over_cap": aggregated.counts["votes"]["over_cap"],
        "unnamed": numbers["votes"]["unnamed"],
        "undecided": aggregated.counts["pairs"]["undecided"],
        "comparison": len(aggregated.comparisons),
    }
    fates += [f"{count} {name}" for name, count in counted.items() if count]
    submitted = [vote for vote in collected.votes if vote.status == "submitted"]
    return Outcome(tuple(fates), tuple(str(getattr(vote, case.shows, "") or "") for vote in submitted))


def _encode(case: Case, path: Path) -> Outcome:
    chat = load_chat(make_tiny_model(path.parent / "tiny", context_length=128), ModelConfig(id="tiny"))
    _, rows = read_rows(SourceConfig(table=case.table, path=str(path)))
    fates = []
    for row in rows:
        assert isinstance(row, Demonstration)
        encoded = encode_demonstration(row, chat, 128, OverlengthPolicy[case.options["overlength"]])
        fates.append(
            encoded.reason if isinstance(encoded, Dropped) else "truncated" if encoded.truncated else "encoded"
        )
    return Outcome(tuple(fates))


def _curate(case: Case, path: Path) -> Outcome:
    options = dict(case.options)
    sources = [SourceConfig(table=case.table, path=str(path), licence=options.get("licence"))]
    for more in options.get("also", ()):
        file = str(Path(__file__).with_name("files") / more["path"])
        sources.append(SourceConfig(**{"table": case.table, **more, "path": file}))
    filters = [
        FilterConfig(**({"name": given} if isinstance(given, str) else given)) for given in options.get("filters", ())
    ]
    counts = curate(sources, CurateConfig(filters=filters), path.parent)
    fates: Counter[str] = Counter()
    for account in counts["sources"]:
        names = ("accepted", "duplicates", "near_duplicates", "bridges_splits", "leaks", "over_limit", "over_cap")
        fates.update({name: account[name] for name in names})
        fates.update(account["quarantined"])
    for entry in counts["filters"]:
        fates.update({f"filtered {reason}": count for reason, count in entry["dropped"].items()})
    return Outcome(tuple(f"{count} {name}" for name, count in fates.items() if count))


def curate(sources: list[SourceConfig], config: CurateConfig, folder: Path) -> dict[str, Any]:
    """Curate sources into a folder whatever share of their rows is bad; return the counts.

    Raises:
        AssertionError: The counts do not add up to the rows that were read, or to the lines that were set aside.
    """
    bad: list[dict[str, Any]] = []
    staging, work = folder / "staging", folder / "work"
    staging.mkdir()
    curated = curate_sources(
        DataConfig(name="bad", sources=sources),
        dataclasses.replace(config, max_quarantined_fraction=1.0, num_workers=1),
        Reporting(bad_row=bad.append, removed=lambda _: None, account=lambda _: None),
        staging=staging,
        work=work,
    )
    accounts = curated.counts["sources"]
    for account in accounts:
        parts = [value for key, value in account.items() if isinstance(value, int) and key not in ("read", "protected")]
        parts += [sum(value.values()) for value in account.values() if isinstance(value, dict)]
        assert account["read"] == sum(parts), account
    assert sum(sum(account["quarantined"].values()) for account in accounts) == len(bad)
    return curated.counts


ENTRIES: dict[str, Callable[[Case, Path], Outcome]] = {
    "rows": _rows,
    "votes": _votes,
    "encode": _encode,
    "curate": _curate,
}
