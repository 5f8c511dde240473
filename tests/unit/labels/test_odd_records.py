"""No value in a record, however odd, does more than set that record or that vote aside."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from read_exports import shipped_tables

from pipeline.config.data import SourceConfig, SourceFormat, TableName
from pipeline.data.readers import read_file
from pipeline.data.rows import BadRowError
from pipeline.labels.importers.registry import ImportContext, choose_importer
from pipeline.labels.votes import Imported, Status

ODD: list[Any] = [None, True, 5, -1, 10**400, 1.5, "", "x", "\ud800", [], [1], [[]], {}, {"a": [1]}, [{"role": "user"}]]

FILES = [
    "argilla-exports/records.flat.json",
    "argilla-exports/records.json",
    "format-specimens/helpsteer_preference.jsonl",
    "format-specimens/openai_chat.jsonl",
    "format-specimens/openai_dpo.jsonl",
    "format-specimens/prodigy_choice.jsonl",
    "format-specimens/trl_unpaired_kto.jsonl",
    "format-specimens/ultrafeedback_style.jsonl",
    "hh-rlhf/test.jsonl.gz",
    "llamafactory/alpaca_en_demo.json",
    "llamafactory/dpo_en_demo.json",
    "llamafactory/kto_en_demo.json",
    "llamafactory/v1_dpo_demo.jsonl",
    "fastchat/dummy_conversation.json",
    "oasst-trees/en_100_tree.jsonl",
    "pandalm/testset-v1.json",
    "trl/zen/conversational_implicit_prompt_preference.jsonl",
    "trl/zen/conversational_preference.jsonl",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything in a value, a few levels deep."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        if len(path) < 4:
            yield from places(entry, (*path, key))


def changed(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    whole = copy.deepcopy(value)
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return whole


@pytest.mark.parametrize("file", FILES)
def test_an_odd_value_sets_its_record_aside_at_most(real_data: Path, file: str) -> None:
    path = real_data / file
    first = [record.fields or {} for record in read_file(path, SourceFormat.auto)][2]  # a sound one in all of them
    source = SourceConfig(table=TableName.exports, path=str(path))

    def opened(sample: list[dict[str, Any]]) -> Any:
        context = ImportContext(source=source, key="data.sources[0]", name="real", path=path, sample=sample)
        return choose_importer(context, shipped_tables()).open(context)

    read = opened([first])
    assert read(first).notices is not None
    refused = kept = 0
    for way in list(places(first))[:60]:
        for odd in ODD:
            record = changed(first, way, odd)
            opened([first, record, first])
            try:
                imported = read(record)
            except BadRowError:
                refused += 1
                continue
            assert isinstance(imported, Imported)
            for vote in imported.votes:
                assert vote.status is not Status.invalid or (vote.ranks is None and vote.note)
            kept += 1
    assert refused > 0
    assert kept > 0 or file.startswith("hh-rlhf")  # both of whose fields are needed
