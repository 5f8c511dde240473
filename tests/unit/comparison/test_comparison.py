"""Runs side by side: numbers against the reports they come from, refusals, ranking and what was left out."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compared_runs import SUITES, samples_of, write_run
from help_desk import FORM

from pipeline.comparison.building import build_comparison
from pipeline.comparison.effects import Pruned, importance_of
from pipeline.comparison.selecting import choose
from pipeline.comparison.writing import csv_text, terminal_lines
from pipeline.config.evaluation import CheckConfig
from pipeline.errors import ArtifactError, ConfigError
from pipeline.evaluation.judged import JudgedWins
from pipeline.tracking.mirrored import MirroredRun


def compare(outputs: Path, *words: str, **options: Any) -> dict[str, Any]:
    return build_comparison(choose(words, outputs), **options)


def row(comparison: dict[str, Any], metric: str, policy: str, baseline: str | None) -> dict[str, Any]:
    named = (metric, policy, baseline)
    return next(e for e in comparison["metrics"] if (e["metric"], e["policy"], e["baseline"]) == named)


def test_a_difference_within_one_run_is_that_of_its_report(made: Path) -> None:
    """`sft` and `dpo` of one run are compared by its own report too, from samples and not from values by item."""
    comparison = compare(made, "sweep-3", policy="all")
    report = json.loads((made / "runs" / "sweep-3" / "report.json").read_text(encoding="utf-8"))
    keys = {"sft": "1", "dpo": "2", None: None}
    assert len(report["metrics"]) == len(comparison["metrics"]) == 3 * 7
    for entry in report["metrics"]:
        ours = row(comparison, entry["metric"], str(keys[entry["policy"]]), keys[entry["baseline"]])
        for name in ("estimate", "low", "high", "n", "clusters", "method", "unit"):
            assert ours[name] == (pytest.approx(entry[name]) if isinstance(entry[name], float) else entry[name])


def test_policies_of_two_runs_are_paired_item_by_item(made: Path) -> None:
    comparison = compare(made, "sweep-0", "sweep-3")
    found = row(comparison, "all_checks", "2", "1")
    items = [json.loads((made / "runs" / name / "items.json").read_text()) for name in ("sweep-0", "sweep-3")]
    first, second = (entry["suites"]["form"]["metrics"][0]["values"]["dpo"] for entry in items)
    pairs = list(zip(first, second, strict=True))
    won, lost = pairs.count((0, 1)), pairs.count((1, 0))
    assert found["estimate"] == pytest.approx((won - lost) / 40)
    assert won > 0 < lost  # so that a difference of two means alone would not show the pairing
    width = found["high"] - found["low"]
    unpaired = 2 * 2.09 * (sum(m * (1 - m) / 40 for m in (sum(first) / 40, sum(second) / 40))) ** 0.5
    assert 0 < width != pytest.approx(unpaired, rel=1e-3)


def test_the_best_comes_first_and_its_lead_is_weighed_against_the_choice(made: Path) -> None:
    ranking = compare(made, "sweep")["ranking"]
    assert ranking["by"] == "form/all_checks"
    values = [ranking["values"][key] for key in ranking["order"]]
    assert values == sorted(values, reverse=True)
    assert ranking["compared"] == 8
    best = ranking["order"][0]
    assert best in ranking["possibly_best"]
    naive = row(compare(made, "sweep"), "all_checks", best, "1")
    low, high = ranking["corrected"][best]
    assert low < naive["low"] < naive["high"] < high
    assert ranking["chance_lead"] > 0
    assert ("within noise" in " ".join(ranking["sentences"])) is ranking["within_noise"] is (low <= 0)


@pytest.mark.slow
def test_what_is_said_of_the_others_agrees_with_what_is_said_of_the_lead(made: Path) -> None:
    """Of two runs, one may be the only one to be best on one side of 95 %, and level with the other on both."""
    said: set[tuple[bool, int, bool]] = set()
    pairs = [(first, second, None) for first in range(8) for second in range(first + 1, 8)]
    for first, second, by in [*pairs, (0, 3, "fit/bits_per_byte")]:
        ranking = compare(made, f"sweep-{first}", f"sweep-{second}", by=by)["ranking"]
        told = " ".join(ranking["sentences"])
        said.add((ranking["within_noise"], len(ranking["possibly_best"]), "No other can be the best" in told))
    assert (True, 1, False) in said
    assert (True, 1, True) not in said
    assert (False, 1, True) in said


def test_what_is_lower_when_it_is_better_is_ranked_so(made: Path) -> None:
    ranking = compare(made, "sweep", by="fit/bits_per_byte")["ranking"]
    values = [ranking["values"][key] for key in ranking["order"]]
    assert values == sorted(values)
    assert ranking["order"][0] == "4"  # the most skilled one has the fewest nats by far
    assert set(ranking["possibly_best"]) <= {"4", "6"}  # the two most skilled
    assert ranking["within_noise"] is False


def test_trials_that_made_no_report_are_listed_with_the_reason(made: Path) -> None:
    comparison = compare(made, "sweep")
    assert [entry["status"] for entry in comparison["runs"]] == ["finished"] * 8 + ["failed", "pruned"]
    text = "\n".join(terminal_lines(comparison))
    assert "trial 8: failed: diverged at step 3" in text
    assert "trial 9: pruned" in text
    assert comparison["runs"][9]["intermediate"] == [[10.0, 0.2]]


def test_runs_on_other_items_are_not_ranked_and_the_reason_is_told(outputs: Path) -> None:
    write_run(outputs, "other", [*samples_of("sft", 0.5, first=5), *samples_of("dpo", 0.99, first=5)])
    comparison = compare(outputs, "sweep-0", "sweep-1", "other")
    assert comparison["ranking"]["order"] in (["1", "2"], ["2", "1"])
    assert (
        "5 only in the baseline (item-0000, item-0001, item-0002, …)" in comparison["candidates"][2]["refused"]["form"]
    )
    assert "5 only here" in comparison["candidates"][2]["refused"]["form"]
    with pytest.raises(ArtifactError, match="Nothing is ranked: no other run was evaluated on the items of other"):
        compare(outputs, "sweep-0", "other", baseline="other")


def test_the_items_that_most_runs_share_decide_where_no_baseline_is_named(outputs: Path) -> None:
    write_run(outputs, "a-other", [*samples_of("sft", 0.5, first=5), *samples_of("dpo", 0.9, first=5)])
    comparison = compare(outputs)
    assert comparison["runs"][0]["name"] == "a-other"
    assert comparison["baseline"] == "2"


def test_the_same_items_under_other_checks_are_refused(outputs: Path) -> None:
    stricter = replace(FORM, checks=[CheckConfig(name="max_words", params={"limit": 5}), FORM.checks[1]])
    samples = [*samples_of("sft", 0.5), *samples_of("dpo", 0.5)]
    write_run(outputs, "stricter", samples, suites={**SUITES, "form": stricter})
    comparison = compare(outputs, "sweep-0", "stricter")
    assert comparison["candidates"][1]["refused"] == {"form": "form is defined otherwise there: its checks (max_words)"}
    assert comparison["ranking"]["by"] == "fit/bits_per_byte"  # the other suite is still the same
    sampled = replace(FORM, sampling=replace(FORM.sampling, temperature=1.0))
    write_run(outputs, "sampled", samples, suites={**SUITES, "form": sampled})
    assert "how completions are drawn" in compare(outputs, "sweep-0", "sampled")["candidates"][1]["refused"]["form"]

    rewarded = replace(FORM, rewards=[CheckConfig(name="word_count", params={"target": 2})])
    write_run(outputs, "rewarded", samples, suites={**SUITES, "form": rewarded})
    told = compare(outputs, "sweep-0", "rewarded")["candidates"][1]["refused"]
    assert told == {"form": "form is defined otherwise there: its rewards (word_count)"}


def test_what_is_counted_in_other_tokens_is_not_compared(outputs: Path) -> None:
    samples = [*samples_of("sft", 0.5), *samples_of("dpo", 0.7)]
    for entry in (1, 3):
        samples[entry] = replace(samples[entry], rows=[replace(row, tokens=3) for row in samples[entry].rows])
    report = write_run(outputs, "other", samples) / "report.json"
    content = json.loads(report.read_text(encoding="utf-8"))
    content["provenance"]["base"] = ["c" * 64]
    report.write_text(json.dumps(content), encoding="utf-8")
    comparison = compare(outputs, "sweep-0", "other")
    compared = {entry["metric"] for entry in comparison["metrics"] if entry["policy"] == "2" and entry["baseline"]}
    assert compared == {"all_checks", "max_words", "regex", "finished", "bits_per_byte"}
    assert [note for note in comparison["notes"] if "has no part in" in note] == [
        "2 has no part in form/completion_tokens: another base model, whose tokens are not the same",
        "2 has no part in fit/nats_per_token: it counts the items' parts otherwise, as another tokenizer does",
    ]


def test_items_that_one_run_lacks_are_left_out_for_all_and_counted(outputs: Path) -> None:
    samples = [*samples_of("sft", 0.5), *samples_of("dpo", 0.7)]
    rows = list(samples[2].rows)
    rows[3] = replace(rows[3], completion="", finish_reason=None, num_tokens=0, unscored="overlength")  # type: ignore
    samples[2] = replace(samples[2], rows=rows)
    write_run(outputs, "short", samples)
    comparison = compare(outputs, "sweep-0", "short")
    assert row(comparison, "all_checks", "1", None)["n"] == 39
    assert comparison["suites"][0]["left_out"]["all_checks"] == 1
    assert row(comparison, "bits_per_byte", "1", None)["n"] == 40


def test_a_run_without_values_by_item_says_how_to_get_them(outputs: Path) -> None:
    (outputs / "runs" / "sweep-1" / "items.json").unlink()
    comparison = compare(outputs, "sweep-0", "sweep-1", "sweep-2")
    assert "run its command again" in comparison["candidates"][1]["refused"]["form"]
    assert "2" not in comparison["ranking"]["order"]


def test_the_same_policy_twice_is_one_trial(outputs: Path) -> None:
    shutil.copytree(outputs / "runs" / "sweep-3", outputs / "runs" / "sweep-3-again")
    comparison = compare(outputs, "sweep-0", "sweep-3", "sweep-3-again")
    assert [entry["twin_of"] for entry in comparison["candidates"]] == [None, None, 2]
    assert comparison["ranking"]["compared"] == 2
    assert "#3 is #2 once more" in "\n".join(terminal_lines(comparison))


def test_a_baseline_that_is_there_twice_is_the_same_baseline(made: Path) -> None:
    """All trials have one `sft`: whichever of its copies is named, choosing among nine policies costs the same."""
    first, third = (compare(made, "sweep", policy="all", baseline=name) for name in ("1", "3"))
    assert [entry["twin_of"] for entry in third["candidates"][:5]] == [3, None, None, None, 3]
    assert third["baseline"] == "3"
    assert len(third["ranking"]["corrected"]) == 8
    for name in ("corrected", "within_noise", "chance_lead", "quantile", "compared"):
        assert third["ranking"][name] == first["ranking"][name]
    assert third["ranking"]["within_noise"] is not None
    told = third["ranking"]["sentences"]
    assert told == [line.replace("#1 (sweep-0, sft)", "#3 (sweep-1, sft)") for line in first["ranking"]["sentences"]]
    assert told[1].startswith("It was chosen among 9: ")


def test_differences_in_configuration_and_lineage(outputs: Path) -> None:
    samples = [*samples_of("sft", 0.5), *samples_of("dpo", 0.7)]
    config = {"dpo": {"beta": 0.1, "optimizer": {"learning_rate": 1e-5}}, "seed": 17, "tracking": {"group": "x"}}
    write_run(outputs, "moved", samples, config=config, dataset="curate-2-b")
    comparison = compare(outputs, "sweep-0", "moved")
    assert comparison["config"] == {"keys": {}, "idle": ["tracking.group"]}
    assert comparison["lineage"]["sentence"] == "They have the same base model and not the same data set."
    whole = compare(outputs, "sweep")
    assert list(whole["config"]["keys"]) == ["dpo.beta", "dpo.optimizer.learning_rate"]
    assert whole["lineage"]["sentence"] == "They have the same base model and the same data set."


def test_runs_are_taken_by_the_group_that_they_were_given(outputs: Path) -> None:
    for number, tracking in enumerate([{"group": "mine"}, {"group": None}, {"group": "mine"}]):
        samples = [*samples_of("sft", 0.5), *samples_of("dpo", 0.5, seed=number)]
        write_run(outputs, f"alone-{number}", samples, config={"tracking": tracking})
    assert [run.name for run in choose(["group:mine"], outputs).runs] == ["alone-0", "alone-2"]
    assert [run.name for run in choose(["group:alone-1", "group:mine", "alone-0"], outputs).runs] == [
        "alone-1", "alone-0", "alone-2",
    ]  # fmt: skip
    assert [run.name for run in choose([f"group:{outputs / 'runs'}/mine"], outputs).runs] == ["alone-0", "alone-2"]
    mirrored = MirroredRun(
        run_id="abc", project="p", entity=None, group="of the sweep", job_type="dpo", name="dpo", tags=[], config={},
        upload_artifacts=True, inputs=[], run_folder="runs/alone-1", record="", pid=1, started=0.0, mode="offline",
    )  # fmt: skip
    mirrored.save(outputs)
    assert [run.name for run in choose(["group:of the sweep"], outputs).runs] == ["alone-1"]
    with pytest.raises(ConfigError, match=r"is of the group 'mein'. Did you mean `mine`\?"):
        choose(["group:mein"], outputs)
    with pytest.raises(ConfigError, match="no run in .*nowhere is of the group"):
        choose(["group:nowhere/mine"], outputs)


def test_runs_of_different_stages_go_by_their_policies(outputs: Path) -> None:
    """Their settings part in many keys, none of which says what they are."""
    for policy, skill in (("ppo", 0.6), ("kto", 0.65)):
        samples = [*samples_of("sft", 0.5), *samples_of(policy, skill)]
        write_run(outputs, f"only-{policy}", samples, config={policy: {"beta": 0.2}, "seed": 17})
    labels = {entry["label"] for entry in compare(outputs, "sweep-0", "only-ppo", "only-kto")["candidates"]}
    assert labels == {"dpo", "ppo", "kto"}
    several = compare(outputs, "sweep-0", "sweep-1", "only-ppo")["candidates"]
    assert several[2]["label"] == "ppo"
    assert all(re.match(r"dpo, .*learning_rate=", entry["label"]) for entry in several[:2])
    assert len({entry["label"] for entry in several}) == 3


def judged(policy: str, wins: Sequence[float | None], *, completions: str = "samples-sft") -> JudgedWins:
    names = [f"item-{number:04}" for number in range(40)]
    return JudgedWins(
        suite="form", judge="panel", qualified=False, against={"judge": "j", "completions": completions},
        wins={"sft": dict.fromkeys(names, 0.5),
              policy: {name: win for name, win in zip(names, wins, strict=True) if win is not None}},
    )  # fmt: skip


def test_what_judges_say_is_compared_where_they_compared_with_the_same(outputs: Path) -> None:
    said = {
        "first": judged("dpo", [1.0] * 24 + [0.0] * 16),
        "second": judged("dpo", [1.0] * 34 + [0.0] * 5 + [None]),
        "other": judged("dpo", [1.0] * 40, completions="samples-base"),
    }
    for number, (name, wins) in enumerate(said.items()):
        samples = [*samples_of("sft", 0.5), *samples_of("dpo", 0.6, seed=number)]
        write_run(outputs, name, samples, config={"seed": number}, judged=[wins])
    comparison = compare(outputs, "first", "second", "other")
    rows = [row for row in comparison["metrics"] if row["metric"] == "win_rate/panel"]
    absolute = {row["policy"]: row["estimate"] for row in rows if row["baseline"] is None}
    # The item without a verdict is left out for both: 24 and 34 of 39.
    assert absolute == {"1": pytest.approx(24 / 39), "2": pytest.approx(34 / 39)}
    (difference,) = [row for row in rows if row["baseline"] is not None]
    assert difference["estimate"] == pytest.approx(10 / 39)
    assert difference["low"] < difference["estimate"] < difference["high"]
    assert (difference["n"], difference["clusters"]) == (39, 20)
    notes = comparison["notes"]
    assert "form/win_rate/panel: the judge has not qualified" in notes
    assert any(note.startswith("3 has no part in form/win_rate/panel: another judge") for note in notes)
    ranked = build_comparison(choose(["first", "second"], outputs), by="form/win_rate/panel")
    assert ranked["ranking"]["order"] == ["2", "1"]
    assert "+25.64 points" in "\n".join(terminal_lines(ranked))


def test_a_whole_grid_has_effects_by_item_and_a_search_has_importance(made: Path) -> None:
    comparison = compare(made, "sweep")
    effects = {(entry["parameter"], entry["level"]): entry for entry in comparison["effects"]}
    assert set(effects) == {("dpo.beta", 0.5), *(("dpo.optimizer.learning_rate", r) for r in (2e-5, 5e-5, 1e-4))}
    found = effects["dpo.beta", 0.5]
    means = [comparison["ranking"]["values"][str(number)] for number in range(1, 9)]
    assert found["estimate"] == pytest.approx(sum(means[4:]) / 4 - sum(means[:4]) / 4)
    assert found["low"] < found["estimate"] < found["high"]
    assert comparison["importance"]["trials"] == "9 trials (1 of them pruned, each where it was when it was stopped)"
    by_another = compare(made, "sweep", by="fit/bits_per_byte")  # which the pruner did not follow
    assert by_another["importance"]["trials"] == "8 trials"
    few = compare(made, "sweep-0", "sweep-1", "sweep-2")
    assert few["importance"] == {"trials": "3 trials", "entries": [], "reason": "3 trials, and at least 8 are needed"}
    assert [entry["parameter"] for entry in few["effects"]] == ["dpo.optimizer.learning_rate"] * 2


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_trials_that_were_pruned_say_what_made_them_bad(higher_is_better: bool) -> None:
    """Those that ended are those of a high rate: what a rate does shows only beside the pruned ones."""
    sign = 1 if higher_is_better else -1
    parameters = {
        "rate": dict(zip("abcd", (4, 5, 6, 7), strict=True)),
        "rank": dict(zip("abcd", (1, 2, 1, 2), strict=True)),
    }
    scores = dict(zip("abcd", (sign * value for value in (10, 11, 13, 12)), strict=True))
    pruned = [Pruned(parameters={"rate": rate, "rank": rate % 2 + 1}, behind=4) for rate in range(4)]
    found = importance_of(parameters, scores, pruned, higher_is_better=higher_is_better)
    entries = {entry["parameter"]: entry for entry in found["entries"]}
    assert entries["rate"]["share"] > 0.6
    assert entries["rate"]["p_holm"] < 0.1
    assert entries["rank"]["share"] == 0.0
    assert entries["rate"]["trend"] * sign > 0.8
    assert importance_of(parameters, scores)["entries"] == []


@pytest.mark.parametrize(("behind", "share"), [(3, 13 / 18), (6, 0.11875)])
def test_a_trial_that_was_pruned_stands_where_it_was(behind: int, share: float) -> None:
    """A search of SFT in which the loss falls with the rate; that of 0.00106 was third of six when it was stopped.

    In its place the four lower rates have the places 5 to 8: H = 12 / 72 (10^2 / 4 + 26^2 / 4) - 27 = 16 / 3, and the
    share is (16 / 3 - 1) / 6. As one of the two worst it would hide that: places 1, 2, 3, 7.5 against 4, 5, 6, 7.5.
    """
    rates = {"a": 0.000174, "b": 0.000374, "c": 0.00045, "d": 0.00494, "e": 0.00355, "f": 0.00334}
    losses = {"a": 3.241, "b": 2.757, "c": 2.66, "d": 1.875, "e": 1.923, "f": 1.946}
    pruned = [Pruned(parameters={"rate": 0.0000568}, behind=6), Pruned(parameters={"rate": 0.00106}, behind=behind)]
    found = importance_of({"rate": rates}, losses, pruned, higher_is_better=False)
    assert found["entries"][0]["share"] == pytest.approx(share, abs=0.003)


def test_the_place_of_a_pruned_trial_is_that_at_its_last_step(outputs: Path) -> None:
    """It had 0.2 at step 10, where the others had 0.05, 0.15, 0.25, ... 0.75: six of the eight were ahead."""
    path = outputs / "runs" / "sweep" / "sweep.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    (stopped,) = [trial for trial in content["trials"] if trial["status"] == "pruned"]
    assert stopped["intermediate"] == [[10, 0.2]]
    for number, trial in enumerate(trial for trial in content["trials"] if trial["status"] == "finished"):
        trial["intermediate"] = [[5, 0.9], [10, 0.05 + 0.1 * number]]
    path.write_text(json.dumps(content), encoding="utf-8")
    comparison = compare(outputs, "sweep")
    trends = {entry["parameter"]: entry["trend"] for entry in comparison["importance"]["entries"]}
    placed = {
        behind: importance_of(
            comparison["parameters"],
            comparison["ranking"]["values"],
            [Pruned(parameters=stopped["params"], behind=behind)],
        )["entries"]
        for behind in (6, 8)
    }
    wanted, worst = ({entry["parameter"]: entry["trend"] for entry in placed[behind]} for behind in (6, 8))
    assert trends == pytest.approx(wanted, abs=1e-6)
    assert trends != pytest.approx(worst, abs=1e-2)


def test_a_trial_that_diverged_is_compared_by_what_it_had_before(outputs: Path) -> None:
    path = outputs / "runs" / "sweep" / "sweep.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for trial in content["trials"]:
        trial["intermediate"] = [[10, 0.1 * trial["number"]]]
    (stopped,) = [trial for trial in content["trials"] if trial["status"] == "pruned"]
    stopped["intermediate"] = [[10, 0.35], [20, math.nan]]
    path.write_text(json.dumps(content), encoding="utf-8")
    comparison = compare(outputs, "sweep")
    assert comparison["runs"][-1]["intermediate"] == [[10, 0.35]]
    stopped["intermediate"] = [[10, 0.35]]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert compare(outputs, "sweep")["importance"] == comparison["importance"]
    stopped["intermediate"] = [[10, math.nan]]  # no number at all: behind everybody
    path.write_text(json.dumps(content), encoding="utf-8")
    last = compare(outputs, "sweep")["importance"]
    stopped["intermediate"] = [[10, -9.0]]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert compare(outputs, "sweep")["importance"] == last


@pytest.mark.parametrize(
    ("words", "options", "told"),
    [
        (["swep"], {}, "there is no such run.*Did you mean `sweep`"),
        (["*nothing*"], {}, "no run folder matches"),
        (["sweep"], {"by": "form/all_check"}, "Did you mean `form/all_checks`"),
        (["sweep"], {"by": "form/completion_tokens"}, "neither more nor less of it is better"),
        (["sweep"], {"baseline": "nobody"}, "none of the compared policies go by that name"),
        (["sweep"], {"baseline": "sweep-"}, "several of the compared policies"),
        (["sweep"], {"policy": "ppo"}, "no run has it. Policies: dpo, sft"),
    ],
)
def test_what_names_nothing_is_refused(made: Path, words: list[str], options: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        compare(made, *words, **options)


def test_a_baseline_is_named_by_number_name_or_policy(made: Path) -> None:
    assert compare(made, "sweep", baseline="3")["baseline"] == "3"
    assert compare(made, "sweep", baseline="sweep-4")["baseline"] == "5"
    both = compare(made, "sweep-0", "sweep-1", policy="all", baseline="sweep-1:sft")
    assert (both["candidates"][3]["policy"], both["baseline"]) == ("dpo", "3")


def test_a_run_is_compared_once_and_its_whole_name_comes_before_the_beginning_of_others(outputs: Path) -> None:
    shutil.copytree(outputs / "runs" / "sweep-3", outputs / "runs" / "sweep-0-late")
    comparison = compare(outputs, "sweep-0", "sweep-0-late", "sweep-0", str(outputs / "runs" / "sweep-0"),
                         baseline="sweep-0")  # fmt: skip
    assert [run["name"] for run in comparison["runs"]] == ["sweep-0", "sweep-0-late"]
    assert comparison["baseline"] == "1"


def test_unfinished_and_broken_folders_are_listed(outputs: Path) -> None:
    died = outputs / "runs" / "died"
    died.mkdir()
    (died / "config.yaml").write_text("seed: 1\n", encoding="utf-8")
    log = "2026-11-28 10:00:00  starts\n2026-11-28 10:00:09  sft ended: DivergedError: the loss is nan\n"
    (died / "run.log").write_text(log, encoding="utf-8")
    for name, content in (("odd", "seed: ]"), ("old", "seed: 1\n")):
        shutil.copytree(outputs / "runs" / "sweep-0", outputs / "runs" / name)
        (outputs / "runs" / name / "config.yaml").write_text(content, encoding="utf-8")
    (outputs / "runs" / "old" / "report.json").write_text('{"format_version": 1}', encoding="utf-8")
    comparison = compare(outputs, "died", "odd", "old", "sweep-0", "sweep-1")
    told = {run["name"]: (run["status"], run["reason"]) for run in comparison["runs"][:3]}
    assert told["died"] == ("failed", "sft ended: DivergedError: the loss is nan")
    assert told["odd"][0] == told["old"][0] == "unreadable"
    assert "format version 1" in told["old"][1]
    with pytest.raises(ArtifactError, match="None of the runs has a readable report.\n  died: failed: sft ended"):
        compare(outputs, "died")


def test_the_table_for_a_spreadsheet_has_a_line_for_every_run(made: Path) -> None:
    comparison = compare(made, "sweep")
    lines = list(csv.DictReader(io.StringIO(csv_text(comparison))))
    assert len(lines) == 10
    assert {line["status"] for line in lines} == {"finished", "failed", "pruned"}
    best = next(line for line in lines if line["rank"] == "1")
    key = comparison["ranking"]["order"][0]
    assert best["number"] == key
    assert float(best["form/all_checks"]) == comparison["ranking"]["values"][key]
    assert float(best["form/all_checks minus low"]) == row(comparison, "all_checks", key, "1")["low"]
    assert float(best["corrected low"]) == comparison["ranking"]["corrected"][key][0]
