"""Optuna behind one class: it proposes values, keeps what came of them, and says which trial is not worth its end.

The children know nothing of it. The record of the sweep says which trials there are; the study's storage is what the
sampler and the pruner learn from, and may be shared by sweeps on several machines.
"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.hashing import sha256_text
from pipeline.config.space import Axis
from pipeline.config.sweep import Pruner, SweepConfig, SweepMethod
from pipeline.errors import ConfigError, StorageError
from pipeline.sweeps.record import OVER, Trial, TrialStatus
from pipeline.tracking.redaction import Redactor

if TYPE_CHECKING:
    import optuna

STUDY_FILE = "study.db"
WORKER = "sweep"  # user attribute of a study's trial: whose it is
OPENING_PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds
UNSIGNED = timedelta(minutes=1)  # longer than from asking for a trial to writing down whose it is


class Search:
    """The study of one sweep. Used from one thread."""

    def __init__(
        self, folder: Path, config: SweepConfig, axes: Sequence[Axis], directions: Sequence[str], study: str
    ) -> None:
        """Open or create the study.

        Args:
            folder: The sweep's.
            config: Method, seed, pruner and storage.
            axes: What varies.
            directions: `minimize` or `maximize`, one per objective.
            study: Its name in a storage that several sweeps share.

        Raises:
            ConfigError: The storage cannot be opened.
        """
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config, self._axes = config, list(axes)
        self._worker = f"{platform.node()}:{folder.absolute()}"
        self._live: dict[int, optuna.trial.Trial] = {}  # proposed by this process, by number in the study
        storage = config.storage or f"sqlite:///{folder.absolute() / STUDY_FILE}"
        self._kind = storage.partition("://")[0]
        pruner = (
            optuna.pruners.MedianPruner(config.startup_trials, config.pruner_warmup)
            if config.pruner is Pruner.median
            else optuna.pruners.NopPruner()
        )
        try:
            self.study = optuna.create_study(
                storage=_open(storage),
                study_name=study,
                load_if_exists=True,
                pruner=pruner,
                directions=[optuna.study.StudyDirection[direction.upper()] for direction in directions],
            )
        except (SQLAlchemyError, ImportError, ValueError) as error:
            hint = " pip install 'finetune-pipeline[postgresql]'." if isinstance(error, ImportError) else ""
            raise ConfigError(f"sweep.storage: {self._kind} cannot be opened: {_reason(error)}.{hint}") from error

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn the loss of the storage into one error; the trials that ended are recorded all the same.

        Raises:
            StorageError: The storage does not answer.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, StorageInternalError) as error:
            raise StorageError(
                f"sweep.storage: {self._kind} does not answer any more: {_reason(error)}. Running trials were stopped "
                "and keep their work; the same command goes on once the storage answers."
            ) from error

    def take_up(self, trials: Sequence[Trial]) -> None:
        """Settle what an earlier process of this sweep proposed and did not tell the end of.

        What has ended since is told, what runs again keeps its number in the study, and so its place among the trials
        of other machines; what the process did not live to write down is closed.
        """
        import optuna

        recorded = {trial.study_number: trial for trial in trials}
        with self._answering():
            for left in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                if not self._is_left(left):
                    continue
                trial = recorded.get(left.number)
                if trial is None:
                    self.study.tell(left.number, state=optuna.trial.TrialState.FAIL)
                    continue
                self._live[left.number] = optuna.trial.Trial(self.study, left._trial_id)
                if trial.status in OVER:
                    self._tell(trial)

    def _is_left(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether a running trial is of this sweep, or of a process that died before it signed it."""
        if WORKER in trial.user_attrs:
            return bool(trial.user_attrs[WORKER] == self._worker)
        return trial.datetime_start is not None and datetime.now() - trial.datetime_start > UNSIGNED

    def num_elsewhere(self, before: int | None = None) -> int:
        """Return how many trials of the study other sweeps run or have ended.

        Args:
            before: Only those whose number in the study is smaller.
        """
        import optuna

        states = optuna.trial.TrialState
        counted = (states.RUNNING, states.COMPLETE, states.PRUNED)
        with self._answering():
            trials = self.study.get_trials(deepcopy=False, states=counted)
        elsewhere = [trial.number for trial in trials if trial.user_attrs.get(WORKER) != self._worker]
        return sum(before is None or number < before for number in elsewhere)

    def propose(self, number: int) -> tuple[int, dict[str, str]] | None:
        """Return the trial's number in the study, and a value for each axis as an override writes it.

        The random numbers depend on the seed and the number alone, so a sweep that was killed and goes on proposes what
        it would have proposed.

        Args:
            number: How many trials this sweep has.

        Returns:
            None where this sweep and the others that share the study have as many as were asked for.
        """
        import optuna

        if number + self.num_elsewhere() >= self._config.trials:
            return None
        self.study.sampler = self._sampler(number)
        with self._answering():
            trial = self.study.ask(self._distributions())
            trial.set_user_attr(WORKER, self._worker)
            # Others may have asked since the trials were counted. The storage numbers them: the last ones give way.
            if number + self.num_elsewhere(before=trial.number) >= self._config.trials:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                return None
        self._live[trial.number] = trial
        return trial.number, {axis.key: axis.text(trial.params[axis.key]) for axis in self._axes}

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        import optuna

        # Machines that share a study must not begin with the same random trials.
        whose = self._worker if self._config.storage else ""
        seed = int(sha256_text(f"{self._config.seed} {number} {whose}")[:8], 16)
        if self._config.method is SweepMethod.random:
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, n_startup_trials=self._config.startup_trials,
                constant_liar=self._config.parallel > 1 or self._config.storage is not None,
            )  # fmt: skip

    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, Any] = {}
        for axis in self._axes:
            if axis.choices:
                found[axis.key] = CategoricalDistribution(axis.choices)
            elif axis.integer:
                found[axis.key] = IntDistribution(int(axis.low), int(axis.high), log=axis.log)
            else:
                found[axis.key] = FloatDistribution(axis.low, axis.high, log=axis.log)
        return found

    def should_prune(self, trial: Trial) -> bool:
        """Whether what the trial has shown until now says that it will not be among the better ones."""
        import optuna

        if self._config.pruner is Pruner.none or not trial.intermediate:
            return False
        with self._answering():
            return bool(self.study.pruner.prune(self.study, self._frozen(trial, optuna.trial.TrialState.RUNNING)))

    def tell(self, trial: Trial) -> None:
        """Keep how a trial ended."""
        with self._answering():
            self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        import optuna

        states = optuna.trial.TrialState
        ends = {TrialStatus.finished: states.COMPLETE, TrialStatus.pruned: states.PRUNED}
        state = ends.get(trial.status, states.FAIL)
        live = self._live.pop(trial.study_number, None) if trial.study_number is not None else None
        if live is None:  # it failed or was stopped, and ran again: its number in the study is closed
            if state is not states.FAIL:
                self.study.add_trial(self._frozen(trial, state))
            return
        if len(self.study.directions) == 1:
            for ordinal, (_, value) in enumerate(trial.intermediate):
                live.report(value, ordinal)
        self.study.tell(live, trial.objectives if state is states.COMPLETE else None, state=state)

    def _frozen(self, trial: Trial, state: optuna.trial.TrialState) -> optuna.trial.FrozenTrial:
        import optuna

        single = len(self.study.directions) == 1
        return optuna.trial.create_trial(
            state=state, params=self._params(trial.overrides), distributions=self._distributions(),
            values=trial.objectives if state is optuna.trial.TrialState.COMPLETE else None,
            # By its ordinal, not its step: with another batch size an epoch has another number of steps.
            intermediate_values={n: value for n, (_, value) in enumerate(trial.intermediate)} if single else None,
            user_attrs={WORKER: self._worker},
        )  # fmt: skip

    def _params(self, overrides: Sequence[str]) -> dict[str, Any]:
        texts = dict(override.split("=", 1) for override in overrides)
        numeric = {True: int, False: float}
        return {
            axis.key: texts[axis.key] if axis.choices else numeric[axis.integer](texts[axis.key]) for axis in self._axes
        }


def _open(storage: str) -> optuna.storages.RDBStorage:
    """Connect, and make the tables where there are none.

    Of two commands that make them at the same moment one is refused a table that the other has just made. A moment
    later it finds all of them.
    """
    import optuna
    from sqlalchemy.exc import IntegrityError, ProgrammingError
    from sqlalchemy.pool import NullPool

    for pause in OPENING_PAUSES:
        # No connection stays open between two questions: nobody would close it.
        try:
            return optuna.storages.RDBStorage(storage, engine_kwargs={"poolclass": NullPool})
        except (IntegrityError, ProgrammingError):
            time.sleep(pause)
    return optuna.storages.RDBStorage(storage, engine_kwargs={"poolclass": NullPool})


def _reason(error: BaseException) -> str:
    """Return what the driver of the database said, on one line; what wraps it adds nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return Redactor().text(" ".join(str(error).split()).rstrip(".") or type(error).__name__)
