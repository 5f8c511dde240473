"""What a result was computed with: interpreter, machine, library versions and the state of the source."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from importlib.util import find_spec
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
_CUDA = re.compile(r"""^cuda\b[^=]*= *['"](?P<version>[\d.]+)['"]""", re.MULTILINE)


def environment() -> dict[str, object]:
    """Describe the process for a manifest. Versions are read from package metadata, so nothing heavy is imported."""
    project = project_root(Path.cwd())
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        **gpus(),
        "cuda": cuda_version(),
        "libraries": library_versions(LIBRARIES),
        "source": source_state(SOURCE_ROOT),
        "project": None if project is None else source_state(project, untracked=False),
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


def gpus() -> dict[str, object]:
    """Return the names of this machine's GPUs, and their driver; torch, which is slow to import, is not asked."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    lines = (_printed(command) or "").splitlines() if shutil.which(command[0]) else []
    found = [[part.strip() for part in line.rsplit(",", 1)] for line in lines if "," in line]
    return {"gpus": [name for name, _ in found], "gpu_driver": found[0][1] if found else None}


def cuda_version() -> str | None:
    """Return the CUDA version that torch was built for, from the file in which it says so; None for other builds."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return None
    try:
        text = Path(torch.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    told = _CUDA.search(text)
    return told["version"] if told else None


def project_root(folder: Path) -> Path | None:
    """Return the git repository that a folder is in, where it is another than that of this code."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    root = Path(top.strip()) if top and top.strip() else None
    return None if root == SOURCE_ROOT else root


def source_state(root: Path, *, untracked: bool = True) -> dict[str, object] | None:
    """Return the commit of a checkout and whether files differ from it, or None where there is none.

    Args:
        root: Its top.
        untracked: Whether files that git does not know count; in a project's folder they are mostly outputs.
    """
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", f"--untracked-files={'normal' if untracked else 'no'}")
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
    """Return what git prints, or None where there is no git, no commit, or no answer."""
    return _printed(["git", "-C", str(root), *arguments])


def _printed(command: list[str]) -> str | None:
    """Return what a command prints, or None where it is not there, fails, or takes more than ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
