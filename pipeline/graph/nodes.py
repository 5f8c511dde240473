"""What a run consists of before it runs: nodes, and where each takes its inputs from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.shared import ModelConfig
from pipeline.graph.spec import StageSpec


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one input comes from: a node of this run, an artifact that exists already, or (neither) the base."""

    label: str  # what it is called in the report and in explanations
    node: str | None = None
    reference: str | None = None  # artifact id, its beginning, or a path
    key: str = ""  # the configuration key that named the reference


@dataclass(frozen=True, kw_only=True)
class Node:
    """One stage to run or to reuse."""

    name: str  # unique in the run; also the name of its link in the run folder
    stage: str  # the stage of the configuration it belongs to, which `force` names
    spec: StageSpec
    inputs: Mapping[str, tuple[Source, ...]]  # an empty tuple is an absent input
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # role -> parts, where narrower than the spec
    # Role -> parts which are read alone where the input has any of them: nothing else of it matters then.
    preferred: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    required: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # role -> parts it cannot run without
    needed_by: str = ""  # what needs the required parts, for the message that one is missing
    params: Mapping[str, Any] = field(default_factory=dict)  # for the stage function
    files: Mapping[str, str] = field(default_factory=dict)  # what a file is to the node -> its path; contents count
    identity: Mapping[str, Any] = field(default_factory=dict)  # what of the params enters the fingerprint
    model: ModelConfig | None = None  # a base model of its own, where it is not the run's
    adapter: Path | None = None  # a folder with an adapter that no stage made


def safe_name(name: str) -> str:
    """Return a name that is one plain path component."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"
