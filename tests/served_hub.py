"""The hub on the loopback interface for the clients of this process, which read the environment when imported."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import HubServer


@contextmanager
def serve_hub(cache: Path, patch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve a hub that the clients of this process ask, and require that it could answer all they asked."""
    with HubServer() as server:
        point_to(server, cache, patch)
        yield server
        assert server.problems == []


def share_blob(file: Path) -> None:
    """Move a file of a snapshot to where the client puts what came through Xet: a store that all repositories share."""
    from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store

    blob, size = file.parent / file.readlink(), file.stat().st_size
    digest = hashlib.sha256(file.read_bytes()).hexdigest()  # stands for the hash of Xet
    assert publish_blob_to_shared_store(
        blob_path=os.path.normpath(blob), xet_hash=digest, cache_dir=file.parents[3], expected_size=size
    )


def point_to(server: HubServer, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the clients of this process ask this server, and nobody else."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    patch.setattr(constants, "ENDPOINT", server.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    for module in (_http, file_download):  # no waiting between two tries
        patch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None, perf_counter=time.perf_counter))
    patch.delenv("HF_TOKEN", raising=False)


def point_datasets_to(server: HubServer, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Let `datasets`, which takes a second to import, ask this server too."""
    import datasets

    patch.setattr(datasets.config, "HF_ENDPOINT", server.url)
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    patch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)  # which asks a host outside
    patch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)  # likewise
