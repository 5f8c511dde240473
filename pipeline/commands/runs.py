"""`runs list`, `verify`, `prune`, `sync` and `workspace`: what lies below ``runtime.outputs``, and where it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.checkpoints import CheckpointFolder
from pipeline.artifacts.locks import describe_holder, is_locked
from pipeline.artifacts.store import Store
from pipeline.artifacts.work import CHECKPOINTS
from pipeline.config.shared import RuntimeConfig
from pipeline.config.suggestions import near_miss
from pipeline.errors import ArtifactError, ConfigError
from pipeline.graph.lineage import delete, folder_bytes, newest_change, run_folders, unreached, verify, work_folders
from pipeline.graph.run_folder import linked_ids

USAGE = (
    "Usage: python -m pipeline runs list | verify [ID ...] | prune [--apply] | sync | workspace SWEEP, then "
    "runtime.outputs=DIR."
)
KEEP_WORK_DAYS = 30  # half-finished work that nobody went on with for so long is a leftover


@dataclass(frozen=True, kw_only=True)
class Request:
    """A command line of `runs`."""

    action: str
    words: list[str]
    apply: bool
    overrides: dict[str, str]

    @property
    def store(self) -> Store:
        """The folder that ``runtime.outputs`` names."""
        return Store(Path(self.overrides.get("runtime.outputs", RuntimeConfig().outputs)))


def run_command(arguments: list[str]) -> int:
    """Run one action of `runs` and return its exit status."""
    request = parse(arguments)
    if request.action == "list":
        return list_all(request.store)
    if request.action == "verify":
        return verify_all(request.store, request.words)
    if request.action == "prune":
        return prune(request.store, apply=request.apply)
    if request.action == "workspace":
        return save_sweep_view(request.store, request.words)
    from pipeline.tracking.delivery import sync

    deliveries = sync(request.store.outputs)
    if not deliveries:
        print(f"nothing to deliver in {request.store.outputs / 'runs'}")
    return 0


def parse(arguments: list[str]) -> Request:
    """Read the command line: an action, words, ``--apply``, and overrides after the words.

    Raises:
        ConfigError: There is no such action, or something does not belong to it.
    """
    action, *rest = arguments or [""]
    if action not in {"list", "verify", "prune", "sync", "workspace"}:
        raise ConfigError(f"There is no action {action!r} of `runs`. {USAGE}")
    words = [argument for argument in rest if "=" not in argument and not argument.startswith("-")]
    flags = [argument for argument in rest if argument.startswith("-")]
    pairs = [argument for argument in rest if "=" in argument and not argument.startswith("-")]
    overrides = dict(pair.split("=", 1) for pair in pairs)
    wrong = [flag for flag in flags if (action, flag) != ("prune", "--apply")]
    wrong += [key for key in overrides if key != "runtime.outputs"]
    wrong += words if action not in ("verify", "workspace") else words[1:] if action == "workspace" else []
    if action == "workspace" and not words:
        raise ConfigError(f"`runs workspace` needs the name of a sweep, or its folder. {USAGE}")
    if wrong:
        raise ConfigError(f"`runs {action}` does not take {', '.join(wrong)}. {USAGE}")
    return Request(action=action, words=words, apply="--apply" in flags, overrides=overrides)


def save_sweep_view(store: Store, words: Sequence[str]) -> int:
    """Save a view of a sweep among W&B's own pages and print where it is."""
    from pipeline.sweeps.record import RECORD, read_sweep
    from pipeline.tracking.workspace import save_workspace, sweep_view

    runs = store.outputs / "runs"
    named = Path(words[0])
    folder = named if named.is_dir() else runs / words[0]
    if not (folder / RECORD).is_file():
        near = near_miss(words[0], sorted(path.parent.name for path in runs.glob(f"*/{RECORD}")))
        raise ConfigError(f"`runs workspace {words[0]}`: {folder} holds no {RECORD}, so it is no sweep.{near}")
    record = read_sweep(folder)
    parameters = {key.lstrip("+"): bool(axis.get("log")) for key, axis in record.space.items()}  # a choice has no scale
    folders = [record.path.parent / trial.folder for trial in record.trials]
    view = sweep_view(record.name, folders, parameters, record.objectives)
    print(f"{record.name}: {save_workspace(view, record.path / 'wandb')}")
    return 0


