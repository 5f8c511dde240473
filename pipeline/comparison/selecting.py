"""Which runs are meant: folders, globs, sweeps, beginnings of names, and groups of a tracking server."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.artifacts.store import Store
from pipeline.comparison.mirrored_runs import offline_runs, online_runs
from pipeline.comparison.records import RunRecord, read_run
from pipeline.comparison.sweeps import trials_of
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError
from pipeline.graph.lineage import run_folders, run_folders_below
from pipeline.sweeps.record import RECORD, SweepRecord, read_sweep
from pipeline.tracking.mirrored import CLIENT_FOLDER, SPEC_SUFFIX, MirroredRun

REMOTE = "wandb:"
GROUP = "group:"
MAGIC = frozenset("*?[")


@dataclass(kw_only=True)
class Chosen:
    """The runs to compare, in the order in which they were named."""

    runs: list[RunRecord] = field(default_factory=list)
    sweeps: list[SweepRecord] = field(default_factory=list)

    def add(self, runs: Sequence[RunRecord]) -> None:
        """Add those that are not there yet."""
        known = {run.place for run in self.runs}
        self.runs += [run for run in runs if run.place not in known or run.folder is None]


def choose(words: Sequence[str], outputs: Path) -> Chosen:
    """Return the runs that the words name; every run below the outputs where there are none.

    Args:
        words: Paths, globs, names below ``outputs/runs`` or their beginnings, ``group:NAME`` among those,
            ``group:FOLDER/NAME`` among what lies in a folder, and ``wandb:ENTITY/PROJECT/GROUP``.
        outputs: The folder of all state.

    Raises:
        ConfigError: A word names nothing; all such words are told at once.
    """
    chosen, problems = Chosen(), []
    if not words:
        chosen.add([read_run(folder) for folder in run_folders(Store(outputs))])
    for word in words:
        if word.startswith(REMOTE):
            chosen.add(online_runs(word.removeprefix(REMOTE)))
            continue
        if word.startswith(GROUP):
            found, problem = _grouped(word, outputs)
            problems += [problem] if problem else []
            chosen.add(found)
            continue
        folders, problem = _folders(word, outputs)
        problems += [problem] if problem else []
        for folder in folders:
            _add_folder(chosen, folder)
    if problems:
        raise ConfigError("\n".join(problems))
    if not chosen.runs:
        raise ConfigError(f"There is no run in {outputs / 'runs'}. Name a run folder, or set runtime.outputs=DIR.")
    return chosen


def _add_folder(chosen: Chosen, folder: Path) -> None:
    if (folder / RECORD).is_file():
        sweep = read_sweep(folder)
        chosen.sweeps.append(sweep)
        chosen.add(trials_of(sweep))
    elif _is_run(folder):
        chosen.add([read_run(folder)])
    elif not run_folders_below(folder) and (offline := sorted(path.parent for path in folder.rglob("*.wandb"))):
        chosen.add(offline_runs(offline))
    else:
        chosen.add([read_run(path) for path in run_folders_below(folder)])


def _grouped(word: str, outputs: Path) -> tuple[list[RunRecord], str | None]:
    """Return the runs of a tracking group, or why there are none."""
    place, slash, name = word.removeprefix(GROUP).rpartition("/")
    folder, pool = Path(place or "/").expanduser() if slash else outputs / "runs", Chosen()
    if folder.is_dir():
        _add_folder(pool, folder)
    groups: dict[str, list[RunRecord]] = {}
    for run in pool.runs:
        groups.setdefault(_group_of(run), []).append(run)
    if name in groups:
        return groups[name], None
    return [], f"`{word}`: no run in {folder} is of the group {name!r}.{near_miss(name, groups)}"


def _group_of(run: RunRecord) -> str:
    """Return the group as W&B was told it; of a run that was not mirrored that of its configuration, or its name."""
    if run.folder is None:
        return run.group
    mirrored = next(iter(sorted((run.folder / CLIENT_FOLDER).glob(f"*{SPEC_SUFFIX}"))), None)
    return MirroredRun.load(mirrored).group if mirrored else run.config.get("tracking.group") or run.name


def _folders(word: str, outputs: Path) -> tuple[list[Path], str | None]:
    """Return the folders that a word names, or why there are none."""
    runs = outputs / "runs"
    if MAGIC & set(word):
        found = [Path(path) for path in glob.glob(word)] or list(runs.glob(word))  # noqa: PTH207  (absolute ones too)
        folders = sorted(path for path in found if path.is_dir() and _holds_runs(path))
        return folders, None if folders else f"`{word}`: no run folder matches, neither here nor in {runs}."
    path = Path(word).expanduser()
    if path.is_dir():
        if _holds_runs(path):
            return [path], None
        return [], f"`{word}`: that folder holds no run: no config.yaml, sweep.json or offline W&B run below it."
    if path.exists():
        return [], f"`{word}` is a file. Name the run's folder."
    known = sorted(entry.name for entry in runs.iterdir() if entry.is_dir()) if runs.is_dir() else []
    begins = [name for name in known if name.startswith(word)]
    if word in known:
        return [runs / word], None
    if begins:
        return [runs / name for name in begins], None
    return (
        [],
        f"`{word}`: there is no such run, folder or sweep, and nothing in {runs} begins so.{near_miss(word, known)}",
    )


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() or (folder / "artifacts.json").is_file()


def _holds_runs(folder: Path) -> bool:
    own = _is_run(folder) or (folder / RECORD).is_file()
    return own or any(True for name in ("config.yaml", "artifacts.json", "*.wandb") for _ in folder.rglob(name))
