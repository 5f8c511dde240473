"""The help desk's own data follow its house rules, and the rules catch what breaks them."""

import json
from pathlib import Path

import pytest

from pipeline.checks.registry import CheckItem, build_check

HELPDESK = Path(__file__).parents[3] / "data" / "helpdesk"
RULES = {
    "answer_first": {},
    "max_words": {"limit": 60},
    "exactly_one_next_step": {"marker": "Next step:"},
    "facts_only": {"fact_sheet": str(HELPDESK / "fact_sheet.yaml")},
}
MARKER = "\nNext step: "


def assistant_turns():
    """Yield (id, messages before the turn, completion) for every assistant turn of every demonstration."""
    for line in (HELPDESK / "demonstrations.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for index, message in enumerate(row["messages"]):
            if message["role"] == "assistant":
                yield row["id"], CheckItem(row["messages"][:index]), message["content"]


TURNS = list(assistant_turns())


@pytest.fixture(scope="module")
def checks():
    return {name: build_check(name, params) for name, params in RULES.items()}


@pytest.mark.parametrize("rule", RULES)
def test_every_assistant_turn_follows_the_rule(rule, checks):
    broken = [(row_id, completion) for row_id, item, completion in TURNS if not checks[rule](completion, item)]
    assert len(TURNS) >= 240
    assert broken == []


def with_answer(change):
    """Return a mutation that changes the answer and leaves the next step alone."""

    def mutate(completion):
        answer, step = completion.split(MARKER)
        return change(answer) + MARKER + step

    return mutate


PADDING = " This is said again in other words so that nobody can miss it." * 4  # 52 words
FACT_BREAKERS = {
    "a price that does not exist": with_answer(lambda answer: f"{answer} The fee is $7 per month."),
    "a period that does not exist": with_answer(lambda answer: f"{answer} It takes 45 days."),
    "a period in words": with_answer(lambda answer: f"{answer} It takes ninety minutes."),
    "an invented plan": with_answer(lambda answer: f"{answer} The plan Inferno includes it."),
    "an invented address": with_answer(lambda answer: f"{answer} Write to billing@hearthlog.example."),
    "an invented page": with_answer(lambda answer: f"{answer} See www.hearthlog.example/help."),
    "an invented menu path": with_answer(lambda answer: f"{answer} It stands under Settings > Alarms."),
    "a telephone number": with_answer(lambda answer: f"{answer} Or call 555-0199."),
    "another product": with_answer(lambda answer: f"{answer} It also runs on an Echo Dot."),
}
MUTATIONS = {
    "answer_first": {
        "a greeting": lambda completion: f"Hello! {completion}",
        "a filler": lambda completion: f"Great question! {completion}",
        "agreement": lambda completion: f"Sure, here is what to know. {completion}",
        "an apology": lambda completion: f"I'm sorry about the trouble. {completion}",
        "thanks": lambda completion: f"Thank you for contacting Hearthlog. {completion}",
        "a question": lambda completion: f"Which plan is it? {completion}",
        "regret": lambda completion: f"Unfortunately that is how it is. {completion}",
    },
    "max_words": {
        "padding after the answer": with_answer(lambda answer: answer + PADDING),
        "padding before the answer": with_answer(lambda answer: PADDING.strip() + " " + answer),
        "the answer three times": lambda completion: " ".join([completion] * 3),
        "a long next step": lambda completion: completion + PADDING,
        "one word per line": lambda completion: "\n".join([*completion.split(), *PADDING.split()]),
    },
    "exactly_one_next_step": {
        "none": lambda completion: completion.split(MARKER)[0],
        "two": lambda completion: f"{completion}{MARKER}Restart the app.",
        "the same twice": lambda completion: completion + MARKER + completion.split(MARKER)[1],
        "first instead of last": lambda completion: "Next step: {1}\n{0}".format(*completion.split(MARKER)),
        "a sentence after it": lambda completion: f"{completion} Feel free to ask again.",
        "a line after it": lambda completion: f"{completion}\nHearthlog support",
        "empty": lambda completion: completion.split(MARKER)[0] + MARKER,
        "another word": lambda completion: completion.replace("Next step:", "What to do:"),
    },
    "facts_only": FACT_BREAKERS,
}


@pytest.mark.parametrize(("rule", "mutation"), [(rule, name) for rule in MUTATIONS for name in MUTATIONS[rule]])
def test_a_broken_rule_is_caught_in_every_turn_and_no_mutation_is_vacuous(rule, mutation, checks):
    missed = [row_id for row_id, item, text in TURNS if checks[rule](MUTATIONS[rule][mutation](text), item)]
    assert missed == []


@pytest.mark.parametrize("mutation", FACT_BREAKERS)
def test_a_wrong_fact_breaks_no_rule_of_form(mutation, checks):
    """So the rules measure different things: only the fact rule falls for a short, well-formed, wrong answer."""
    short = [(item, text) for _, item, text in TURNS if len(text.split()) <= 40]
    assert len(short) > 100
    for item, text in short:
        wrong = FACT_BREAKERS[mutation](text)
        broken = {name for name, check in checks.items() if not check(wrong, item)}
        assert broken == {"facts_only"}


@pytest.mark.parametrize(
    ("question", "completion"),
    [
        ("How long can I return it?", "Refunds are possible within 60 days of delivery."),
        ("How long can I return it?", "Refunds are possible within 30 working days of delivery."),
        ("What is Glow?", "Glow costs $4 per year."),
        ("What is Glow?", "Glow costs $9.99 per month."),
        ("How many sensors can I use?", "Ember supports up to 8 sensors."),
        ("How do I cancel?", "A plan is cancelled under Settings > Billing > Cancel plan."),
        ("Which alerts are there?", "The alerts are Frost, Overheat and Humidity."),
        ("Where do I write to?", "Support answers at help@hearthlog.com."),
        ("Which Wi-Fi?", "The hub uses 2.4 GHz and 6 GHz Wi-Fi."),
        ("How cold is too cold?", "Frost triggers below 41 degrees Celsius."),
        ("Who can invite?", "Only the Administrator can invite members."),
    ],
)
def test_a_plausible_wrong_answer_is_caught(question, completion, checks):
    item = CheckItem([{"role": "user", "content": question}])
    assert not checks["facts_only"](f"{completion}\nNext step: Open Settings > Plan.", item)


def test_a_true_sentence_about_the_wrong_thing_passes_which_is_the_known_limit(checks):
    """The fact rule sees what is named, not what is claimed: `contains_reference` covers this on the test prompts."""
    item = CheckItem([{"role": "user", "content": "How long does an invitation last?"}], "72 hours")
    completion = "An invitation expires after 48 hours."
    assert checks["facts_only"](completion, item)
    assert not build_check("contains_reference", {})(completion, item)
