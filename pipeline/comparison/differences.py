"""What tells runs apart beside their results: keys of the configuration, and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from pipeline.comparison.alignment import Candidate
from pipeline.comparison.records import RunRecord
from pipeline.config.root import Config
from pipeline.config.suggestions import section_type
from pipeline.graph.spec import STAGES

NOT_CONFIGURED = frozenset({"command", "name"})  # written beside the configuration, or no more than a name


def idle_keys(schema: type = Config, prefix: str = "") -> set[str]:
    """Return the keys that the schema marks as not affecting results."""
    hints, found = get_type_hints(schema), set()
    for entry in fields(schema):
        name, section = f"{prefix}{entry.name}", section_type(hints[entry.name])
        if not entry.metadata.get("affects_results", True):
            found.add(name)
        elif section is not None:
            found |= idle_keys(section, f"{name}.")
    return found


def config_differences(runs: Sequence[RunRecord], compared: Sequence[RunRecord]) -> dict[str, Any]:
    """Return the keys in which runs differ: those that affect results with their values, the others by name.

    Sections of stages that none of the compared runs has are left out.

    Args:
        runs: Whose values are listed.
        compared: That have to differ.
    """
    configured = [run for run in compared if run.config]
    idle, run_stages = idle_keys(), {stage for run in configured for stage in run.config.get("stages") or []}
    skipped = STAGES.keys() - run_stages if run_stages else frozenset()
    differing = {
        key: [run.config.get(key) for run in runs]
        for key in dict.fromkeys(key for run in configured for key in run.config)
        if key.partition(".")[0] not in NOT_CONFIGURED | skipped
        and len({repr(run.config.get(key)) for run in configured}) > 1
    }
    own = {key: values for key, values in differing.items() if not _is_idle(key, idle)}
    return {"keys": own, "idle": sorted(differing.keys() - own.keys())}


def lineage_differences(found: Sequence[Candidate], made_from: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return what the policies were made from, stage by stage: where all agree one id, elsewhere one per candidate.

    Args:
        found: The candidates.
        made_from: Candidate's key -> stage -> artifact id, as far as it is known on this machine.
    """
    facts: dict[str, dict[str, str]] = {}
    for candidate in found:
        provenance = (candidate.run.report or {})["provenance"]
        own = {"base": ", ".join(digest[:12] for digest in provenance["base"]), **made_from.get(candidate.key, {})}
        if provenance["datasets"]:
            own["dataset"] = ", ".join(provenance["datasets"])
        for stage, artifact in own.items():
            facts.setdefault(stage, {})[candidate.key] = artifact
    same, different = {}, {}
    for stage, ids in facts.items():
        values = set(ids.values())  # what was not made has no id, as the base has no training
        if len(values) == 1:
            same[stage] = values.pop()
        else:
            contents = {value.rpartition("-")[2] for value in values}
            different[stage] = {"ids": ids, "same_content": len(contents) == 1}
    return {"same": same, "different": different, "sentence": _lineage_sentence(same, different)}


def _lineage_sentence(same: Mapping[str, str], different: Mapping[str, Any]) -> str:
    told = []
    for stage, words in (("base", "base model"), ("dataset", "data set")):
        if stage in same:
            told.append(f"the same {words}")
        elif stage in different:
            told.append(f"the same {words} content" if different[stage]["same_content"] else f"not the same {words}")
    return f"They have {' and '.join(told)}." if told else "What they were made from is not known here."


def _is_idle(key: str, idle: set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in idle)
