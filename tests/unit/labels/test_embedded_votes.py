"""The embedded votes are what their card says: counts, planted annotators and defects, and the same bytes again."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from help_desk_votes.making import make  # noqa: E402  (the path is set above)
from help_desk_votes.material import Question, Sample, questions, read_samples  # noqa: E402
from help_desk_votes.utility import Utility  # noqa: E402

from pipeline.checks.registry import CheckItem, build_check  # noqa: E402

HELPDESK = ROOT / "data" / "helpdesk"
NAMES = ("votes.json", "test_votes.json", "planted_votes.json")
TEXTS = {name: (HELPDESK / name).read_text(encoding="utf-8") for name in NAMES}
PLANTED = json.loads(TEXTS["planted_votes.json"])
TRAIN, TEST = (PLANTED["files"][name] for name in ("votes.json", "test_votes.json"))
ANNOTATORS = {entry["user"]: entry for entry in PLANTED["model"]["annotators"]}
ATTENTIVE = [user for user, entry in ANNOTATORS.items() if entry["kind"] == "attentive"]
MALFORMED = {entry["task"]: entry for entry in TRAIN["malformed"]}


def tasks(name):
    """Tasks by id, without those that were damaged as a whole."""
    records = json.loads(TEXTS[name])
    damaged = {entry["index"] for entry in PLANTED["files"][name].get("malformed", []) if entry["level"] == "record"}
    return {task["id"]: task for index, task in enumerate(records) if index not in damaged}


VOTES, TEST_VOTES = tasks("votes.json"), tasks("test_votes.json")
EVERY_TASK = {**VOTES, **TEST_VOTES}
TRUTH = {**TRAIN["tasks"], **TEST["tasks"]}


def plain(text):
    return " ".join(text.split())


def side(annotation):
    """left, right or tie."""
    return annotation["result"][0]["value"]["selected"] if annotation["result"] else "tie"


def submitted(task):
    return [entry for entry in task["annotations"] if not entry["was_cancelled"] and not entry["ground_truth"]]


def named_sides(user):
    """Pairs of the side that the annotator named and the better one, where one is better."""
    return [
        (side(entry), TRUTH[str(number)]["better"])
        for number, task in EVERY_TASK.items()
        if number not in MALFORMED and TRUTH[str(number)]["better"] != "tie"
        for entry in submitted(task)
        if entry["completed_by"] == user and side(entry) != "tie"
    ]


def within(hits, total, probability):
    """Whether a count lies within four standard deviations of a binomial's mean."""
    return abs(hits - total * probability) <= 4 * math.sqrt(total * probability * (1 - probability))


def test_there_are_as_many_pairs_and_votes_as_promised():
    pairs = {
        (plain(task["data"]["prompt"]), frozenset(map(plain, (task["data"]["answer1"], task["data"]["answer2"]))))
        for number, task in VOTES.items()
        if number not in MALFORMED and len({entry["completed_by"] for entry in submitted(task)}) >= 5
    }
    assert len(pairs) >= 600
    special = {kind: len(entries) for kind, entries in TRAIN.items() if kind not in ("tasks", "superseded", "flipped")}
    assert special == {
        "all_skipped": 3, "drafts": 2, "duplicate": 12, "gold": 24, "malformed": 13, "near_duplicate": 12,
        "personal_data": 24, "repeats": 30, "unlabelled": 5,
    }  # fmt: skip
    assert len(TEST_VOTES) == len(TEST["tasks"]) == 180
    assert all(len({entry["completed_by"] for entry in submitted(task)}) == 5 for task in TEST_VOTES.values())
    voters = Counter(entry["completed_by"] for task in EVERY_TASK.values() for entry in submitted(task))
    assert voters.keys() == ANNOTATORS.keys()
    assert len(ANNOTATORS) == 8
    assert min(voters.values()) > 350


def test_half_of_the_pairs_and_more_are_between_answers_of_the_same_policy():
    kinds = Counter(
        tuple(sorted(name.split("-")[0] for name in TRUTH[str(number)]["answers"])) for number in EVERY_TASK
    )
    assert kinds.keys() == {("sft", "sft"), ("base", "sft"), ("demonstration", "sft")}
    assert kinds["sft", "sft"] > sum(kinds.values()) / 2
    assert kinds["demonstration", "sft"] > 90


