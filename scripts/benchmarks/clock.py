"""Times a trainer's steps and counts what is in them, in the same way for every trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from pipeline.stages.finite import StepMeter


class CountingCollator:
    """Passes microbatches on and notes the tokens of each."""

    def __init__(self, collator: Any) -> None:
        """Wrap the trainer's own."""
        self.collator = collator
        self.counts: list[tuple[int, int]] = []  # (processed, supervised) tokens, in the order they are trained on

    def __getattr__(self, name: str) -> Any:
        return getattr(self.collator, name)

    def __call__(self, entries: Any) -> Any:
        """Collate and count."""
        batch = self.collator(entries)
        labels = batch.get("labels")  # TRL's batches of pairs have a mask in their place
        supervised = batch["completion_mask"] if labels is None else labels[:, 1:] != -100
        self.counts.append((int(batch["attention_mask"].sum()), int(supervised.sum())))
        return batch


class Clock(TrainerCallback):
    """Adds up the time of every step but the first, in which kernels are chosen and buffers are touched."""

    def __init__(self, meter: StepMeter | None, collator: CountingCollator) -> None:
        """`meter` is what our trainer writes into."""
        self.meter, self.collator = meter, collator
        self.seconds, self.processed, self.supervised = 0.0, 0, 0
        self.losses: list[float] = []
        self._started = 0.0
        self._now: Callable[[], float] = time.perf_counter

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step begins: its batch is there."""
        if self.meter is not None:
            self.meter.start()
        self._started = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The update is made."""
        if state.global_step > 1:
            self.seconds += self._now() - self._started
            microbatches = args.gradient_accumulation_steps
            first = (state.global_step - 1) * microbatches
            for processed, supervised in self.collator.counts[first : first + microbatches]:
                self.processed += processed
                self.supervised += supervised

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep the loss of each step."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
