"""What a configuration field is made of."""

from __future__ import annotations

import omegaconf

from pipeline.config.fields import MISSING


def test_a_value_that_must_be_given_is_the_one_that_omegaconf_asks_for() -> None:
    assert MISSING == omegaconf.MISSING
    assert omegaconf.OmegaConf.is_missing(omegaconf.OmegaConf.create({"key": MISSING}), "key")
