"""Real exports of the 1.23.2 server. The expected counts were taken from the raw JSON, by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from pipeline.config.data import SourceConfig, SourceFormat, TableName
from pipeline.data.readers import read_file
from pipeline.data.rows import BadRowError, Demonstration
from pipeline.errors import DataError
from pipeline.labels.importers.registry import ImportContext, choose_importer
from pipeline.labels.votes import Item, Scale, Status, Vote

FLAT = ["min.json", "csv", "tsv"]
FORMATS = ["json", *FLAT]


class Read:
    """Everything that one export gives."""

    def __init__(self, path: Path, **source: object) -> None:
        config = SourceConfig(table=TableName.exports, path=str(path), **source)
        records = list(read_file(path, config.format))
        sample = [record.fields for record in records[:20] if record.fields is not None]
        context = ImportContext(source=config, key="data.sources[0]", name="ls", path=path, sample=sample)
        importer = choose_importer(context, {})
        assert importer.name == "label_studio"
        read = importer.open(context)
        self.records = len(records)
        self.items: dict[str, Item] = {}
        self.votes: list[Vote] = []
        self.demonstrations: list[Demonstration] = []
        self.bad: list[BadRowError] = []
        self.notices: set[str] = set()
        self.unlabelled = 0
        for record in records:
            assert record.fields is not None
            try:
                imported = read(record.fields)
            except BadRowError as error:
                self.bad.append(error)
                continue
            self.items.update({item.id: item for item in imported.items})
            self.votes += imported.votes
            self.demonstrations += imported.demonstrations
            self.unlabelled += imported.unlabelled
            self.notices.update(imported.notices)

    def statuses(self) -> dict[str, int]:
        return dict(Counter(vote.status.value for vote in self.votes))

    def counted(self) -> list[Vote]:
        return [vote for vote in self.votes if vote.status is Status.submitted]

    def keys(self) -> Counter[tuple[object, ...]]:
        return Counter(
            (vote.item, vote.annotator, vote.question, vote.candidates, vote.ranks, vote.ratings, vote.strength,
             vote.positions, vote.created, vote.seconds, vote.id)
            for vote in self.counted()
        )  # fmt: skip


@pytest.fixture
def exports(real_data: Path) -> Path:
    return real_data / "labelstudio-exports"


def template(exports: Path, name: str, folder: Path) -> str:
    """Write the XML of a stock project as a user would save it."""
    stored = yaml.safe_load((exports / "templates" / f"{name}.yml").read_text(encoding="utf-8"))
    path = folder / f"{name}.xml"
    path.write_text(stored["config"], encoding="utf-8")
    return str(path)


def text_of(item: Item, candidate: str) -> str:
    return item.candidates[candidate].messages[0]["content"]


def test_pairwise_json_holds_what_was_counted_by_hand(exports: Path) -> None:
    read = Read(exports / "pairwise.json")
    # 40 tasks with 112 annotations: 42 left, 37 right, 28 ties and 5 cancelled, and a draft. Two tasks hold booleans
    # in place of text; their 6 annotations are 2 ties, 2 left and 2 right. Six predictions, two of them on those tasks.
    # A third task has an empty answer, which was judged all the same.
    assert read.records == 40
    assert [str(error) for error in read.bad] == [
        "E_SCHEMA: answer1 is true or false, not text",
        "E_SCHEMA: answer2 is true or false, not text",
    ]
    assert read.statuses() == {"submitted": 101, "skipped": 5, "draft": 1, "prediction": 4}
    assert read.unlabelled == 2
    assert sum(vote.is_tie for vote in read.counted()) == 26
    assert sum(vote.gold for vote in read.votes) == 1  # of two; the other is on a task with a boolean
    assert {vote.annotator for vote in read.counted()} == {"2", "3", "4"}
    assert {vote.scale for vote in read.counted()} == {Scale.pairwise}
    assert {vote.question for vote in read.votes} == {""}
    assert all(vote.created is not None and vote.created.endswith("+00:00") for vote in read.counted())
    assert next(vote for vote in read.votes if vote.status is Status.draft).annotator == "2"
    assert read.notices == set()


def test_a_left_vote_prefers_what_was_shown_on_the_left(exports: Path) -> None:
    read = Read(exports / "pairwise.json")
    vote = next(vote for vote in read.votes if vote.id == "10")  # "left" on task 4, by annotator 2 in 22.375 s
    assert (vote.annotator, vote.seconds, vote.status) == ("2", 22.375, Status.submitted)
    assert vote.ranks is not None
    assert vote.positions is not None
    better, worse = vote.candidates[vote.ranks.index(1)], vote.candidates[vote.ranks.index(2)]
    assert vote.positions[vote.candidates.index(better)] == 0
    item = read.items[vote.item]
    assert item.prompt == [{"role": "user", "content": "Suggest a recipe for a vegan dessert."}]
    assert text_of(item, better).startswith("Vegan Chocolate Chip Cookies: \n\nIngredients")
    assert not text_of(item, worse).startswith("Vegan Chocolate Chip Cookies: \n\nIngredients")
    other = next(vote for vote in read.votes if vote.id == "12")  # "right" on the same task
    assert other.candidates == vote.candidates
    assert other.ranks == vote.ranks[::-1]
    skipped = next(vote for vote in read.votes if vote.id == "11")
    assert (skipped.status, skipped.ranks) == (Status.skipped, None)


@pytest.mark.parametrize("ending", FLAT)
def test_pairwise_votes_are_the_same_in_every_format(exports: Path, ending: str) -> None:
    rich, flat = Read(exports / "pairwise.json"), Read(exports / f"pairwise.{ending}", **as_format(ending))
    assert flat.records == 109
    assert flat.unlabelled == 2
    if ending == "min.json":
        assert len(flat.bad) == 6
        assert flat.keys() == rich.keys()
        assert flat.statuses() == {"submitted": 101}
    else:  # text alone: the two tasks with a boolean cannot be told, and their 6 votes count
        assert flat.bad == []
        assert flat.statuses() == {"submitted": 107}
        assert sum(vote.is_tie for vote in flat.counted()) == 28
        assert rich.keys() < flat.keys()
        assert any("CSV writes every value as text" in notice for notice in flat.notices)
    assert any("leaves out skipped annotations" in notice for notice in flat.notices)


@pytest.mark.parametrize("ending", FORMATS)
def test_the_labeling_configuration_changes_no_vote(exports: Path, tmp_path: Path, ending: str) -> None:
    path, config = exports / f"pairwise.{ending}", template(exports, "human-feedback-collection", tmp_path)
    told = Read(path, labeling_config=config, **as_format(ending))
    assert told.keys() == Read(path, **as_format(ending)).keys()
    assert not any("labeling_config" in notice for notice in told.notices)


def test_columns_that_are_turned_round_turn_every_vote_round(exports: Path) -> None:
    columns = {"prompt": "prompt", "first": "answer2", "second": "answer1"}
    straight, turned = Read(exports / "pairwise.csv"), Read(exports / "pairwise.csv", columns=columns)
    assert straight.keys() != turned.keys()
    ranks = {vote.id: vote.ranks for vote in straight.counted()}
    positions = {vote.id: vote.positions for vote in straight.counted()}
    assert all(vote.ranks == ranks[vote.id][::-1] for vote in turned.counted())
    assert all(vote.positions == positions[vote.id][::-1] for vote in turned.counted())


def as_format(ending: str) -> dict[str, object]:
    return {"format": SourceFormat.json} if ending == "min.json" else {}


@pytest.mark.parametrize("ending", FORMATS)
def test_likert_votes_carry_strength_and_ratings(exports: Path, ending: str) -> None:
    read = Read(exports / f"likert.{ending}", **as_format(ending))
    # 43 annotations, each a preference and two ratings: 5 + 12 for A, 2 + 10 for B, 14 ties. One answer that was judged
    # is a zero-width space.
    assert read.bad == []
    assert read.statuses() == {"submitted": 86}
    preferences = [vote for vote in read.votes if vote.question == "preference"]
    ratings = [vote for vote in read.votes if vote.question == "helpfulness"]
    assert Counter(vote.strength for vote in preferences) == {3.0: 7, 1.0: 22, 0.0: 14}
    assert Counter(_better(vote) for vote in preferences) == {0: 17, 1: 12, None: 14}
    shown = Counter(tuple(vote.ratings[vote.positions.index(side)] for side in (0, 1)) for vote in ratings)
    assert sum(count for pair, count in shown.items() if pair[0] == 2.0) == 1
    assert sum(count for pair, count in shown.items() if pair[1] == 2.0) == 3
    assert {vote.scale for vote in ratings} == {Scale.rating}
    assert {candidate.model for item in read.items.values() for candidate in item.candidates.values()} >= {"tulu_65B"}
    assert read.keys() == Read(exports / "likert.json").keys()


def _better(vote: Vote) -> int | None:
    assert vote.ranks is not None
    assert vote.positions is not None
    return None if vote.is_tie else vote.positions[vote.ranks.index(1)]


def test_what_annotators_say_beside_their_verdict_is_a_note(exports: Path) -> None:
    notes = [vote.note or "" for vote in Read(exports / "likert.json").votes if vote.question == "preference"]
    assert sum("issues: ignores instruction" in note for note in notes) == 4
    assert sum("rationale: marked" in note for note in notes) == 11
    assert any("second note, with a comma\nand a newline" in note for note in notes)


@pytest.mark.parametrize("ending", FORMATS)
def test_rankings_order_every_candidate(exports: Path, ending: str) -> None:
    read = Read(exports / f"ranker.{ending}", **as_format(ending))
    assert read.statuses() == {"submitted": 15}
    # Twelve lists of 3, two of 4 and one of 9: 12*3 + 2*6 + 36 pairs.
    assert sum(len(vote.candidates) * (len(vote.candidates) - 1) // 2 for vote in read.votes) == 84
    assert all(sorted(vote.ranks) == list(range(1, len(vote.ranks) + 1)) for vote in read.votes)
    vote = next(vote for vote in read.votes if vote.id == "159")  # the first of its list begins "I really depends"
    best = vote.candidates[vote.ranks.index(1)]
    assert text_of(read.items[vote.item], best).startswith("I really depends on the task")
    assert {vote.scale for vote in read.votes} == {Scale.ranking}
    assert read.keys() == Read(exports / "ranker.json").keys()


@pytest.mark.parametrize("ending", FORMATS)
def test_buckets_are_places_that_several_share(exports: Path, ending: str) -> None:
    read = Read(exports / f"ranker-buckets.{ending}", **as_format(ending))
    assert read.statuses() == {"submitted": 8}
    assert Counter(tuple(sorted(vote.ranks)) for vote in read.votes) == {(1, 2, 2): 6, (1, 1, 2, 2): 2}
    assert any("one bucket" in notice for notice in read.notices)
    assert read.keys() == Read(exports / "ranker-buckets.json").keys()


@pytest.mark.parametrize("ending", FORMATS)
def test_text_areas_are_demonstrations(exports: Path, ending: str) -> None:
    read = Read(exports / f"sft.{ending}", **as_format(ending))
    assert len(read.demonstrations) == 19
    assert read.statuses() == ({"skipped": 1} if ending == "json" else {})
    first = next(row for row in read.demonstrations if row.id == "ls:179")
    assert first.prompt[0]["content"].startswith("Is there anything I can eat for a breakfast")
    assert first.completion[0]["content"].startswith("Yes, you can have 1 oatmeal banana protein shake")
    rich = {row.id: row for row in Read(exports / "sft.json").demonstrations}
    assert {row.id: row for row in read.demonstrations} == rich


def test_the_stock_pair_of_texts_without_a_prompt_asks_for_one(exports: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text('[{"id": 1, "data": {"pairText1": "x", "pairText2": "y"}, "annotations": []}]', encoding="utf-8")
    with pytest.raises(DataError, match=r"nothing says what the prompt is.*columns"):
        Read(path, labeling_config=template(exports, "pairwise-classification", tmp_path))
