"""Every real public file: read by the right importer to the right counts, or refused for the right reason.

The expected counts were taken from the raw files by scripts that share no code with the importers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import comb
from pathlib import Path

import pytest
from read_exports import read_export

from pipeline.errors import DataError
from pipeline.labels.votes import Scale, Status, Vote

DOCUMENTS = {".txt", ".md", ".qmd", ".yml", ""}  # what lies beside the data: licences, provenance, settings
UNKNOWN = "is no format that is recognised"


@dataclass(frozen=True)
class Read:
    importer: str
    read: int
    items: int = 0  # distinct prompts that were judged
    votes: dict[str, int] = field(default_factory=dict)
    ties: int = 0
    unlabelled: int = 0
    demonstrations: int = 0
    repeated: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)


def votes(read: int, importer: str, items: int, submitted: int, **more: object) -> Read:
    return Read(importer, read, items, {"submitted": submitted}, **more)  # type: ignore[arg-type]


def written(read: int, importer: str, **more: object) -> Read:
    return Read(importer, read, **{"demonstrations": read, **more})  # type: ignore[arg-type]


EXPECTED: dict[str, Read | str] = {
    "arena-hard/question.jsonl": UNKNOWN,
    # 131 answers, of which 3 drafts and 2 discarded ones; 5 suggestions of a model.
    "argilla-exports/records.flat.json": Read(
        "argilla", 15, 6, {"submitted": 126, "draft": 3, "discarded": 2, "prediction": 5}, ties=17
    ),
    "argilla-exports/records.json": Read("argilla", 15, 6, {"submitted": 131, "prediction": 5}, ties=17),
    "axolotl/alpaca.json": written(2, "alpaca"),
    "axolotl/conversation.json": written(1, "sharegpt"),
    "axolotl/conversation.missingturns.json": Read("sharegpt", 1, quarantined={"E_EMPTY": 1}),
    "axolotl/conversation.tokenized.json": UNKNOWN,
    "data-juicer/demo-dataset-deduplication.jsonl": UNKNOWN,
    "data-juicer/demo-dataset.jsonl": "begins with a JSON array",
    "data-juicer/redpajama-c4-refined.jsonl": UNKNOWN,
    "data-juicer/stack_exchange.jsonl": UNKNOWN,
    "fastchat/dummy_conversation.json": written(500, "sharegpt"),
    "fastchat/gpt-4.jsonl": UNKNOWN,
    "fastchat/judge_prompts.jsonl": UNKNOWN,
    "fastchat/vicuna_bench__question.jsonl": UNKNOWN,
    # Three votes on each of 24 pairs, of which one holds an empty response.
    "format-specimens/helpsteer_preference.jsonl": votes(24, "helpsteer", 24, 72, ties=10),
    "format-specimens/openai_chat.jsonl": written(30, "openai", demonstrations=25, quarantined={"E_SCHEMA": 5}),
    "format-specimens/openai_dpo.jsonl": votes(30, "openai", 30, 30),
    "format-specimens/prodigy_choice.jsonl": Read(
        "prodigy", 72, 24, {"submitted": 70, "skipped": 1, "discarded": 1}, ties=9
    ),
    "format-specimens/trl_preference_conversational.jsonl": votes(
        30, "trl_preference", 28, 28, quarantined={"E_EMPTY": 2}
    ),
    "format-specimens/trl_unpaired_kto.jsonl": votes(30, "trl_unpaired", 15, 30),
    "format-specimens/ultrafeedback_style.jsonl": votes(20, "ultrafeedback", 9, 40, ties=36),
    "gsm8k/train.jsonl": UNKNOWN,
    "hh-rlhf/test.jsonl.gz": votes(2312, "hh_rlhf", 2297, 2299, quarantined={"E_EMPTY": 4, "E_ROLE": 4, "E_SCHEMA": 5}),
    "inspect-examples/bias_detection.jsonl": UNKNOWN,
    "inspect-examples/biology_qa.jsonl": UNKNOWN,
    "inspect-examples/dataset.jsonl": UNKNOWN,
    "inspect-examples/popularity.jsonl": UNKNOWN,
    "inspect-examples/security_guide.jsonl": UNKNOWN,
    "inspect-examples/theory_of_mind.jsonl": UNKNOWN,
    "litgpt/alpaca.json": written(23, "alpaca"),
    "litgpt/dolly.json": UNKNOWN,
    "litgpt/longform_train.json": UNKNOWN,
    "litgpt/longform_val.json": UNKNOWN,
    "llamafactory/alpaca_en_demo.json": written(999, "llamafactory", demonstrations=985, repeated=14),
    "llamafactory/c4_demo.jsonl": "names no column for `response` that the file has. Running text is neither",
    "llamafactory/dataset_info.json": UNKNOWN,
    "llamafactory/dpo_en_demo.json": votes(300, "llamafactory", 295, 300),
    "llamafactory/identity.json": written(91, "llamafactory"),
    "llamafactory/kto_en_demo.json": votes(300, "llamafactory", 297, 300),
    "llamafactory/v1_dpo_demo.jsonl": votes(10, "llamafactory", 10, 10),
    "llamafactory/v1_sft_demo.jsonl": written(500, "llamafactory", demonstrations=499, repeated=1),
    # 212 ranked sets of replies, and two sets in which nothing is ranked.
    "oasst-trees/en_100_message.jsonl": votes(100, "openassistant", 214, 212, unlabelled=2),
    "oasst-trees/en_100_tree.jsonl": votes(100, "openassistant", 214, 212, unlabelled=2),
    "oasst-trees/realistic_seed_data.json": UNKNOWN,
    "oasst-trees/test_generic_data.json": UNKNOWN,
    "pandalm/gpt-3.5-turbo-testset-v1.json": UNKNOWN,  # verdicts by row number, without the responses
    "pandalm/pipeline-sanity-check.json": UNKNOWN,
    # 3 votes on each of 993 pairs; 6 more have a response that is true.
    "pandalm/testset-v1.json": votes(999, "pandalm", 170, 2979, ties=322, quarantined={"E_SCHEMA": 6}),
    "prodigy/annotated_github-issues-DOCUMENTATION-textcat.jsonl": "is a Prodigy export without `options`",
    "self-instruct/davinci-self-instruct_predictions.jsonl": UNKNOWN,
    "self-instruct/seed_tasks.jsonl": UNKNOWN,
    "self-instruct/text-davinci-003_predictions.jsonl": UNKNOWN,
    "self-instruct/user_oriented_instructions.jsonl": UNKNOWN,
    "trl/zen/conversational_implicit_prompt_preference.jsonl": votes(19, "trl_implicit_preference", 19, 19),
    "trl/zen/conversational_language_modeling.jsonl": written(19, "openai"),
    "trl/zen/conversational_preference.jsonl": votes(19, "trl_preference", 19, 19),
    "trl/zen/conversational_prompt_completion.jsonl": written(19, "trl_prompt_completion"),
    "trl/zen/conversational_prompt_only.jsonl": UNKNOWN,
    "trl/zen/conversational_unpaired_preference.jsonl": votes(19, "trl_unpaired", 19, 19),
    "trl/zen/standard_implicit_prompt_preference.jsonl": votes(19, "trl_implicit_preference", 19, 19),
    "trl/zen/standard_language_modeling.jsonl": UNKNOWN,
    "trl/zen/standard_preference.jsonl": votes(19, "trl_preference", 19, 19),
    "trl/zen/standard_prompt_completion.jsonl": written(19, "trl_prompt_completion"),
    "trl/zen/standard_prompt_only.jsonl": UNKNOWN,
    "trl/zen/standard_stepwise_supervision.jsonl": UNKNOWN,
    "trl/zen/standard_unpaired_preference.jsonl": votes(19, "trl_unpaired", 19, 19),
}


def data_files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in DOCUMENTS
    )


def test_every_file_is_expected(real_data: Path) -> None:
    """Label Studio's exports, whose counts have tests of their own, are recognised as such."""
    files = data_files(real_data)
    ours = [file for file in files if not file.startswith("labelstudio-exports/")]
    assert ours == sorted(EXPECTED)
    assert len(files) == len(ours) + 20


