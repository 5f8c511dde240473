"""All 78 bad inputs end as the table says: with their reason code, or accepted to the character."""

from __future__ import annotations

import dataclasses
import socket
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from bad_inputs.cases import CASES, OK, Case
from bad_inputs.entries import Outcome, classify, curate
from bad_inputs.fuzzing import Fuzzer, check_places
from bad_inputs.making import FILES, MAKERS, place

from pipeline.config.data import CurateConfig, NearDuplicatesConfig, SourceConfig, SourceFormat
from pipeline.data.readers import read_file
from pipeline.errors import DataError

# Lines of text, of which each is a row: that one of them is lost shows in their number.
LINES = [
    case
    for case in CASES
    if case.entry == "rows" and (FILES / case.file).suffix == ".jsonl" and not case.expected[0].startswith("file")
]
CURATED = [case for case in CASES if case.entry == "rows" and OK in case.expected and case.file not in MAKERS]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an address in the data was called")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def problem(case: Case, outcome: Outcome) -> str:
    """Say how an outcome differs from the table; nothing where it does not."""
    if outcome.fates != case.expected:
        return f"{outcome.fates} and not {case.expected}"
    if case.texts is not None and outcome.texts != case.texts:
        return f"{outcome.texts} and not {case.texts}"
    return ""


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bad_input_is_classified_and_nothing_is_written_outside(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "inner" / "root"
    folder.mkdir(parents=True)
    path = place(case.file, folder)
    assert problem(case, classify(case, path)) == ""
    assert [found.name for found in tmp_path.iterdir()] == ["inner"]
    assert [found.name for found in (tmp_path / "inner").iterdir()] == ["root"]
    assert not Path("/escaped.jsonl").exists()


def test_every_number_has_a_case_and_every_file_is_in_one() -> None:
    assert {case.number for case in CASES} == set(range(1, 79))
    used = {case.file for case in CASES} | {"54_ratings.xml", "75_evaluation.jsonl"}
    assert used == {path.name for path in FILES.iterdir()} | set(MAKERS)


def test_a_wrong_line_of_the_table_would_be_found(tmp_path: Path) -> None:
    by_file = {case.file: case for case in CASES}
    for name, expected in (
        ("05_latin1.jsonl", (OK, "E_JSON", OK)),
        ("05_latin1.jsonl", (OK, OK)),
        ("01_empty.jsonl", ("file E_ARCHIVE",)),
        ("54_ratings.json", ("submitted",) * 6),
    ):
        case = by_file[name]
        outcome = classify(case, place(name, tmp_path))
        assert problem(case, outcome) == ""
        assert problem(dataclasses.replace(case, expected=expected), outcome)
    case = by_file["62_markup.jsonl"]
    outcome = classify(by_file["76_addresses.jsonl"], place("76_addresses.jsonl", tmp_path))
    assert problem(case, outcome)


@pytest.mark.parametrize("case", LINES, ids=[case.name for case in LINES])
def test_every_line_is_a_row_with_a_fate(case: Case, tmp_path: Path) -> None:
    path = place(case.file, tmp_path)
    num_lines = sum(bool(line.strip()) for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    assert len(case.expected) == num_lines


@pytest.mark.parametrize("case", CURATED, ids=[case.name for case in CURATED])
def test_the_counts_of_curation_add_up(case: Case, tmp_path: Path) -> None:
    """The sums themselves are checked by `curate` of the corpus."""
    near = NearDuplicatesConfig(enabled=False)
    source = SourceConfig(table=case.table, path=str(place(case.file, tmp_path)))
    (account,) = curate([source], CurateConfig(filters=[], near_duplicates=near), tmp_path)["sources"]
    assert account["read"] == len(case.expected)
    assert account["quarantined"] == dict(Counter(fate for fate in case.expected if fate != OK))
    assert account["accepted"] + account["duplicates"] + account["leaks"] == case.expected.count(OK)


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.jsonl.zst", "bomb.zip", "long_line.jsonl", "many.zip"])
def test_bombs_and_endless_lines_need_little_memory(name: str, tmp_path: Path) -> None:
    path = place(name, tmp_path)
    case = next(case for case in CASES if case.file == name)
    tracemalloc.start()
    try:
        assert problem(case, classify(case, path)) == ""
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20
    assert pa.default_memory_pool().max_memory() < 40 << 20  # what zstd decompresses to


def test_the_measure_of_memory_sees_a_file_that_is_read_as_a_whole(tmp_path: Path) -> None:
    path = place("long_line.jsonl", tmp_path)
    tracemalloc.start()
    try:
        content = path.read_bytes()
        assert tracemalloc.get_traced_memory()[1] >= len(content) > 40 << 20
    finally:
        tracemalloc.stop()


def test_mutated_inputs_break_nothing(tmp_path: Path) -> None:
    fuzzer = Fuzzer(tmp_path, seed=0)
    for _ in range(300):
        fuzzer.step()
    assert sum(fuzzer.outcomes.values()) == 300
    assert {"some rows", "no rows", "file: DataError", "votes: read"} <= fuzzer.outcomes.keys()


def test_a_lost_row_and_a_wrong_place_would_be_found(tmp_path: Path) -> None:
    path = place("14_no_final_line_end.jsonl", tmp_path)
    content = path.read_bytes()
    records = list(read_file(path, SourceFormat.auto))
    check_places(records, path, content)
    with pytest.raises(AssertionError, match="is in no record"):
        check_places(records[1:], path, content)
    with pytest.raises(AssertionError, match="is in no record"):
        check_places(records[:1], path, content)
    with pytest.raises(AssertionError, match="does not stand at byte 7"):
        check_places([dataclasses.replace(records[0], offset=7)], path, content)


def test_a_crash_of_the_reader_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzer = Fuzzer(tmp_path, seed=0)

    def crash(*_: object) -> None:
        raise KeyError("crash")

    monkeypatch.setattr("bad_inputs.entries.build_row", crash)

    def steps() -> None:
        for _ in range(50):
            fuzzer.step()

    with pytest.raises(AssertionError, match="crash"):
        steps()


def test_a_folder_from_the_hub_may_link_within_itself_and_within_the_cache(tmp_path: Path) -> None:
    from pipeline.data.sources import _refuse_links_out

    blob = tmp_path / "datasets--org--set" / "blobs" / "0abc"
    snapshot = tmp_path / "datasets--org--set" / "snapshots" / "1def"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"{}")
    snapshot.mkdir(parents=True)
    (snapshot / "train.jsonl").symlink_to("../../blobs/0abc")
    (snapshot / "copy.jsonl").symlink_to("train.jsonl")
    _refuse_links_out(snapshot, "data.sources[0]")
    (snapshot / "more.jsonl").symlink_to("../../../elsewhere.jsonl")
    with pytest.raises(DataError, match=r"E_FORMAT: data\.sources\[0\].*more\.jsonl is a link"):
        _refuse_links_out(snapshot, "data.sources[0]")
