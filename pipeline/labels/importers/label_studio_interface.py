"""Label Studio's labeling configuration: which controls a project has and which data each of them is about."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.paths import find_file
from pipeline.errors import ConfigError

MAX_BYTES = 1 << 20
DEFAULT_MAX_RATING = 5  # of the Rating tag
CONTROL_TAGS = ("pairwise", "choices", "rating", "ranker", "textarea", "chat")
_DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Control:
    """Something an annotator answers with."""

    name: str
    kind: str  # one of CONTROL_TAGS
    targets: tuple[str, ...] = ()  # names of the objects that it is about
    max_rating: int | None = None  # None where nothing says so
    choices: tuple[str, ...] = ()  # that it offers, or that were seen
    buckets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What an annotator sees and answers with."""

    controls: Mapping[str, Control]
    objects: Mapping[str, str]  # name of what is shown -> key of the task's data


def read_interface(path: str, key: str) -> Interface:
    """Read the XML of a project's labeling configuration.

    Raises:
        ConfigError: There is no such file, or it is no labeling configuration.
    """
    file: Path = find_file(path)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{key}.labeling_config: {path} cannot be read ({error.strerror}).") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{key}.labeling_config: {path} has more than {MAX_BYTES:,} bytes, which no interface has.")
    try:
        return parse_interface(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key}.labeling_config: {path} is not UTF-8 at byte {error.start}.") from error
    except ValueError as error:
        raise ConfigError(f"{key}.labeling_config: {path} {error}") from error


def parse_interface(text: str) -> Interface:
    """Read controls and objects from the XML.

    Raises:
        ValueError: It is not XML, declares entities, or has no control that this importer reads.
    """
    if found := _DECLARATION.search(text):
        raise ValueError(f"declares a {found.group(1).upper()}, which a labeling configuration has no use for.")
    try:
        root = ET.fromstring(text.strip())
    except ET.ParseError as error:
        raise ValueError(
            f"is not XML: {error}. Copy it from the project's Settings, Labeling Interface, Code."
        ) from error
    controls: dict[str, Control] = {}
    objects: dict[str, str] = {}
    for element in root.iter():
        name, value = element.get("name"), element.get("value", "")
        if not name:
            continue
        if value.startswith("$"):
            objects[name] = value[1:]
        if element.tag.lower() in CONTROL_TAGS:
            controls[name] = _control(name, element)
    if not controls:
        raise ValueError(f"has none of the controls {', '.join(CONTROL_TAGS)}.")
    return Interface(controls=controls, objects=objects)


def _control(name: str, element: ET.Element) -> Control:
    kind = element.tag.lower()
    targets = tuple(part.strip() for part in element.get("toName", name).split(",") if part.strip())
    options = [child for child in element.iter() if child.tag.lower() == "choice"]
    largest = element.get("maxRating", str(DEFAULT_MAX_RATING))
    return Control(
        name=name,
        kind=kind,
        targets=targets,
        max_rating=int(largest) if kind == "rating" and largest.isdecimal() else None,
        choices=tuple(option.get("alias") or option.get("value") or "" for option in options),
        buckets=tuple(child.get("name", "") for child in element if child.tag.lower() == "bucket"),
    )