def test_tasks_have_the_fields_that_the_real_server_writes(real_data):
    real = json.loads((real_data / "labelstudio-exports" / "pairwise.json").read_text(encoding="utf-8"))
    votes = [entry for task in real for entry in task["annotations"]]
    regions = [region for entry in votes for region in entry["result"]]
    drafts = [draft for task in real for draft in task["drafts"]]
    for task in [*VOTES.values(), *TEST_VOTES.values()]:
        assert task.keys() == real[0].keys()
        assert {"prompt", "answer1", "answer2"} <= task["data"].keys()
        if not isinstance(task["annotations"], list):
            continue
        assert all(entry.keys() == votes[0].keys() for entry in task["annotations"])
        assert all(draft.keys() == drafts[0].keys() for draft in task["drafts"])
        assert all(region.keys() == regions[0].keys() for entry in task["annotations"] for region in entry["result"])
        skipped = sum(entry["was_cancelled"] for entry in task["annotations"])
        assert (task["cancelled_annotations"], task["total_annotations"]) == (
            skipped,
            len(task["annotations"]) - skipped,
        )


def test_ids_are_unique_and_point_at_each_other():
    annotations = [entry for task in EVERY_TASK.values() for entry in task["annotations"]]
    for key in ("id", "unique_id"):
        assert len({entry[key] for entry in annotations}) == len(annotations)
    for number, task in EVERY_TASK.items():
        assert all(entry["task"] == number and entry["project"] == task["project"] for entry in task["annotations"])
    assert VOTES.keys() & TEST_VOTES.keys() == set()


