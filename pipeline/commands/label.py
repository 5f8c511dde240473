"""`label push` and `label pull`: pairs to a Label Studio server, and its annotations back."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.label import LabelConfig, LabelRoot
from pipeline.config.paths import find_file
from pipeline.config.suggestions import near_miss, unknown_key
from pipeline.config.validation import out_of_bounds
from pipeline.errors import ConfigError, LabelServerError

USAGE = "Usage: python -m pipeline label push|pull label.project=NAME label.path=FILE [label.url=http://…]."
ACTIONS = ("push", "pull")
TITLE_LENGTHS = range(3, 51)  # that the server accepts


def label_command(arguments: list[str]) -> int:
    """Run one action of `label` and return its exit status."""
    action, config = parse(arguments)
    return push(config) if action == "push" else pull(config)


def parse(arguments: list[str]) -> tuple[str, LabelConfig]:
    """Read the command line: an action, then overrides.

    Raises:
        ConfigError: There is no such action or key, or a value does not fit; all of it is told at once.
    """
    action, *rest = arguments or [""]
    if action not in ACTIONS:
        raise ConfigError(f"There is no action {action!r} of `label`.{near_miss(action, ACTIONS)} {USAGE}")
    composed, problems = OmegaConf.structured(LabelRoot), []
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals or key.startswith("-"):
            problems.append(f"`{word}` is not an override. {USAGE}")
        elif problem := unknown_key(key, LabelRoot):
            problems.append(f"`{word}`: {problem}")
        elif key == "label":
            problems.append(f"`{word}`: name one of its keys, as in label.project=NAME.")
        else:
            try:
                OmegaConf.update(composed, key, value)
            except OmegaConfBaseException as error:
                problems.append(f"`{word}`: {str(error).splitlines()[0]}.")
    for key in sorted(OmegaConf.missing_keys(composed)):
        problems.append(f"{key}: has no value; add `{key}=…`")
        OmegaConf.update(composed, key, "unset")
    config = cast("LabelRoot", OmegaConf.to_object(composed)).label
    problems.extend(out_of_bounds(config, "label."))
    if len(config.project) not in TITLE_LENGTHS:
        problems.append(f"label.project: a title has {TITLE_LENGTHS[0]} to {TITLE_LENGTHS[-1]} characters.")
    if problems:
        raise ConfigError("\n".join(problems))
    return action, config


def push(config: LabelConfig) -> int:
    """Add the pairs of a file that the project does not have yet.

    Raises:
        DataError: The file does not hold pairs.
        LabelServerError: The server does not take them, or the project asks something else.
    """
    from pipeline.labels.connection import find_token
    from pipeline.labels.pairs import LABELING_CONFIG, read_pairs
    from pipeline.labels.server import LabelStudioClient

    path = find_file(config.path)
    if not path.is_file():
        raise ConfigError(f"label.path: there is no file {config.path}.")
    pairs = list(read_pairs(path, config.seed))
    with LabelStudioClient(config.url, find_token(), seconds=config.seconds) as client:
        project = client.find_project(config.project)
        if project is None:
            project = client.create_project(config.project, LABELING_CONFIG)
            print(f"made the project {project.title!r} ({client.url}/projects/{project.id})")
        _check_interface(project.labeling_config, project.title)
        there = {str(task["data"].get("id")) for task in client.tasks(project) if isinstance(task.get("data"), dict)}
        missing = [pair for pair in pairs if pair["id"] not in there]
        pushed = 0
        while pushed < len(missing):
            batch = missing[pushed : pushed + config.batch_size]
            try:
                client.add_tasks(project, batch)
            except LabelServerError as error:
                done = f"{pushed:,} of {len(missing):,} pairs are pushed"
                raise LabelServerError(f"{error} {done}; push again, which leaves out what is there.") from error
            pushed += len(batch)
    there_before = len(pairs) - pushed
    print(f"{len(pairs):,} pairs in {config.path} = {pushed:,} pushed + {there_before:,} that were there already")
    return 0


def _check_interface(labeling_config: str, title: str) -> None:
    """Refuse a project whose interface shows data that pushed tasks do not have."""
    from pipeline.labels.importers.label_studio_interface import parse_interface
    from pipeline.labels.pairs import TASK_KEYS

    try:
        shown = set(parse_interface(labeling_config).objects.values())
    except ValueError as error:
        raise LabelServerError(f"The labeling interface of {title!r} {error} Choose another label.project.") from error
    if not {"answer1", "answer2"} <= shown <= TASK_KEYS:
        raise LabelServerError(
            f"The labeling interface of {title!r} shows {', '.join(sorted(shown)) or 'nothing'}; pushed tasks have "
            f"{', '.join(sorted(TASK_KEYS))}. Choose another label.project, or let this command make one."
        )


def pull(config: LabelConfig) -> int:
    """Fetch a project's annotations as a file that `ingest` reads.

    Raises:
        LabelServerError: There is no such project, or the server does not give it.
    """
    from pipeline.labels.connection import find_token
    from pipeline.labels.server import LabelStudioClient

    path = Path(config.path).expanduser()
    if path.suffix.lower() != ".json":
        raise ConfigError(f"label.path: {config.path} is to be JSON; let its name end with .json.")
    if not path.parent.is_dir():
        raise ConfigError(f"label.path: there is no folder {path.parent}.")
    with LabelStudioClient(config.url, find_token(), seconds=config.seconds) as client:
        project = client.find_project(config.project)
        if project is None:
            raise LabelServerError(f"{client.url} has no project {config.project!r} that this account can see.")
        num_tasks, num_annotations = client.export(project, path)
    print(f"{num_tasks:,} tasks with {num_annotations:,} annotations in {config.path}")
    print(f"read it with a source {{table: exports, path: {config.path}}}")
    return 0
