"""The words that name several values, wherever they stand."""

from __future__ import annotations

import pytest

from pipeline.config.space import Axis, axes_and_rest, require_method, space_axes
from pipeline.config.sweep import SweepMethod
from pipeline.errors import ConfigError


def test_overrides_with_several_values_are_told_from_those_with_one() -> None:
    axes, rest = axes_and_rest(
        ["+experiment=sft", "dpo.beta=0.1,0.5", "seed=range(1,4)", "sft.lora.targets=[q,v],[all-linear]"], {}
    )
    assert rest == ["+experiment=sft"]
    assert [(axis.key, axis.choices) for axis in axes] == [
        ("dpo.beta", ("0.1", "0.5")), ("seed", ("1", "2", "3")), ("sft.lora.targets", ("[q,v]", "[all-linear]")),
    ]  # fmt: skip
    assert axes[2].described() == {"choices": [["q", "v"], ["all-linear"]]}


def test_intervals_keep_their_scale_and_kind() -> None:
    axes, _ = axes_and_rest(["a=tag(log,interval(1e-5,1e-3))", "b=int(interval(4,64))", "c=interval(0,1)"], {})
    assert [axis.described() for axis in axes] == [
        {"low": 1e-5, "high": 1e-3, "log": True, "integer": False},
        {"low": 4, "high": 64, "log": False, "integer": True},
        {"low": 0.0, "high": 1.0, "log": False, "integer": False},
    ]
    assert [axis.first for axis in axes] == ["1e-05", "4", "0.0"]


def test_a_glob_is_what_matches_among_the_files_of_a_group() -> None:
    axes, _ = axes_and_rest(["+experiment=glob(*po)"], {"experiment": ["curate", "dpo", "ppo", "sft"]})
    assert axes == [Axis(key="+experiment", choices=("dpo", "ppo"))]
    with pytest.raises(ConfigError, match="nothing matches"):
        axes_and_rest(["+experiment=glob(x*)"], {"experiment": ["sft"]})


@pytest.mark.parametrize("text", ["a=interval(2,1)", "a=tag(log,interval(0,1))"])
def test_an_interval_without_room_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="from a lower to a higher"):
        axes_and_rest([text], {})


def test_values_may_depend_on_another_key() -> None:
    space = {"dpo.beta": {"by": "dpo.loss", "simpo": "1,2", "default": "tag(log,interval(0.02,0.5))"}}
    axes, problems = space_axes(space, {"dpo": {"loss": "simpo"}}, set())
    assert (axes, problems) == ([Axis(key="dpo.beta", choices=("1", "2"))], [])
    axes, _ = space_axes(space, {"dpo": {"loss": "sigmoid"}}, set())
    assert axes == [Axis(key="dpo.beta", low=0.02, high=0.5, log=True)]
    axes, _ = space_axes(space, {"dpo": {"loss": {"sigmoid": 1, "sft": 0.2}}}, set())  # a mix is no key
    assert axes[0].high == 0.5
    _, problems = space_axes(space, {"dpo": {"loss": "simpo"}}, {"dpo.loss"})
    assert problems == [
        "sweep.space.dpo.beta: depends on dpo.loss, which is swept as well. Run one sweep for each value of dpo.loss."
    ]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ("0.1", "name several values"),
        ("interval(", "no viable alternative|mismatched|extraneous|token"),
        ({"by": "dpo.los", "default": "1,2"}, "names no key"),
        ({"by": "dpo.loss", "ipo_sum": "1,2"}, "says nothing about dpo.loss=sigmoid"),
    ],
)
def test_what_is_no_space_is_told_with_its_key(values: object, told: str) -> None:
    axes, problems = space_axes({"dpo.beta": values}, {"dpo": {"loss": "sigmoid"}}, set())
    assert axes == []
    assert len(problems) == 1
    with pytest.raises(AssertionError, match=f"sweep.space.dpo.beta: .*({told})"):
        raise AssertionError(problems[0])


def test_an_interval_has_no_grid() -> None:
    wide = [Axis(key="a", choices=("1", "2")), Axis(key="b", low=0, high=1)]
    with pytest.raises(ConfigError, match=r"^b: an interval has no grid"):
        require_method(wide, SweepMethod.grid)
    require_method(wide, SweepMethod.random)
    require_method(wide[:1], SweepMethod.grid)
