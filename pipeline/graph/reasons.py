"""Why a stage runs again: what differs from the most similar artifact that there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.artifacts.store import Store
from pipeline.graph.nodes import Node

FINGERPRINT_INPUTS = "fingerprint_inputs"  # the key of a manifest's `config` that holds the table
NODE = "node"  # and the one that holds the node's name
SHOWN = 4  # changes that are spelled out; the others are counted

REUSED = "nothing it reads has changed"
FORCED = "asked for by `force`"
FIRST = "first run"


def reason_to_run(store: Store, node: Node, table: Mapping[str, Any]) -> str:
    """Say in one line why no artifact of this node fits these inputs."""
    best: list[str] | None = None
    for artifact in reversed(store.artifacts()):  # the newest of equally similar ones
        config = artifact.manifest.config
        known = config.get(FINGERPRINT_INPUTS)
        if (artifact.manifest.stage, config.get(NODE)) != (node.spec.name, node.name) or not isinstance(known, dict):
            continue
        changes = differences(known, table)
        if best is None or len(changes) < len(best):
            best = changes
    if best is None:
        return FIRST
    if not best:
        return "its artifact is no longer there"
    shown = best[:SHOWN] + ([f"and {len(best) - SHOWN} more"] if len(best) > SHOWN else [])
    return f"changed since the last one: {'; '.join(shown)}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Say what differs between two tables of inputs; digests are not printed."""
    changes = []
    for key in [*after, *(key for key in before if key not in after)]:
        if key not in before:
            changes.append(f"{key} is new" if _is_digest(after[key]) else f"{key}: now {_show(after[key])}")
        elif key not in after:
            changes.append(f"{key} is gone" if _is_digest(before[key]) else f"{key}: no longer {_show(before[key])}")
        elif before[key] != after[key]:
            told = f"{key}: {_show(before[key])} -> {_show(after[key])}"
            changes.append(f"{key} changed" if _is_digest(after[key]) or _is_digest(before[key]) else told)
    return changes


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _show(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