def list_all(store: Store) -> int:
    """Print runs, artifacts and half-finished work."""
    now = time.time()
    runs = [
        [_below(store.outputs / "runs", run), str(len(linked_ids(run))), _report(run), age(now - newest_change(run))]
        for run in run_folders(store)
    ]
    print_table("RUN ARTIFACTS REPORT AGE", runs, nothing=f"no runs in {store.outputs / 'runs'}")
    artifacts = [_artifact_row(store, path, now) for path in store.folders()]
    aside = sorted(store.artifact_root.glob("corrupt-*")) if store.artifact_root.is_dir() else []
    artifacts += [[path.name, "?", "?", "set aside", size(folder_bytes(path)), "?"] for path in aside]
    print_table("ARTIFACT KIND STAGE STATE SIZE AGE", artifacts, nothing=f"no artifacts in {store.artifact_root}")
    work = []
    for path in work_folders(store):
        lock = store.lock_of(path)
        state = f"worked on by {describe_holder(lock)}" if is_locked(lock) else "half-finished"
        steps = CheckpointFolder(path / CHECKPOINTS).steps()
        at = f"step {steps[-1]}" if steps else "-"
        work.append([path.name, state, at, size(folder_bytes(path)), age(now - newest_change(path))])
    if work:
        print_table("WORK STATE CHECKPOINT SIZE AGE", work)
    return 0


def verify_all(store: Store, references: Sequence[str]) -> int:
    """Re-hash, print one line per artifact, and return 4 if anything is wrong."""
    verdicts = verify(store, references)
    for verdict in verdicts:
        print(f"{'wrong' if verdict.problems else 'intact':<7} {verdict.id}  ({verdict.kind})")
        for problem in verdict.problems:
            print(f"        {problem}")
    wrong = sum(bool(verdict.problems) for verdict in verdicts)
    print(f"{len(verdicts)} artifacts verified in {store.artifact_root}: {len(verdicts) - wrong} intact, {wrong} wrong")
    return ArtifactError.exit_status if wrong else 0


def prune(store: Store, *, apply: bool) -> int:
    """Print what nothing reaches and its size; delete it only with ``--apply``."""
    leftovers = unreached(store, now=time.time(), keep_work_days=KEEP_WORK_DAYS)
    rows = [[item.path.name, item.reason, size(item.num_bytes), f"{item.num_bytes:,}"] for item in leftovers]
    print_table("LEFTOVER REASON SIZE BYTES", rows, nothing="nothing to prune: a run links to every artifact")
    total = sum(item.num_bytes for item in leftovers)
    if apply:
        delete(store, leftovers)
        print(f"deleted {len(leftovers)} folders, {total:,} bytes")
    elif leftovers:
        print(f"{len(leftovers)} folders, {total:,} bytes would be deleted. Add --apply to delete them.")
    return 0


def print_table(header: str, rows: Sequence[Sequence[str]], nothing: str = "") -> None:
    """Print rows under a header of one-word columns, each as wide as its longest cell."""
    if not rows:
        print(nothing)
        return
    lines = [header.split(), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def size(num_bytes: int) -> str:
    """Return a size in the unit that reads best."""
    amount, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def age(seconds: float) -> str:
    """Return a span of time in the unit that reads best."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _artifact_row(store: Store, path: Path, now: float) -> list[str]:
    try:
        artifact = Artifact.open(path, verify=False)
    except ArtifactError:
        return [path.name, "?", "?", "corrupt", size(folder_bytes(path)), "?"]
    # Sizes are compared here; `runs verify` hashes.
    sound = all(_has_size(path / name, record.bytes) for name, record in artifact.manifest.files.items())
    state = "corrupt" if not sound else "current" if store.is_current(artifact) else "sealed"
    created = datetime.fromisoformat(artifact.manifest.created).timestamp()
    return [path.name, artifact.kind, artifact.manifest.stage, state, size(artifact.num_bytes()), age(now - created)]


def _has_size(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _report(run: Path) -> str:
    return "yes" if (run / "report.json").is_file() else "no"


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