def test_every_export_of_label_studio_is_recognised(real_data: Path) -> None:
    files = [file for file in data_files(real_data) if file.startswith("labelstudio-exports/")]
    assert {read_export(real_data / file).importer for file in files} == {"label_studio"}


@pytest.mark.parametrize("file", sorted(EXPECTED))
def test_a_real_file(real_data: Path, file: str) -> None:
    expected = EXPECTED[file]
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read_export(real_data / file)
        return
    export = read_export(real_data / file)
    counts = export.counts
    assert export.importer == expected.importer
    assert (counts["read"], counts["quarantined"]) == (expected.read, expected.quarantined)
    assert (counts["votes"], counts["copies"]) == (dict(sorted(expected.votes.items())), 0)
    assert sum(vote.is_tie for vote in export.votes) == expected.ties
    assert (len(export.collected.items), counts["unlabelled"]) == (expected.items, expected.unlabelled)
    assert (counts["demonstrations"], counts["repeated_demonstrations"]) == (expected.demonstrations, expected.repeated)


def test_the_defects_of_hh_rlhf_and_pandalm_are_told_by_row(real_data: Path) -> None:
    by_reason: dict[str, list[int]] = {}
    for line, reason in read_export(real_data / "hh-rlhf/test.jsonl.gz").reasons.items():
        by_reason.setdefault(reason, []).append(line - 1)
    assert by_reason == {
        "E_SCHEMA": [1254, 1688, 1950, 1952, 2036],
        "E_EMPTY": [86, 516, 925, 1103],
        "E_ROLE": [667, 763, 1319, 1849],
    }
    pandalm = read_export(real_data / "pandalm/testset-v1.json")
    assert len(pandalm.bad) == 6
    assert all(entry["detail"].endswith("is true or false, not text") for entry in pandalm.bad)
    # 54 responses are empty, and their pairs were judged all the same: 29 were shown first, 25 second.
    empty = Counter(
        vote.positions[vote.candidates.index(candidate.id)]
        for vote in pandalm.votes
        for candidate in pandalm.item(vote).candidates.values()
        if vote.positions is not None and candidate.id in vote.candidates and not candidate.messages[0]["content"]
    )
    assert empty == {0: 3 * 29, 1: 3 * 25}


