"""Walking artifacts back to the data they were made from, and finding those that nothing leads to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.locks import describe_holder, is_locked
from pipeline.artifacts.store import Store
from pipeline.artifacts.temporary import discard, maker_of
from pipeline.errors import ArtifactError, LockError
from pipeline.graph.run_folder import linked_ids
from pipeline.tracking.mirrored import CLIENT_FOLDER


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What re-hashing one artifact and following its parents found."""

    id: str
    kind: str
    problems: list[str]


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something that nothing reaches, and why."""

    path: Path
    num_bytes: int
    reason: str


def verify(store: Store, references: Iterable[str]) -> list[Verdict]:
    """Hash every file of the named artifacts and of all their ancestors again; of all artifacts if none is named."""
    waiting = [_folder(store, reference) for reference in references] or store.folders()
    verdicts: dict[str, Verdict] = {}
    while waiting:
        path = waiting.pop(0)
        if path.name in verdicts:
            continue
        verdicts[path.name], parents = _verdict(store, path)
        waiting += parents
    return list(verdicts.values())


def unreached(store: Store, *, now: float, keep_work_days: int) -> list[Leftover]:
    """List what may go, so that deleting in this order never leaves an artifact without its parents.

    Kept are the artifacts that a run folder links to with all their ancestors, and half-finished work that was touched
    in the last ``keep_work_days`` days or that a process holds.
    """
    artifacts = {artifact.id: artifact for artifact in store.artifacts()}
    waiting = [name for run in run_folders(store) for name in linked_ids(run).values()]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in artifacts and name not in reached:
            reached.add(name)
            waiting += [parent.id for parent in artifacts[name].manifest.parents]
    found = [
        Leftover(path=artifact.path, num_bytes=folder_bytes(artifact.path), reason="no run links to it")
        for artifact in reversed(artifacts.values())  # what is made later can only be made from what was there
        if artifact.id not in reached
    ]
    aside = sorted(store.artifact_root.glob("corrupt-*")) if store.artifact_root.is_dir() else []
    found += [Leftover(path=path, num_bytes=folder_bytes(path), reason="set aside as corrupt") for path in aside]
    for path in work_folders(store):
        days = (now - newest_change(path)) / 86400
        if days > keep_work_days and not is_locked(store.lock_of(path)):
            reason = f"half-finished, untouched for {days:.0f} days"
            found.append(Leftover(path=path, num_bytes=folder_bytes(path), reason=reason))
    for folder in (store.artifact_root, store.work_root):
        for path in sorted(folder.glob("tmp-*")):
            if maker_of(path.name) and now - newest_change(path) > 86400:
                reason = "temporary, of another machine, untouched for a day"
                found.append(Leftover(path=path, num_bytes=folder_bytes(path), reason=reason))
    return found


def delete(store: Store, leftovers: Iterable[Leftover]) -> None:
    """Delete leftovers, in order.

    Raises:
        LockError: A process works in the store; what it is about to reuse could be among them.
    """
    for lock in sorted(store.work_root.glob("*.lock")):
        if is_locked(lock):
            raise LockError(f"{lock.stem} is being made by {describe_holder(lock)}. Prune when it is done.")
    for leftover in leftovers:
        discard(leftover.path)
    for lock in sorted(store.work_root.glob("*.lock")):
        if not lock.with_suffix("").exists():  # whoever takes such a lock meanwhile sees that its file is gone
            lock.unlink()
    for pointer in sorted(store.artifact_root.glob("*.current")):
        if not (store.artifact_root / pointer.read_text(encoding="utf-8").strip()).is_dir():
            pointer.unlink()


def run_folders(store: Store) -> list[Path]:
    """Return the folders of all invocations, oldest first; a sweep holds one per job."""
    root = store.outputs / "runs"
    if not root.is_dir():
        return []
    return run_folders_below(root)


def run_folders_below(root: Path) -> list[Path]:
    """Return the folders of invocations below a folder, by name; those of W&B's client look alike and are none."""
    found = {path.parent for name in ("artifacts.json", "config.yaml") for path in root.rglob(name)}
    return sorted(path for path in found if CLIENT_FOLDER not in path.relative_to(root).parts)


def work_folders(store: Store) -> list[Path]:
    """Return the half-finished work, by name."""
    if not store.work_root.is_dir():
        return []
    return sorted(p for p in store.work_root.iterdir() if p.is_dir() and not p.name.startswith("tmp-"))


def folder_bytes(path: Path) -> int:
    """Return the size of everything below a folder."""
    return sum(p.lstat().st_size for p in [path, *path.rglob("*")] if not p.is_dir() or p.is_symlink())


def newest_change(path: Path) -> float:
    """Return when something below a folder was last written, in seconds since 1970."""
    return max(p.lstat().st_mtime for p in [path, *path.rglob("*")])


def _folder(store: Store, reference: str) -> Path:
    """Return the folder of an artifact that may be damaged."""
    matches = [path for path in store.folders() if path.name.startswith(reference)]
    return matches[0] if len(matches) == 1 else store.open(reference).path


def _verdict(store: Store, path: Path) -> tuple[Verdict, list[Path]]:
    try:
        artifact = Artifact.open(path, verify=False)
    except ArtifactError as error:
        return Verdict(id=path.name, kind="?", problems=[str(error)]), []
    problems = artifact.problems()
    problems += [f"{name} is not in the manifest, so nobody vouches for it" for name in artifact.unlisted_files()]
    parents = []
    for parent in artifact.manifest.parents:
        folder = store.artifact_root / parent.id
        if not folder.is_dir():
            problems.append(f"its {parent.role} {parent.id} ({parent.kind}) is missing")
            continue
        parents.append(folder)
        try:
            parts = Artifact.open(folder, verify=False).manifest.parts
        except ArtifactError:  # reported as a verdict of its own
            continue
        changed = [name for name, digest in parent.part_digests.items() if parts.get(name) != digest]
        problems += [
            f"part {name} of its {parent.role} {parent.id} is not the one it was made from" for name in changed
        ]
    return Verdict(id=path.name, kind=artifact.kind, problems=problems), parents
