"""Mutates the small bad inputs further, and checks what must hold of any bytes at all.

- Nothing but our own errors is raised.
- No byte of a file is lost: every record's bytes stand in the file where the record says, and between them there is
  nothing but what its format puts between rows.
- What is accepted does not depend on the order of the lines.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from bad_inputs.cases import CASES, Case
from bad_inputs.entries import ENTRIES, read_rows
from bad_inputs.making import FILES, MAKERS, place

from pipeline.config.data import SourceConfig, SourceFormat
from pipeline.data.archives import BOM
from pipeline.data.readers import detect_format, read_file
from pipeline.data.records import Record
from pipeline.data.rows import content_key
from pipeline.errors import ConfigError, DataError

MAX_SEED_BYTES = 20_000
GENERATED = ("climbing.zip", "twice.zip", "link.zip")
BETWEEN = {SourceFormat.jsonl: b" \t\r\n\x0b\x0c", SourceFormat.json: b" \t\r\n[],", SourceFormat.csv: b"\r\n"}
TOKENS = [
    b"\x00", b"\x01", b"\n", b"\r", b"\r\n", b'"', b'""', b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b",",
    b":", b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"\xff", b"\xc0\xaf", b"\xe2\x80\xa8",
    b"\xef\xbb\xbf", b"\xff\xfe", b"<html>", b"PK\x03\x04", b"\x1f\x8b", b"[" * 300, b'"role": "system", ',
    b'"content": 1, ', b";", b"\t",
]  # fmt: skip


class Fuzzer:
    """Makes inputs from a seed, one after the other, and checks each."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.cases = [case for case in CASES if case.file in GENERATED or (FILES / case.file).is_file()]
        self._contents = {case.file: self._content(case) for case in self.cases}
        self.cases = [case for case in self.cases if len(self._contents[case.file]) <= MAX_SEED_BYTES]
        self._pool = [self._contents[case.file] for case in self.cases]

    def _content(self, case: Case) -> bytes:
        if case.file not in MAKERS:
            return (FILES / case.file).read_bytes()
        return place(case.file, self._folder).read_bytes()

    def step(self) -> None:
        """Make one input and check it.

        Raises:
            AssertionError: Something that must hold does not; the message holds the input.
        """
        case = self._random.choice(self.cases)
        content = self.mutate(self._contents[case.file])
        path = self._folder / case.file
        path.write_bytes(content)
        try:
            outcome = self._check(case, path, content)
        except Exception as error:
            raise AssertionError(f"{case.name}: {error!r} for {content!r}") from error
        self.outcomes[outcome] += 1

    def mutate(self, content: bytes) -> bytes:
        """Change bytes in one to five places."""
        for _ in range(self._random.randint(1, 5)):
            start = self._random.randrange(len(content) + 1)
            end = min(len(content), start + self._random.choice((0, 1, 1, 2, 8, 64)))
            match self._random.randrange(7):
                case 0 if start < len(content):
                    middle = bytes([content[start] ^ (1 << self._random.randrange(8))])
                    end = start + 1
                case 1:
                    middle = b""
                case 2:
                    middle = content[start:end] * 2
                case 3:
                    other = self._random.choice(self._pool)
                    cut = self._random.randrange(len(other) + 1)
                    middle = other[cut : cut + self._random.choice((4, 32, 256, len(other)))]
                case 4:
                    middle, end = b"", len(content)
                case 5:
                    middle = bytes(self._random.randrange(256) for _ in range(self._random.randint(1, 4)))
                case _:
                    middle = self._random.choice(TOKENS)
            content = content[:start] + middle + content[end:]
        return content

    def _check(self, case: Case, path: Path, content: bytes) -> str:
        if case.entry == "votes":
            try:
                ENTRIES["votes"](case, path)
            except (DataError, ConfigError) as error:
                return f"votes: {type(error).__name__}"
            return "votes: read"
        source = SourceConfig(table=case.table, path=str(path))
        try:
            records = list(read_file(path, SourceFormat.auto))
            check_places(records, path, content)
            fates, rows = read_rows(source)
        except (DataError, ConfigError) as error:
            return f"file: {type(error).__name__}"
        assert len(fates) == len(records)
        if path.suffix == ".jsonl":
            self._check_order(source, path, content, Counter(map(content_key, rows)))
        return "some rows" if rows else "no rows"

    def _check_order(self, source: SourceConfig, path: Path, content: bytes, accepted: Counter[str]) -> None:
        lines = content.removeprefix(BOM).split(b"\n")
        if any(line.startswith(BOM) for line in lines):
            return  # a mark at the beginning of the file says nothing, and one before any other line is an error
        self._random.shuffle(lines)
        path.write_bytes(b"\n".join(lines))
        try:
            _, rows = read_rows(source)
        except (DataError, ConfigError):
            return  # what is now the first line says that the file is something else
        assert Counter(map(content_key, rows)) == accepted, "another order, other rows"


def check_places(records: list[Record], path: Path, content: bytes) -> None:
    """Check that records cover a plain text file.

    Raises:
        AssertionError: A record is not where it says it is, or bytes between two of them are in none.
    """
    format = detect_format(path, SourceFormat.auto)
    if path.suffix.lower() in (".gz", ".zst", ".zip") or format not in BETWEEN:
        return
    position = mark = len(BOM) if content.startswith(BOM) else 0
    for number, record in enumerate(records):
        assert record.offset is not None
        raw = record.raw
        start = max(record.offset, mark)  # the mark is part of the first line's place but not of its bytes
        assert content[start : start + len(raw)] == raw, f"record {number} does not stand at byte {start}"
        between = content[position:start]
        if not (number == 0 and format is SourceFormat.csv):  # before the first row there is the header
            assert not between.strip(BETWEEN[format]), f"{between!r} before record {number} is in no record"
        position = start + len(raw)
    assert not content[position:].strip(BETWEEN[format]), f"{content[position:]!r} at the end is in no record"
