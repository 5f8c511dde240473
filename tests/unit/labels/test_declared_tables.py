"""Tables that YAML declares: the same votes from every file format, and every wrong cell a vote that does not count."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from read_exports import Export, read_export, shipped_tables, write_jsonl

from pipeline.config.data import DataConfig, SourceConfig, TableName
from pipeline.config.ingest import IngestConfig
from pipeline.config.tables import load_tables
from pipeline.errors import ConfigError, DataError
from pipeline.labels.collecting import Reporting, collect
from pipeline.labels.votes import Scale

COLUMNS = ["prompt", "response_a", "response_b", "winner", "annotator", "strength", "seconds", "created"]
ROWS = [
    ["Why?", "So.", "No.", "A", "ann", "2", "7.5", "2024-05-01T10:00:00+02:00"],
    ["Why?", "So.", "No.", "right", "bob", "", "", ""],
    ["Why?", "So.", "No.", "tie", "", "0", "3", "1714550400"],
    ["Why?", "So.", "No.", "skip", "cid", "", "", ""],
    ["Why?", "So.", "No.", "C", "dan", "", "", ""],
    ["When?", "Now.", "Never.", "", "ann", "", "", ""],
]


def write(path: Path) -> Path:
    records = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t").writerows([COLUMNS, *ROWS])
    elif path.suffix == ".jsonl":
        write_jsonl(path, *records)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        book = openpyxl.Workbook()
        for row in [COLUMNS, *ROWS]:
            book.active.append(row)
        book.save(path)
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "xlsx"])
def test_a_table_of_votes_reads_the_same_from_every_format(tmp_path: Path, ending: str) -> None:
    export = read_export(write(tmp_path / f"votes.{ending}"))
    assert export.importer == "pairs_csv"
    found = [(vote.annotator, vote.status.value, export.order(vote)) for vote in export.votes]
    assert found == [
        ("ann", "submitted", {"So.": 1, "No.": 2}),
        ("bob", "submitted", {"So.": 2, "No.": 1}),
        (None, "submitted", {"So.": 1, "No.": 1}),
        ("cid", "skipped", None),
        ("dan", "invalid", None),
    ]
    first, _, tie, _, invalid = export.votes
    assert (first.strength, first.seconds, first.created) == (2.0, 7.5, "2024-05-01T08:00:00+00:00")
    assert (tie.strength, tie.seconds, tie.created) == (0.0, 3.0, "2024-05-01T08:00:00+00:00")
    assert (invalid.note or "").startswith('E_LABEL: winner is "C", which is none of a, response_a')
    assert export.counts["unlabelled"] == 1
    assert len(export.collected.items) == 2


def declared(tmp_path: Path, text: str, *rows: dict[str, Any], **source: Any) -> Export:
    folder = tmp_path / "configs" / "table"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    tables = load_tables([tmp_path / "configs"])
    return read_export(write_jsonl(tmp_path / "rows.jsonl", *rows), tables=tables, **{"importer": "mine", **source})


VOTES = """
prompt: [q]
completions: [left, right]
models: [left_model, right_model]
verdicts: [{column: best}]
values: {1: first, 2: second, "true": tie}
swapped: flipped
created: at
seconds: took
"""


def test_values_match_as_text_and_positions_follow_the_screen(tmp_path: Path) -> None:
    base = {"q": "Why?", "left": "So.", "right": "No.", "left_model": "m1", "right_model": None}
    export = declared(
        tmp_path, VOTES, {**base, "best": 1}, {**base, "best": "2", "flipped": True}, {**base, "best": 2.0},
        {**base, "best": True}, {**base, "best": 1, "took": "long"}, {**base, "best": 1, "took": -1},
        {**base, "best": 1, "at": "yesterday"}, {**base, "best": {"x": 1}}, {**base, "best": None},
    )  # fmt: skip
    places = [None if (order := export.order(vote)) is None else order["So."] for vote in export.votes]
    assert places == [1, 2, 2, 1, None, None, None, None]
    assert [vote.is_tie for vote in export.votes[:4]] == [False, False, False, True]
    assert [(vote.note or "").partition(":")[0] for vote in export.votes[4:]] == [
        "E_LABEL", "E_LABEL", "E_TIME", "E_LABEL",
    ]  # fmt: skip
    shown = [dict(zip(export.order(vote) or {}, vote.positions or (), strict=True)) for vote in export.votes[:2]]
    assert shown == [{"So.": 0, "No.": 1}, {"So.": 1, "No.": 0}]
    assert export.counts["unlabelled"] == 1
    [item] = export.collected.items.values()
    assert {entry.messages[0]["content"]: entry.model for entry in item.candidates.values()} == {
        "So.": "m1", "No.": None,
    }  # fmt: skip


def test_whether_sides_were_swapped_is_said_in_known_words(tmp_path: Path) -> None:
    row = {"q": "Why?", "left": "So.", "right": "No.", "best": 1}
    cells = (None, "", "no", "0", False, "Yes", "1", True, "right first", 7)
    export = declared(tmp_path, VOTES, *({**row, "flipped": cell} for cell in cells))
    first = [
        dict(zip(export.order(vote) or {}, vote.positions or (), strict=True)).get("So.") for vote in export.votes[:8]
    ]
    assert first == [0, 0, 0, 0, 0, 1, 1, 1]
    assert [vote.status for vote in export.votes[8:]] == ["invalid", "invalid"]
    assert (export.votes[8].note or "").startswith('E_LABEL: flipped is "right first"')


def test_one_person_written_in_two_ways_is_one_person(tmp_path: Path) -> None:
    text = "prompt: [q]\ncompletions: [left, right]\nverdicts: [{column: best}]\nannotator: who\nvalues: {1: first}\n"
    row = {"q": "Why?", "left": "So.", "right": "No.", "best": 1}
    spellings = ["Jos\u00e9", "Jose\u0301", " Jos\u00e9\u200b ", "\ufeffJos\u00e9"]
    export = declared(tmp_path, text, *({**row, "who": who} for who in [*spellings, "Jose", "\u200b"]))
    assert [vote.annotator for vote in export.votes] == ["Jos\u00e9"] * 4 + ["Jose", None]
    assert [vote.status for vote in export.votes] == ["superseded"] * 3 + ["submitted"] * 3


def test_the_same_verdict_in_two_files_of_one_name_is_two_votes(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "response_a": "So.", "response_b": "No.", "winner": "a"}
    paths = []
    for folder in ("ann", "bob"):
        (tmp_path / folder).mkdir()
        paths.append(write_jsonl(tmp_path / folder / "votes.jsonl", row))
    sources = [SourceConfig(table=TableName.exports, path=str(path)) for path in paths]
    reporting = Reporting(bad_record=lambda record: None, account=lambda account: None)
    collected = collect(DataConfig(name="desk", sources=sources), IngestConfig(), shipped_tables(), reporting)
    assert [vote.source for vote in collected.votes] == ["desk/votes", "desk/votes#2"]
    assert [account.copies for account in collected.accounts] == [0, 0]


def test_ratings_in_a_list_and_ranks_in_columns(tmp_path: Path) -> None:
    rated = "prompt: [q]\ncompletion_list: replies\nratings: [stars]\nlowest: 1\nhighest: 5\nmissing: ['', 'n/a']\n"
    row = {"q": "Why?", "replies": ["So.", "No.", "Hm."]}
    export = declared(
        tmp_path, rated, {**row, "stars": [5, "N/A", 1.5]}, {**row, "stars": [5, 6, 1]}, {**row, "stars": [5, 1]},
        {**row, "stars": None}, {"q": "Why?", "replies": "So.", "stars": [1]},
        {"q": "Why?", "replies": '["So.", "No."]', "stars": "[1, 2]"},
    )  # fmt: skip
    assert [(vote.status, export.rated(vote)) for vote in export.votes] == [
        ("submitted", {"So.": 5.0, "No.": None, "Hm.": 1.5}), ("invalid", None), ("invalid", None),
        ("submitted", {"So.": 1.0, "No.": 2.0}),
    ]  # fmt: skip
    assert export.order(export.votes[0]) == {"So.": 1, "No.": None, "Hm.": 2}
    assert (export.counts["unlabelled"], export.reasons) == (1, {5: "E_SCHEMA"})
    ranked = "prompt: [q]\ncompletions: [a, b, c]\nranks: [ra, rb, rc]\n"
    cells = {"q": "Why?", "a": "So.", "b": "No.", "c": "Hm."}
    export = declared(tmp_path, ranked, {**cells, "ra": "10", "rb": "3", "rc": "10"}, {**cells, "ra": "first"})
    assert export.order(export.votes[0]) == {"So.": 2, "No.": 1, "Hm.": 2}
    assert [(vote.scale, vote.status) for vote in export.votes] == [
        (Scale.ranking, "submitted"), (Scale.ranking, "invalid"),
    ]  # fmt: skip


def test_thumbs_and_preferences(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "completion": "So.", "label": label} for label in (True, False, "1", "maybe")]
    export = read_export(write_jsonl(tmp_path / "rows.jsonl", *rows))
    assert [(vote.scale, vote.status, vote.ratings) for vote in export.votes] == [
        (Scale.thumbs, "submitted", (1.0,)), (Scale.thumbs, "submitted", (0.0,)),
        (Scale.thumbs, "submitted", (1.0,)), (Scale.thumbs, "invalid", None),
    ]  # fmt: skip
    assert not any(vote.is_tie for vote in export.votes)  # one completion alone ties with nothing
    rows = [
        {"chosen": "Blue is better than red.", "rejected": "Blue is better than the moon."},
        {"chosen": "Blue.", "rejected": "Red."},
        {"chosen": [{"role": "user", "content": "Why?"}], "rejected": "Red."},
    ]
    export = read_export(write_jsonl(tmp_path / "rows.jsonl", *rows))
    assert export.importer == "trl_implicit_preference"
    assert export.order(export.votes[0]) == {" red.": 1, " the moon.": 2}
    assert export.item(export.votes[0]).prompt == [{"role": "user", "content": "Blue is better than"}]
    assert export.reasons == {2: "E_SCHEMA", 3: "E_ROLE"}


def test_thumbs_on_the_last_turn_of_a_conversation(tmp_path: Path) -> None:
    asked, blank = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": " "}
    talks: list[list[dict[str, str]]] = [[asked, blank], [asked, blank, asked, blank], [asked], []]
    export = declared(tmp_path, "messages: talk\nthumbs: t\n", *({"talk": talk, "t": False} for talk in talks))
    assert [(vote.status, export.rated(vote)) for vote in export.votes] == [("submitted", {" ": 0.0})]
    assert export.reasons == {2: "E_EMPTY", 3: "E_ROLE", 4: "E_ROLE"}


def test_instruction_and_input_are_one_prompt(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    export = read_export(
        write_jsonl(tmp_path / "rows.jsonl", row, {**row, "input": " "}, {**row, "history": [["a", "b"]]})
    )
    assert [found.prompt[0]["content"] for found in export.collected.demonstrations["auto"]] == [
        "Add.\n\n1 and 2",
        "Add.",
    ]
    assert export.reasons == {3: "E_SCHEMA"}


def test_a_source_may_rename_columns_of_a_table(tmp_path: Path) -> None:
    row = {"question": "Why?", "response_a": "So.", "response_b": "No.", "winner": "a"}
    path = write_jsonl(tmp_path / "rows.jsonl", row)
    assert len(read_export(path, importer="pairs_csv", columns={"prompt": "question"}).votes) == 1
    with pytest.raises(DataError, match="has no column 'prompt', which the table `pairs_csv` reads"):
        read_export(path, importer="pairs_csv")
    with pytest.raises(DataError, match="has no column 'qestion', .* Did you mean `question`?"):
        read_export(path, importer="pairs_csv", columns={"prompt": "qestion"})
    with pytest.raises(
        ConfigError, match=r"columns\.promt: the table `pairs_csv` has no such column\. Did you mean `prompt`"
    ):
        read_export(path, importer="pairs_csv", columns={"promt": "question"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt: [q]\ncompletion: [a]\n", "There is no key `completion`. Did you mean `completions`"),
        ("prompt: [q]\ncompletions: [a, b]\n", "nothing says which is better"),
        ("prompt: [q]\ncompletions: [a, b]\nverdicts: [{column: v}]\n", "values: it says what"),
        ("prompt: [q]\ncompletions: [a, b]\nverdicts: [{column: v}]\nvalues: {1: frist}\n", "frist"),
        ("prompt: [q]\ncompletions: [a, b, c]\nverdicts: [{column: v}]\nvalues: {1: first}\n", "on two of them"),
        ("prompt: [q]\ncompletions: [a, b]\nratings: [r]\n", "ratings: 1 columns for 2 of completions"),
        ("completions: [a]\n", "prompt: no column is named"),
        ("prompt: [q]\ncompletions: [a]\nchosen: c\nrejected: r\n", "name one of them, not completions, chosen"),
        ("prompt: [q]\nchosen: c\n", "name both or neither"),
        ("prompt: [q]\ncompletions: [a]\nthumbs: t\ngood: ['Y']\nbad: ['y']\n", "good and bad: y is in both"),
        ("prompt: [q]\ncompletions: [a]\nratings: [r]\nthumbs: t\n", "one kind of judgement"),
        ("prompt: [q]\ncompletions: [a]\nunless: [x]\n", "unless: it only narrows"),
        ("prompt: [q]\ncompletions: [a]\nratings: [r]\nlowest: 5\nhighest: 1\n", "must be less than highest=1"),
        ("prompt: [q\n", "mine.yaml"),
        ("[]", "mine.yaml: a table is a mapping"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_by_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"table/mine\.yaml") as caught:
        declared(tmp_path, text, {"q": "Why?"})
    assert message in str(caught.value)


def test_the_first_table_of_a_name_on_the_search_path_counts(tmp_path: Path) -> None:
    for folder, column in (("own", "question"), ("shipped", "q")):
        (tmp_path / folder / "table").mkdir(parents=True)
        (tmp_path / folder / "table" / "mine.yaml").write_text(f"prompt: [{column}]\ncompletions: [a]\n")
    tables = load_tables([tmp_path / "own", tmp_path / "shipped", tmp_path / "missing"])
    assert tables["mine"].prompt == ["question"]
    assert list(tables) == ["mine"]


def test_a_table_may_not_take_an_importers_name(tmp_path: Path) -> None:
    table = shipped_tables()["alpaca"]
    path = write_jsonl(tmp_path / "rows.jsonl", {"instruction": "Why?", "output": "So."})
    with pytest.raises(ConfigError, match="`argilla` is the name of an importer"):
        read_export(path, tables={"argilla": table})


def test_chosen_and_rejected_may_repeat_the_prompt(tmp_path: Path) -> None:
    whole = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    other = [whole[0], {"role": "assistant", "content": "No."}]
    rows = [
        {"prompt": "Why?", "chosen": whole, "rejected": other},
        {"prompt": "When?", "chosen": whole, "rejected": other},
        {"prompt": "Why?", "chosen": "So.", "rejected": ""},
    ]
    export = read_export(write_jsonl(tmp_path / "rows.jsonl", *rows))
    assert export.importer == "trl_preference"
    assert [export.order(vote) for vote in export.votes] == [{"So.": 1, "No.": 2}]
    assert export.reasons == {2: "E_SCHEMA", 3: "E_EMPTY"}
