"""Where the project's own files are: in a checkout, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]


def project_folder() -> Path:
    """Return the folder that holds ``configs/`` and ``data/``."""
    for folder in (PACKAGE.parent, PACKAGE / "_project"):
        if (folder / "configs" / "train.yaml").is_file():
            return folder
    raise ConfigError(
        f"No configs/train.yaml beside {PACKAGE.name}/. Install the project with `python -m pip install -e .`."
    )


def configs_folder() -> Path:
    """Return the folder of YAML files."""
    return project_folder() / "configs"


def find_file(path: str) -> Path:
    """Return a path from a configuration as the working directory sees it, else as the project does."""
    direct = Path(path).expanduser()
    return direct if direct.exists() or direct.is_absolute() else project_folder() / path
