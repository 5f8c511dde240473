"""A Label Studio server over its API: projects, tasks and exports."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import ConfigError, LabelServerError
from pipeline.labels.connection import Connection

PAGE_SIZE = 100


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project on the server."""

    id: int
    title: str
    labeling_config: str


class LabelStudioClient:
    """One server, one account. A context manager."""

    def __init__(
        self, url: str, token: str, *, seconds: float = 60.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Connect to nothing yet. The arguments are those of ``Connection``."""
        self._connection = Connection(url, token, seconds=seconds, sleep=sleep)
        self.url = self._connection.url

    def __enter__(self) -> LabelStudioClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def find_project(self, title: str) -> Project | None:
        """Return the project of that title, or None.

        Raises:
            LabelServerError: There are several.
        """
        found = [entry for entry in self._pages("/api/projects/", "results") if entry.get("title") == title]
        if len(found) > 1:
            raise LabelServerError(f"{self.url} has {len(found)} projects called {title!r}. Rename all but one.")
        return self._project(found[0]) if found else None

    def create_project(self, title: str, labeling_config: str) -> Project:
        """Make a project."""
        answer = self._connection.json("POST", "/api/projects/", body={"title": title, "label_config": labeling_config})
        return self._project(answer)

    def tasks(self, project: Project) -> Iterator[dict[str, Any]]:
        """Yield the project's tasks without their annotations."""
        yield from self._pages("/api/tasks/", "tasks", project=project.id, fields="task_only")

    def add_tasks(self, project: Project, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Import tasks. A request that may have arrived is not sent again."""
        answer = self._connection.json(
            "POST", f"/api/projects/{project.id}/import", body=[{"data": dict(data)} for data in tasks]
        )
        if not isinstance(answer, dict) or answer.get("task_count") != len(tasks):
            count = answer.get("task_count") if isinstance(answer, dict) else None
            raise LabelServerError(f"{self.url} imported {count} of {len(tasks)} tasks. Look into the project.")

    def export(self, project: Project, path: Path) -> tuple[int, int]:
        """Write everything that the project holds to ``path`` as JSON, whole or not at all.

        Returns:
            How many tasks and how many annotations it holds.
        """
        partial = path.with_name(f"{path.name}.partial")
        params = {"exportType": "JSON", "download_all_tasks": "true"}
        try:
            with partial.open("wb") as file:
                self._connection.send("GET", f"/api/projects/{project.id}/export", params=params, file=file)
            counted = self._counted(partial)
            partial.replace(path)
            return counted
        except OSError as error:
            raise ConfigError(f"label.path: {path} cannot be written ({error.strerror}).") from error
        finally:
            partial.unlink(missing_ok=True)

    def _counted(self, export: Path) -> tuple[int, int]:
        try:
            numbers = [len(task["annotations"]) for task in json.loads(export.read_bytes())]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise LabelServerError(
                f"{self.url} sends no export ({type(error).__name__}). Look into its log."
            ) from error
        return len(numbers), sum(numbers)

    def _pages(self, target: str, name: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield what a paged list holds, page by page."""
        seen, page = 0, 1
        while True:
            answer = self._connection.json("GET", target, params={**params, "page": page, "page_size": PAGE_SIZE})
            listed = answer if isinstance(answer, dict) else {}
            entries, total = listed.get(name), listed.get("count", listed.get("total"))
            if not isinstance(entries, list) or not isinstance(total, int):
                raise LabelServerError(f"{self.url}{target} does not list {name}. Is this a Label Studio server?")
            yield from (entry for entry in entries if isinstance(entry, dict))
            seen, page = seen + len(entries), page + 1
            if not entries or seen >= total:
                return

    def _project(self, answer: Any) -> Project:
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), int):
            raise LabelServerError(f"{self.url} answers with no project. Is this a Label Studio server?")
        return Project(id=answer["id"], title=str(answer.get("title")), labeling_config=str(answer.get("label_config")))
