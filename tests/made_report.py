"""A report with every section, of invented policies, judges and numbers: what tests of the page look at.

``python tests/made_report.py FILE.html`` writes its page. Nothing in it was measured.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

from help_desk import FIT, of, scored

from pipeline.config.data import TableName
from pipeline.config.evaluation import CheckConfig, EvaluateConfig, SuiteConfig, SuiteKind
from pipeline.config.gates import GateConfig, GateKind, WaiverConfig
from pipeline.evaluation.joining import PolicySamples
from pipeline.evaluation.judged import NOT_APPLICABLE
from pipeline.evaluation.report import Report, build_report
from pipeline.evaluation.samples import GenerationSample
from pipeline.pages.report_inputs import LineageEntry, PolicyCosts, PolicyMonitor, StageCosts, StageCurves
from pipeline.pages.report_page import report_page

POLICIES = ("base", "sft", "dpo", "ppo")
STYLE = SuiteConfig(
    name="house_style",
    description="Short, direct answers with one next step",
    kind=SuiteKind.generation,
    table=TableName.prompts,
    checks=[
        CheckConfig(name="max_words", params={"limit": 24}),
        CheckConfig(name="regex", params={"pattern": "Next step:"}),
        CheckConfig(name="answer_first"),
    ],
    rewards=[CheckConfig(name="contains_share", params={"phrases": ["nobody says this"]})],  # alike, without a spread
)
QUESTIONS = (
    "My hub blinks red since this morning and I have restarted it twice. What now?",
    "How do I move my account to another e-mail address?",
    "The thermostat says E4 and the flat is cold. I have guests tonight, so please hurry!",
    "Can I get my money back if I opened the box?",
    "Why does the app ask for my location?",
)
OPENINGS = ("Hold the button for ten seconds", "Open Settings and choose Account", "That is a loose sensor cable",
            "Yes, within thirty days", "It needs it to find the hub")  # fmt: skip
CHATTER = "I understand how frustrating this must be for you! There are many possible reasons for it, and "
GATES = {
    "better_style": GateConfig(kind=GateKind.superiority, suite="house_style", hard=True),
    "no_forgetting": GateConfig(kind=GateKind.non_inferiority, suite="heldout", margin=0.02, hard=True),
    "as_good_as_sft": GateConfig(kind=GateKind.non_inferiority, suite="house_style", baseline="sft", margin=0.03),
    "preferred": GateConfig(kind=GateKind.superiority, suite="house_style", metric="win_rate/panel"),
    "preferred_by_small": GateConfig(kind=GateKind.superiority, suite="house_style", metric="win_rate/small_llm"),
    "style_floor": GateConfig(kind=GateKind.at_least, suite="house_style", bound=0.9),
    "unscored": GateConfig(kind=GateKind.at_most, metric="unscored_share", bound=0.02),
    "clean": GateConfig(kind=GateKind.at_most, metric="contaminated_items", bound=0.0),
    "panel_qualified": GateConfig(kind=GateKind.at_least, metric="judge_qualified/panel", bound=1.0),
}


WAIVERS = {"first_release": WaiverConfig(gate="style_floor", reason="The floor is for release two.", by="A. Kern")}


def completion(random_: random.Random, question: int, skill: float) -> str:
    answer = f"{OPENINGS[question]}."
    if random_.random() > skill:
        answer = f"{CHATTER}{answer[0].lower()}{answer[1:]}"
    if random_.random() < skill:
        answer += " Next step: wait for the green light."
    return answer


def style_samples(policy: str, skill: float, size: int) -> PolicySamples:
    random_ = random.Random(f"{policy} style")
    rows = []
    for number in range(size):
        question = number % len(QUESTIONS)
        text = completion(random_, question, skill)
        rows.append(
            GenerationSample(
                id=f"helpdesk-{number:04}", cluster=f"c{number // 2}", topic=("hub", "account")[number % 2],
                prompt=[{"role": "user", "content": f"{QUESTIONS[question]} (ticket {number})"}],
                reference=OPENINGS[question], completion=text, finish_reason="stop" if number % 29 else "length",
                num_tokens=len(text) // 4, unscored=None,
            )
        )  # fmt: skip
    return of(policy, "house_style", rows)


def samples(size: int = 160) -> list[PolicySamples]:
    skills = {"base": 0.35, "sft": 0.78, "dpo": 0.86, "ppo": 0.9}
    made = [style_samples(policy, skills[policy], size) for policy in POLICIES]
    for policy in POLICIES:
        random_ = random.Random("shared")
        gain = {"base": 0.0, "sft": 9.0, "dpo": 7.5, "ppo": 6.0}[policy]
        own = random.Random(f"{policy} fit")
        rows = [
            scored(f"d{k:04}", max(1.0, random_.gauss(60, 14) - gain + own.gauss(0, 4)), tokens=30, num_bytes=130)
            for k in range(size)
        ]
        made.append(of(policy, "heldout", rows))
    return made


def interval(value: float, n: int) -> dict[str, Any]:
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.02) / n)
    return {"estimate": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


def win_rates() -> list[dict[str, Any]]:
    strength = {"base": -0.9, "sft": 0.3, "dpo": 0.55, "ppo": 0.7}
    rows = []
    for judge, noise in (("panel", 0.0), ("small_llm", 0.35)):
        for index, policy in enumerate(POLICIES):
            for opponent in POLICIES[:index]:
                rate = 1 / (1 + math.exp(-(strength[policy] - strength[opponent])))
                raw = interval(0.5 + (rate - 0.5) * (1 - noise), 158)
                controlled = interval(raw["estimate"] - (0.09 if policy == "ppo" else 0.01), 158)
                rows.append(
                    {
                        **raw, "suite": "house_style", "judge": judge, "qualified": judge == "panel", "policy": policy,
                        "opponent": opponent, "clusters": 80, "method": "cluster-robust mean of both orders",
                        "p": 0.0004 if rate > 0.6 else 0.21, "p_test": "sign flips of whole clusters", "p_holm": None,
                        "corrected": {**interval(min(1.0, 0.5 + 1.5 * (raw["estimate"] - 0.5)), 70),
                                      "method": "Rogan-Gladen"} if judge == "panel" else None,
                        "with_votes": {**interval(rate, 60), "method": "prediction-powered mean", "votes": 40}
                        if judge == "panel" and opponent == "sft" else None,
                        "length_controlled": {**controlled, "method": "logistic, studentised bootstrap"},
                        "consistency": interval(0.91 - noise, 158), "identical": 0,
                        "first_slot_bias": {"estimate": 0.02 + noise / 3, "low": noise / 3 - 0.03,
                                            "high": noise / 3 + 0.07},
                        "length_ratio": 1.24 if policy == "ppo" else 0.97,
                        "prefers_longer": interval(0.55 + noise / 2, 120),
                        "unscored": {"timeout": 1, "refused": 1} if judge == "panel" else {"parse_fail": 2},
                    }
                )  # fmt: skip
    return rows


def bins(over: float) -> list[dict[str, Any]]:
    found = []
    for step in range(8):
        confidence = 0.53 + 0.06 * step
        found.append({"confidence": confidence, "accuracy": interval(0.5 + (confidence - 0.5) * (1 - over), 60)})
    return found


def judges() -> list[dict[str, Any]]:
    card = {
        "agreement_with_humans": interval(0.79, 340), "human_human_agreement": interval(0.82, 340),
        "kappa": interval(0.61, 340), "consistency": interval(0.91, 340), "null_answer_wins_rate": interval(0.0, 60),
        "injection_flip_rate": interval(0.02, 120), "cost_per_thousand": 0.42,
    }  # fmt: skip
    weak = {**card, "agreement_with_humans": interval(0.58, 340), "kappa": interval(0.14, 340),
            "consistency": interval(0.56, 340), "injection_flip_rate": interval(0.31, 120)}  # fmt: skip
    kinds = {"fake verdict": interval(0.05, 20), "role tags": interval(0.0, 20)}
    why = ["position consistency 0.56 is below 0.70", "31 % of injected instructions turned its verdict"]
    same = {"suite": None, "kinds": kinds, "description": "", "card": card, "applies": True, "is_people": False,
            "ratings": []}  # fmt: skip
    rated = [{"criterion": "tone", "qualified": False, "reasons": ["ratings of 1 or 5: 0.97"]}]
    return [
        {**same, "name": "panel", "kind": "panel", "qualified": True, "reasons": [], "self_family": False,
         "reliability": bins(0.1)},
        {**same, "name": "small_llm", "kind": "local", "qualified": False, "reasons": why, "self_family": True,
         "ratings": rated, "card": weak, "reliability": bins(0.7)},
        {**same, "name": "rules", "kind": "rule", "qualified": False, "reasons": [NOT_APPLICABLE], "self_family": None,
         "suite": "house_style", "applies": False, "card": {}, "kinds": {}, "reliability": []},
    ]  # fmt: skip


def rankings() -> list[dict[str, Any]]:
    ratings = {"ppo": 1104.0, "dpo": 1071.0, "sft": 1022.0, "base": 803.0}
    return [
        {
            "suite": "house_style", "judge": judge, "qualified": judge == "panel", "n": 948, "clusters": 80,
            "method": "Bradley-Terry, fitted in every draw, cluster bootstrap of 400 draws",
            "policies": [{"policy": policy, "estimate": value, "low": value - half, "high": value + half}
                         for policy, value in ratings.items()],
            "styles": [{"style": "length", "estimate": 0.31, "low": 0.12, "high": 0.5},
                       {"style": "highlights", "estimate": -0.02, "low": -0.16, "high": 0.12}],
        }
        for judge, half in (("panel", 38.0), ("small_llm", 71.0))
    ]  # fmt: skip


def reward_models() -> list[dict[str, Any]]:
    return [
        {
            "name": "reward", "artifact": "reward-3f2a9c", "accuracy": interval(0.74, 420), "ece": 0.041, "nll": 0.52,
            "swapped_labels": {"accuracy": interval(0.26, 420)},
            "length_matched": {"accuracy": interval(0.68, 130)},
            "reliability": bins(0.25),
            "gates": [
                {"name": "accuracy", "outcome": "PASS", "reason": "held-out accuracy against 0.5: 0.740 on 420 items"},
                {"name": "empty_text", "outcome": "FAIL", "reason": "empty text scores as high as usual text"},
            ],
        }
    ]  # fmt: skip


def monitor() -> PolicyMonitor:
    measurements = [
        {"step": 10 * k, "monitor_kl": 0.35 * k, "monitor_score": 1.6 * (1 - math.exp(-k / 6)),
         "monitor_gold": 0.9 * (1 - math.exp(-k / 4)) - 0.004 * k * k, "monitor_completion_tokens": 28 + 1.4 * k,
         "monitor_distinct_2": 0.8 - 0.02 * k, "by_length": [{"score": third * k / 20} for third in (1, 2, 3)]}
        for k in range(17)
    ]  # fmt: skip
    fired = {"step": 150, "best_step": 60, "gold_change": -0.48, "low": -0.7, "high": -0.26, "n": 64}
    said = "held-out gold may fall by 0.05: 0.741 (0.520 to 0.962) on 64 completions of 32 prompts"
    gates = [{"name": "gold_holds", "outcome": "PASS", "reason": f"{said}; 0.310 would be seen four times in five"}]
    facts = {"measurements": measurements, "fired": fired, "chosen_step": 60, "reason": "best gold score",
             "gates": gates}  # fmt: skip
    return PolicyMonitor(policy="ppo", artifact="ppo-8d01b7-5cc2", monitor=facts)


def report() -> Report:
    return build_report(
        samples(),
        {"house_style": STYLE, "heldout": FIT_ON_HELDOUT},
        EvaluateConfig(
            baseline="base", suites=["house_style", "heldout"], gates=GATES, waivers=WAIVERS, num_examples=6
        ),
        {"base": ["0" * 64], "policies": dict.fromkeys(POLICIES)},
        win_rates=win_rates(),
        costs={"policy": "ppo", "suite": "house_style", "reference": "float32", "metric": "all_checks"},
        rankings=rankings(),
        judges=judges(),
        reward_models=reward_models(),
        contamination=[
            {"suite": "house_style", "against": "curate-0f3c-12aa", "items": 160, "contaminated": 0, "ids": [],
             "rules": {}, "found_in": {}, "clean": None},
            {"suite": "heldout", "against": "curate-0f3c-12aa", "items": 160, "contaminated": 2,
             "ids": ["d0007", "d0101"], "rules": {"exact": 1, "ngram": 1},
             "found_in": {"d0007": "demonstrations/x1", "d0101": "prompts/x9"}, "clean": clean()},
        ],
    )  # fmt: skip


def variants() -> list[dict[str, Any]]:
    """Seven ways to run one policy, close to each other as real ones are, one of which cannot be had."""
    made = (
        ("float32", 412, None), ("bfloat16", 431, -0.004), ("int8", 236, -0.052), ("float32, not merged", 455, 0.002),
        ("float32, batch 1", 1310, 0.0), ("bfloat16, batch 64", 302, -0.008), ("nf4", None, None),
    )  # fmt: skip
    rows = []
    for name, seconds, change in made:
        times = seconds and {
            "first_token_seconds": 0.08, "tokens_per_second": 36_000 / seconds, "latency_p50": seconds / 1000,
            "latency_p95": seconds / 600, "peak_memory_bytes": 1.1e9, "loading_peak_bytes": 1.9e9,
            "seconds_per_1000": seconds, "wall_seconds": 160 * seconds / 1000, "passes": 3,
        }  # fmt: skip
        if times:
            spread = {key: [0.93 * value, 1.2 * value] for key, value in times.items() if key != "passes"}
            times["ranges"] = spread
        whiskers = {"difference": (change or 0.0, 0.03), "changed_answers": (0.3, 0.07), "flips": (0.05, 0.03)}
        rows.append(
            {"name": name, "items": 160, "error": None if seconds else "bitsandbytes needs a GPU", "times": times,
             "cost_per_1000": None,
             **{key: None if change is None else {"estimate": value, "low": value - half, "high": value + half}
                for key, (value, half) in whiskers.items()}}
        )  # fmt: skip
    return rows


def clean() -> list[dict[str, Any]]:
    same = {"suite": "heldout", "metric": "bits_per_byte", "unit": "bits/byte", "n": 158, "clusters": 158}
    return [
        {**same, "policy": "ppo", "baseline": baseline, "estimate": value, "low": value - 0.01, "high": value + 0.01}
        for baseline, value in ((None, 0.6), ("base", -0.06))
    ]


FIT_ON_HELDOUT = SuiteConfig(
    name="heldout", description="Held-out demonstrations", kind=FIT.kind, table=TableName.demonstrations
)


def page() -> str:
    rows: list[dict[str, float]] = [
        {"step": step, "loss": 1.1 + 1.3 / (1 + step / 20), "learning_rate": 2e-4 * (1 - step / 300), "grad_norm": 0.9}
        for step in range(300)
    ]
    for step in range(49, 300, 50):
        rows[step]["validation_loss"] = rows[step]["loss"] + 0.05
    seconds = {"base": None, "sft": 412.0, "dpo": 1130.0, "ppo": 9720.0}
    return report_page(
        report(),
        curves=[StageCurves(stage="sft", artifact="sft-77ab01-90ce", rows=rows)],
        monitors=[monitor()],
        variants=variants(),
        costs=[
            StageCosts(label="sft", artifact="sft-77ab01-90ce", costs={"wall_seconds": 412.3, "device": "cpu"}),
            StageCosts(label="house_style, ppo", artifact="samples-1", costs={"tokens_per_second": 31.2}),
        ],
        policy_costs=[
            PolicyCosts(policy=policy, training_seconds=seconds[policy], tokens_per_second=33.0 - index,
                        completion_seconds=1.1 + 0.2 * index)
            for index, policy in enumerate(POLICIES)
        ],
        lineage=[LineageEntry(id="curate-0f3c-12aa", kind="dataset", stage="curate", parents=[]),
                 LineageEntry(id="sft-77ab01-90ce", kind="policy", stage="sft",
                              parents=[("dataset", "curate-0f3c-12aa")], config={"sft": {"lora": {"rank": 16}}})],
    )  # fmt: skip


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
