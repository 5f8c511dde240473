"""The order of rows over a whole run, and the steps at which it validates and saves."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from pipeline.stages.course import Course, make_milestones
from pipeline.stages.order import epoch_ends, num_optimizer_steps, training_order


def lengths(count: int, seed: int = 0) -> list[int]:
    generator = random.Random(seed)
    return [generator.randint(5, 500) for _ in range(count)]


def batches(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(("rows", "epochs", "batch_size"), [(64, 2, 8), (61, 3, 8), (5, 3, 16), (1, 1, 1), (999, 1, 7)])
def test_every_epoch_visits_every_row_once(rows: int, epochs: int, batch_size: int, grouped: bool) -> None:
    order = training_order(lengths(rows), num_epochs=epochs, batch_size=batch_size, seed=3, group_by_length=grouped)
    for epoch in range(epochs):
        assert sorted(order[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_the_order_is_a_function_of_the_seed_and_differs_between_epochs() -> None:
    first, again, other = (
        training_order(lengths(64), num_epochs=2, batch_size=8, seed=seed, group_by_length=True) for seed in (3, 3, 4)
    )
    assert first == again != other
    assert first[:64] != first[64:]


def test_the_order_does_not_touch_the_global_random_state() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    training_order(lengths(64), num_epochs=2, batch_size=8, seed=3, group_by_length=True)
    assert random.random() == expected


def padding(order: list[int], row_lengths: list[int], size: int) -> int:
    return sum(
        max(row_lengths[row] for row in batch) * len(batch) - sum(row_lengths[row] for row in batch)
        for batch in batches(order, size)
    )


@pytest.mark.parametrize("rows", [640, 637])
def test_grouping_leaves_little_padding_in_every_epoch(rows: int) -> None:
    row_lengths = lengths(rows)
    total = 3 * sum(row_lengths)
    grouped, shuffled = (
        training_order(row_lengths, num_epochs=3, batch_size=8, seed=3, group_by_length=by_length)
        for by_length in (True, False)
    )
    assert padding(grouped, row_lengths, 8) < 0.05 * total
    assert padding(shuffled, row_lengths, 8) > 0.5 * total  # uniform lengths: the longest of 8 is 16/9 of the mean


def test_length_does_not_follow_the_course_of_an_epoch() -> None:
    row_lengths = lengths(400)
    order = training_order(row_lengths, num_epochs=1, batch_size=8, seed=3, group_by_length=True)
    means = [sum(row_lengths[row] for row in batch) / 8 for batch in batches(order, 8)]
    position = [index - (len(means) - 1) / 2 for index in range(len(means))]
    mean = sum(means) / len(means)
    covariance = sum(a * (b - mean) for a, b in zip(position, means, strict=True))
    spread = (sum(a * a for a in position) * sum((b - mean) ** 2 for b in means)) ** 0.5
    assert abs(covariance / spread) < 0.3  # sorted batches would give 1


def test_the_longest_row_comes_first() -> None:
    row_lengths = lengths(100)
    order = training_order(row_lengths, num_epochs=2, batch_size=8, seed=3, group_by_length=True)
    assert row_lengths[order[0]] == max(row_lengths)


def test_a_batch_across_two_epochs_holds_no_row_twice() -> None:
    for seed in range(30):
        order = training_order(lengths(21), num_epochs=4, batch_size=8, seed=seed, group_by_length=True)
        assert all(max(Counter(batch).values()) == 1 for batch in batches(order, 8))


@pytest.mark.parametrize(
    ("rows", "epochs", "batch_size", "max_steps", "steps"),
    [(16, 2, 4, None, 8), (17, 2, 4, None, 9), (17, 2, 4, 3, 3), (5, 3, 16, None, 1), (5, 3, 16, 9, 1)],
)
def test_steps_are_full_batches_and_the_rest(
    rows: int, epochs: int, batch_size: int, max_steps: int | None, steps: int
) -> None:
    assert num_optimizer_steps(rows, num_epochs=epochs, batch_size=batch_size, max_steps=max_steps) == steps
    order = training_order(
        lengths(rows), num_epochs=epochs, batch_size=batch_size, seed=0, group_by_length=True, max_steps=max_steps
    )
    assert len(batches(order, batch_size)) == steps


def test_an_epoch_ends_in_the_step_that_reads_its_last_row() -> None:
    # 10 rows in batches of 4: row 10 is in batch 3, row 20 in batch 5, row 30 in batch 8 (the last, half full).
    assert epoch_ends(10, num_epochs=3, batch_size=4) == {3, 5, 8}
    assert epoch_ends(10, num_epochs=3, batch_size=4, max_steps=6) == {3, 5, 6}


def test_milestones() -> None:
    given = {"num_epochs": 3, "batch_size": 4, "max_steps": None}
    usual = make_milestones(10, **given, validate_every=None, save_every=None, has_validation=True)
    assert (usual.num_steps, usual.validate_at, usual.save_at) == (8, {3, 5, 8}, {3, 5, 8})
    often = make_milestones(10, **given, validate_every=3, save_every=2, has_validation=True)
    assert (often.validate_at, often.save_at) == ({3, 6, 8}, {2, 4, 6, 8})
    blind = make_milestones(10, **given, validate_every=3, save_every=None, has_validation=False)
    assert (blind.validate_at, blind.save_at) == (set(), {3, 6, 8})
    assert usual.epoch(5) == 2.0


def test_the_best_step_is_the_earliest_trained_one_with_the_lowest_loss() -> None:
    course = Course(validations=[(0, 1.0), (2, 3.0), (4, 2.0), (6, 2.0)])
    assert course.best_step == 4
    assert course.validations_without_improvement == 3  # nothing has beaten the policy before training
    assert Course().best_step is None
    assert Course(validations=[(0, 1.0)]).best_step is None
    assert Course(validations=[(0, 5.0), (2, 3.0), (4, 2.0)]).validations_without_improvement == 0


def test_a_course_survives_json() -> None:
    import json

    course = Course(validations=[(0, 0.1 + 0.2), (2, 3.0)], skipped_steps=2, processed_tokens=7, finished=True)
    assert Course.from_facts(json.loads(json.dumps(course.facts()))) == course
