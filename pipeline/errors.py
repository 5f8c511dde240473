"""Every error that a user can cause or meet, and the exit status it ends with.

Tree::

    PipelineError              1   the base: never raised itself
    ├── ConfigError            2   a value, a key or a combination of them is wrong
    ├── DataError              3   rows cannot be read, or too few are left
    ├── ArtifactError          4   a sealed folder is missing, damaged or of the wrong kind
    │   └── CheckpointError    5   checkpoints exist and none of them verifies
    ├── LockError              6   another process holds what this one needs
    ├── StorageError           7   the disk is full or read-only
    ├── ModelError             8   a model is unsafe to load, or does not fit what is asked of it
    ├── TrackingError          9   delivery to the tracking server failed where it was asked for by name
    ├── LabelServerError      10   the labeling server cannot be reached, refuses, or answers with something else
    ├── EndpointError         11   an HTTP model refuses the key or the request, or the cost cap is reached
    ├── TrainingDivergedError 17   the loss or the gradients stopped being finite
    ├── GateFailedError       30   a hard gate failed; the run and its report are complete
    └── GateUndecidedError    31   no hard gate failed, and one is inconclusive; the run and its report are complete
    Interrupted          130, 143  a signal asked the run to stop; what was done is saved

A message says what is wrong, where (``file:line`` or the configuration key) and what to do next.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of the errors that end a command with one message instead of a traceback."""

    exit_status = 1


class ConfigError(PipelineError):
    """A configuration value, key or combination is wrong. Raised before anything heavy is imported."""

    exit_status = 2


class DataError(PipelineError):
    """Rows cannot be read, or a table that a stage needs is empty."""

    exit_status = 3


class ArtifactError(PipelineError):
    """A sealed folder is missing, damaged, or of another kind than was asked for."""

    exit_status = 4


class CheckpointError(ArtifactError):
    """Checkpoints of a half-finished stage exist and none of them verifies."""

    exit_status = 5


class LockError(PipelineError):
    """Another process holds the work folder and was not waited for."""

    exit_status = 6


class StorageError(PipelineError):
    """The disk is full or cannot be written; what was sealed before is intact."""

    exit_status = 7


class ModelError(PipelineError):
    """A model is unsafe to load, missing, or does not fit what the configuration asks of it."""

    exit_status = 8


class TrackingError(PipelineError):
    """Delivery to the tracking server failed in a command whose purpose it was."""

    exit_status = 9


class LabelServerError(PipelineError):
    """The labeling server cannot be reached, refuses what is asked of it, or answers with something else."""

    exit_status = 10


class EndpointError(PipelineError):
    """An HTTP model refuses the key or the request, does not answer, or would cost more than it may."""

    exit_status = 11


class TrainingDivergedError(PipelineError):
    """The loss or the gradients were not finite for several optimizer steps in a row."""

    exit_status = 17


class GateFailedError(PipelineError):
    """A hard gate failed. Everything was made and sealed all the same."""

    exit_status = 30


class GateUndecidedError(PipelineError):
    """No hard gate failed, and the items do not decide one of them. Everything was made and sealed all the same."""

    exit_status = 31


class Interrupted(PipelineError):
    """A signal asked the run to stop. Everything up to the last optimizer step is saved."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        """Keep the signal, so that the exit status is the shell's ``128 + signal``."""
        super().__init__(message)
        self.exit_status = 128 + signal_number
