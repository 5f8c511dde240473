"""What a result was computed with: interpreter, machine, library versions and the state of the source."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "hydra-core",
    "numpy",
    "omegaconf",
    "peft",
    "pyarrow",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "wandb",
)
MAX_DIFFERENCE = 1 << 20  # characters
SOURCE_ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, object]:
    """Describe the process for a manifest. Versions are read from package metadata, so nothing heavy is imported."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "libraries": library_versions(LIBRARIES),
        "source": source_state(SOURCE_ROOT),
    }


def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Return the full version of every named distribution that is installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # optional ones are left out, which is what their absence means
            continue
    return versions


def cpu_name() -> str:
    """Return the processor's model name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def source_state(root: Path) -> dict[str, object] | None:
    """Return the commit of the checkout that this code runs from and whether files differ from it, or None."""
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain")
    if commit is None or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def source_difference(root: Path) -> str | None:
    """Return what tracked files change in the commit, up to `MAX_DIFFERENCE`; None where there is nothing to tell."""
    if not (root / ".git").exists():
        return None
    difference = _git(root, "diff", "HEAD", "--no-color", "--no-ext-diff")
    if difference and len(difference) > MAX_DIFFERENCE:
        return f"{difference[:MAX_DIFFERENCE]}\n... cut off; all of it has {len(difference)} characters\n"
    return difference or None


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git prints, or None where there is no git, no commit, or no answer within ten seconds."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
