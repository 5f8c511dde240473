"""A suite with prompts of its own on a model: every row is an item, and no data set is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sft_jobs import Workshop, make_workshop, small_config

from pipeline.config.data import TableName
from pipeline.config.evaluation import SamplingConfig, SuiteConfig, SuiteKind
from pipeline.errors import DataError
from pipeline.evaluation.samples import GenerationSample, LikelihoodSample, read_samples
from pipeline.stages.samples import sample_policy


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("own"), num_train=2, num_validation=0)


def run(workshop: Workshop, suite: SuiteConfig, sample_type: type) -> list:
    with workshop.job(small_config(), name=f"{suite.name}-{suite.prompts}") as job:
        sample_policy(replace(job, params={"suite": suite, "policy_name": "base"}, inputs={"policy": []}))
        return read_samples(job.staging / "samples.jsonl", sample_type)


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_each_row_is_an_item_with_its_own_checks(workshop: Workshop, tmp_path: Path) -> None:
    checks = [{"name": "max_words", "params": {"limit": 3}}]
    rows = [{"id": f"r{number}", "frage": f"What is {number}?", "reference": checks} for number in range(5)]
    suite = SuiteConfig(
        name="mine", kind=SuiteKind.generation, prompts=write(tmp_path / "mine.jsonl", rows),
        columns={"prompt": "frage"}, sampling=SamplingConfig(max_new_tokens=4), batch_size=2,
    )  # fmt: skip
    found = run(workshop, suite, GenerationSample)
    assert [row.id for row in found] == [f"r{number}" for number in range(5)]
    assert found[3].prompt == [{"role": "user", "content": "What is 3?"}]
    assert json.loads(found[0].reference) == checks
    assert all(row.num_tokens <= 4 for row in found)


def test_texts_of_ones_own_are_scored(workshop: Workshop, tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "Say it.", "completion": "It is é."}]
    suite = SuiteConfig(
        name="texts", kind=SuiteKind.likelihood, table=TableName.demonstrations,
        prompts=write(tmp_path / "texts.jsonl", rows),
    )  # fmt: skip
    (row,) = run(workshop, suite, LikelihoodSample)
    assert row.bytes == 9  # two of them are the accented letter
    assert row.nats > 0


def test_a_bad_row_stops_the_suite(workshop: Workshop, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.jsonl", [{"prompt": "One"}, {"prompt": ""}])
    suite = SuiteConfig(name="bad", kind=SuiteKind.generation, prompts=path)
    with pytest.raises(DataError, match=r"suite bad: 1 of 2 rows of .*bad\.jsonl are bad"):
        run(workshop, suite, GenerationSample)
