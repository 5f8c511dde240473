"""A hundred thousand mutated inputs: no crash, no lost row, no other rows in another order."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_inputs.fuzzing import Fuzzer

NUM_INPUTS = 100_000


@pytest.mark.integration
def test_a_hundred_thousand_mutated_inputs_break_nothing(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    fuzzer = Fuzzer(inner, seed=2026)
    names = {path.name for path in inner.iterdir()}
    for _ in range(NUM_INPUTS):
        fuzzer.step()
    assert sum(fuzzer.outcomes.values()) == NUM_INPUTS
    # It reaches both what is read and what is refused, and writes nowhere but over its own inputs.
    assert min(fuzzer.outcomes[name] for name in ("some rows", "no rows", "file: DataError", "votes: read")) > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert {path.name for path in inner.iterdir()} <= names | {case.file for case in fuzzer.cases}