def test_no_test_prompt_is_voted_on_in_the_training_file():
    def words(text):
        return set(re.findall(r"[a-z0-9]+", text.lower()))

    protected = [
        json.loads(line) for line in (HELPDESK / "test_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    asked = {plain(row["prompt"][-1]["content"]) for row in protected}
    assert {plain(task["data"]["prompt"]) for task in TEST_VOTES.values()} <= asked
    kept_out = [words(prompt) for prompt in asked]
    near = [
        prompt
        for prompt in {task["data"]["prompt"] for task in VOTES.values()}
        for mine in [words(prompt)]
        if any(len(mine & other) >= 0.6 * len(mine | other) for other in kept_out)
    ]
    assert near == []
    assert any(len(words(prompt) & kept_out[0]) == len(kept_out[0]) for prompt in asked), "the comparison sees equality"


@pytest.mark.parametrize("user", ATTENTIVE)
def test_an_attentive_annotator_names_the_better_side_as_often_as_planted(user):
    sides = named_sides(user)
    accuracy = ANNOTATORS[user]["accuracy"]
    expected = accuracy * 0.92 + (1 - accuracy) * 0.08  # right and not flipped, or wrong and flipped
    assert ANNOTATORS[user]["named_side_right"] == pytest.approx(expected)
    right = sum(named == better for named, better in sides)
    assert within(right, len(sides), expected)
    assert not within(right, len(sides), expected - 0.2), "the bound is too wide to tell one annotator from another"


def test_one_annotator_is_careless_and_fast():
    (user,) = [user for user, entry in ANNOTATORS.items() if entry["kind"] == "careless"]
    sides = named_sides(user)
    right = sum(named == better for named, better in sides)
    assert within(right, len(sides), 0.5)
    assert not within(right, len(sides), 0.7)
    assert within(sum(named == "left" for named, _ in sides), len(sides), 0.5)
    times = sorted(
        entry["lead_time"] for task in VOTES.values() for entry in submitted(task) if entry["completed_by"] == user
    )
    assert times[len(times) // 2] < 1


def test_one_annotator_always_clicks_left():
    (user,) = [user for user, entry in ANNOTATORS.items() if entry["kind"] == "always_left"]
    given = [
        side(entry)
        for number, task in EVERY_TASK.items()
        if number not in MALFORMED
        for entry in submitted(task)
        if entry["completed_by"] == user
    ]
    assert set(given) == {"left"}
    assert len(given) > 350


def test_better_answers_stand_on_both_sides_alike():
    sides = [entry["better"] for entry in TRUTH.values() if entry["better"] != "tie"]
    assert within(sides.count("left"), len(sides), 0.5)
    assert not within(sides.count("left"), len(sides), 0.6)


def test_eight_in_a_hundred_named_sides_are_flipped():
    clicking = {user for user, entry in ANNOTATORS.items() if entry["kind"] != "always_left"}
    named = {
        entry["id"]
        for number, task in EVERY_TASK.items()
        if number not in MALFORMED
        for entry in submitted(task)
        if entry["completed_by"] in clicking and side(entry) != "tie"
    }
    flipped = named & {*TRAIN["flipped"], *TEST["flipped"]}
    assert within(len(flipped), len(named), 0.08)
    assert not within(len(flipped), len(named), 0.11)


def test_ties_are_more_frequent_the_closer_the_two_answers_are():
    share = {}
    for name, low, high in (("close", 0.0, 0.25), ("middle", 0.25, 1.0), ("far", 2.0, 99.0)):
        given = [
            side(entry)
            for number, task in EVERY_TASK.items()
            if number not in MALFORMED
            and low <= abs(TRUTH[str(number)]["utilities"][0] - TRUTH[str(number)]["utilities"][1]) < high
            for entry in submitted(task)
            if entry["completed_by"] in ATTENTIVE
        ]
        assert len(given) > 100
        share[name] = given.count("tie") / len(given)
    assert share["close"] > 0.4 > share["middle"] > 0.08 > share["far"] > 0
    skips = sum(entry["was_cancelled"] for task in EVERY_TASK.values() for entry in task["annotations"])
    assert skips > 60


def test_the_ground_truth_is_right_and_every_annotator_voted_on_it():
    marked = [number for number, task in EVERY_TASK.items() if any(e["ground_truth"] for e in task["annotations"])]
    assert sorted(marked) == sorted(TRAIN["gold"])
    for number in marked:
        (gold,) = [entry for entry in VOTES[number]["annotations"] if entry["ground_truth"]]
        assert gold["completed_by"] == PLANTED["model"]["gold_keeper"]
        assert side(gold) == TRUTH[str(number)]["better"]
        assert {entry["completed_by"] for entry in submitted(VOTES[number])} == ANNOTATORS.keys()


def test_repeats_are_later_votes_of_the_same_annotator():
    found = {
        (number, user)
        for number, task in VOTES.items()
        if number not in MALFORMED
        for user, count in Counter(entry["completed_by"] for entry in submitted(task)).items()
        if count > 1
    }
    assert found == {(entry["task"], entry["annotator"]) for entry in TRAIN["repeats"]}
    for entry in TRAIN["repeats"]:
        by_id = {vote["id"]: vote for vote in VOTES[entry["task"]]["annotations"]}
        assert by_id[entry["first"]]["created_at"] < by_id[entry["later"]]["created_at"]
        assert entry["first"] in TRAIN["superseded"]
    assert len(TRAIN["superseded"]) > len(TRAIN["repeats"]), "annotators meet duplicated tasks twice, too"


def test_duplicates_say_the_same_and_near_duplicates_nearly():
    def content(number):
        data = VOTES[number]["data"]
        return plain(data["prompt"]), sorted((plain(data["answer1"]), plain(data["answer2"])))

    def shingles(number):
        prompt, answers = content(number)
        words = " ".join([prompt, *answers]).split()
        return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}

    assert all(content(entry["task"]) == content(entry["of"]) for entry in TRAIN["duplicate"])
    assert {entry["swapped"] for entry in TRAIN["duplicate"]} == {True, False}
    near = {(entry["task"], entry["of"]) for entry in TRAIN["near_duplicate"]}
    for one, two in near:
        assert content(one) != content(two)
        assert len(shingles(one) & shingles(two)) >= 0.7 * len(shingles(one) | shingles(two))
    planted = near | {(entry["task"], entry["of"]) for entry in TRAIN["duplicate"]}
    known = {frozenset(pair) for pair in planted}
    whole = {number: shingles(number) for number in VOTES if number not in MALFORMED}
    others = [
        (one, two)
        for one in whole
        for two in whole
        if one < two
        and frozenset((one, two)) not in known
        and TRUTH[str(one)]["question"] == TRUTH[str(two)]["question"]
        and len(whole[one] & whole[two]) >= 0.7 * len(whole[one] | whole[two])
    ]
    assert others == [], "a near-duplicate that nobody planted"


def test_personal_data_stand_where_they_are_said_to_stand():
    for entry in TRAIN["personal_data"]:
        assert entry["text"] in VOTES[entry["task"]]["data"][entry["where"]]
    kinds = Counter(entry["kind"] for entry in TRAIN["personal_data"])
    assert kinds == {"email": 8, "phone": 8, "card": 8}
    telltale = re.compile(r"@(?!hearthlog\.example)|\b555\b|\d{4}[- ]?\d{4,6}[- ]?\d{4,5}")
    listed = {entry["task"] for entry in TRAIN["personal_data"]}
    found = {
        number
        for number, task in EVERY_TASK.items()
        if number not in MALFORMED
        and any(telltale.search(task["data"][name]) for name in ("prompt", "answer1", "answer2"))
    }
    assert listed <= found
    assert found - listed == set(), "a task with personal data that is not listed"


def test_malformed_tasks_are_broken_in_the_way_that_is_listed():
    records = json.loads(TEXTS["votes.json"], object_pairs_hook=lambda pairs: pairs)
    by_what = {entry["what"]: dict(records[entry["index"]]) for entry in TRAIN["malformed"]}
    data = {what: dict(task.get("data", [])) for what, task in by_what.items()}
    assert len(by_what) == 13
    assert "answer2" not in data["answer2 is missing"]
    assert data["answer1 is the boolean true"]["answer1"] is True
    assert data["prompt is null"]["prompt"] is None
    assert "data" not in by_what["no data"]
    assert isinstance(by_what["annotations are text"]["annotations"], str)
    assert data["answer2 is empty"]["answer2"] == ""
    assert "\ud83d" in data["half a surrogate pair"]["answer1"]
    assert [name for name, _ in by_what["data names prompt twice"]["data"]].count("prompt") == 2
    same = data["both answers are the same"]
    assert same["answer1"] == same["answer2"]
    assert "<|im_start|>" in data["control tokens in answer1"]["answer1"]
    regions = {
        entry["what"]: dict(dict(vote)["result"][0])
        for entry in TRAIN["malformed"]
        if entry["level"] == "vote"
        for vote in by_what[entry["what"]]["annotations"]
        if dict(vote)["id"] == entry["annotation"]
    }
    assert dict(regions["a side that there is not"]["value"])["selected"] == "middle"
    assert regions["a rating instead of a side"]["type"] == "rating"
    assert regions["a region of an unknown type"]["type"] == "magicwand"
    whole = [entry for entry in TRAIN["malformed"] if entry["level"] == "record"]
    assert len(whole) < 0.02 * len(records), "more would stop a run with the default bound"


def test_the_utility_is_the_sum_of_its_parts():
    judge = Utility()
    asked = Question(id="q", topic="plans", text="How much is Glow?", reference="$4 per month", test=False)

    def points(text, finish="stop"):
        return judge(asked, Sample(question="q", policy="sft", temperature=1.0, seed=0, finish=finish, text=text))

    good = "Glow costs $4 per month or $40 per year.\nNext step: Open Settings > Plan and choose Glow."
    # Right fact 3; glow, cost, month and year are all the words of the right sentence: 2; next step, opening, length.
    assert points(good) == pytest.approx(3 + 2 + 1.5 + 1 + 1)
    assert points(good, finish="length") == pytest.approx(8.5 - 1)
    # No fact; of glow, cost, month and year only glow, cost and month; two invented prices; no next step.
    assert points("Glow costs $7 per month. Blaze costs $8.") == pytest.approx(2 * 3 / 4 - 2 * 0.8 + 1 + 1)
    # An opening that is no answer, and two words above thirty.
    assert points(f"Sure! {'heat ' * 31}") == pytest.approx(1 - 2 * 0.02)


@pytest.mark.slow
def test_the_same_candidates_give_the_same_bytes():
    again = make(questions(), read_samples(), Utility())
    assert again.keys() == TEXTS.keys()
    for name in NAMES:
        assert (HELPDESK / name).read_bytes() == again[name].encode(), f"{name} differs: run the script's step `vote`"


def test_the_further_prompts_ask_for_facts_of_the_sheet():
    rows = [json.loads(line) for line in (HELPDESK / "further_prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    facts = yaml.safe_load((HELPDESK / "fact_sheet.yaml").read_text(encoding="utf-8"))["topics"]
    assert Counter(row["topic"] for row in rows) == dict.fromkeys(facts, 9)
    assert len({row["id"] for row in rows}) == len({row["prompt"][0]["content"] for row in rows}) == len(rows)
    contains = build_check("contains_reference", {})
    for row in rows:
        item = CheckItem(row["prompt"], row["reference"])
        assert contains("\n".join([*facts[row["topic"]], *facts["plans"]]), item)
        assert not contains(row["prompt"][0]["content"], item), "echoing the question would pass"


def test_the_card_states_what_is_in_the_files():
    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for user, entry in ANNOTATORS.items():
        sides = named_sides(user)
        right = sum(named == better for named, better in sides) / len(sides)
        row = re.search(rf"(?m)^\| {user} \| .* \| {entry['named_side_right']:.3f} \| (\S+) of (\d+) \|$", card)
        assert row is not None
        assert (row[1], int(row[2])) == (f"{right:.3f}", len(sides))
    assert f"| all tasks | {len(TRAIN['tasks'])} | {len(TEST['tasks'])} |" in card
    samples = read_samples()
    assert f"{len({sample.question for sample in samples})} questions with {len(samples):,} answers" in card
    assert f"{len(TRAIN['superseded'])} votes are superseded" in card
    assert f"| flipped | {len(TRAIN['flipped'])} votes |" in card


def test_the_files_stay_small():
    new = [*NAMES, "candidates.jsonl", "further_prompts.jsonl", "labeling.xml"]
    assert sum((HELPDESK / name).stat().st_size for name in new) < 5_000_000
