"""Reading ``items.json``, in which `items` keeps every metric item by item. Imports little, to compare runs fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError

ITEMS_FILE = "items.json"
FORMAT_VERSION = 1


def read_items(path: Path) -> dict[str, Any]:
    """Return the suites of an ``items.json``.

    Raises:
        ArtifactError: It is not JSON, or of another format version.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ArtifactError(f"{path} holds no items: {error}. Run the evaluation again.") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has the format version {version!r}, and this program reads {FORMAT_VERSION}. "
            "Run the evaluation again."
        )
    suites: dict[str, Any] = content["suites"]
    return suites