def test_pandalm_has_three_named_annotators_who_mostly_agree(real_data: Path) -> None:
    export = read_export(real_data / "pandalm/testset-v1.json")
    assert Counter(vote.annotator for vote in export.votes) == {f"annotator{number}": 993 for number in (1, 2, 3)}
    first = export.votes[:3]
    assert [export.order(vote) for vote in first] == [
        {
            "If you have any questions about my rate, please let me know.": 2,
            "If you have any questions, please let me know.": 1,
        }
    ] * 3
    assert {vote.positions for vote in export.votes} == {(0, 1), (1, 0)}
    assert all(vote.source == "real/testset-v1" for vote in export.votes)


def test_openassistant_has_212_ranked_sets(real_data: Path) -> None:
    """They hold 757 pairs, of which 3 are with the one reply in a ranked set that has no place."""
    for file in ("en_100_tree.jsonl", "en_100_message.jsonl"):
        ranked = read_export(real_data / "oasst-trees" / file).votes
        assert len(ranked) == 212
        assert {(vote.scale, vote.annotator) for vote in ranked} == {(Scale.ranking, None)}
        assert sum(comb(len(vote.candidates), 2) for vote in ranked) == 757
        assert sum(comb(len([rank for rank in vote.ranks or () if rank is not None]), 2) for vote in ranked) == 754
        assert sum(None in (vote.ranks or ()) for vote in ranked) == 1


def key(vote: Vote) -> tuple[object, ...]:
    return (vote.id, vote.item, vote.annotator, vote.question, vote.candidates, vote.ranks, vote.ratings)


def test_both_forms_of_argilla_hold_the_same_answers(real_data: Path) -> None:
    nested = read_export(real_data / "argilla-exports/records.json")
    flat = read_export(real_data / "argilla-exports/records.flat.json")
    assert {key(vote) for vote in nested.votes} == {key(vote) for vote in flat.votes}
    lost = [vote for vote in flat.votes if vote.status in (Status.draft, Status.discarded)]
    assert len(lost) == 5
    taken_as_given = {key(vote) for vote in nested.votes if vote.status in (Status.submitted, Status.superseded)}
    assert {key(vote) for vote in lost} <= taken_as_given
    assert any("leaves out whether an answer was submitted" in notice for notice in nested.collected.notices)
    assert not flat.collected.notices
    # Some records hold the same pair again, where an annotator's earlier answer is superseded.
    given = [vote for vote in flat.votes if vote.status in (Status.submitted, Status.superseded)]
    questions = Counter((vote.question, vote.scale) for vote in given)
    assert questions == {
        ("preference", Scale.pairwise): 42,
        ("ranking", Scale.ranking): 42,
        ("quality", Scale.rating): 42,
    }
