"""A Label Studio server over its API: projects, tasks and exports, with patience and with caution."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx2 as httpx

from pipeline.data.endpoint_address import is_loopback
from pipeline.errors import ConfigError, LabelServerError

KEY_VARIABLE = "LABEL_STUDIO_API_KEY"
PAGE_SIZE = 100
MAX_ATTEMPTS = 5
MAX_WAIT = 30.0  # seconds before one retry
CONNECT_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 << 20  # of anything but an export
ADVICE = {
    400: "Correct what it names.",
    401: f"It does not know the token in {KEY_VARIABLE}. Copy a new one; legacy tokens work only where the "
    f"organisation allows them.",
    403: "The account may not do this. Ask for access to the project.",
    404: "Is label.url the address of the server, with the path that it is served under?",
}


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project on the server."""

    id: int
    title: str
    labeling_config: str


def check_url(url: str) -> str:
    """Return the server's address without a slash at its end.

    Raises:
        ConfigError: It is none, or holds a password.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError("label.url: give the server's address, such as http://localhost:8080 or https://labels.org.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"label.url: give the address alone; the token belongs into {KEY_VARIABLE}.")
    return parts.geturl().rstrip("/")


def find_token(environment: Mapping[str, str] | None = None) -> str:
    """Return the access token.

    Raises:
        ConfigError: The environment has none, or one that no header can hold.
    """
    token = (os.environ if environment is None else environment).get(KEY_VARIABLE, "").strip()
    if not token:
        raise ConfigError(
            f"{KEY_VARIABLE} is not set. Copy a token from Account & Settings of the server into the environment."
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"{KEY_VARIABLE} holds characters that no token has. Copy it again.")
    return token


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server said."""

    status: int
    content: bytes
    location: str
    retry_after: str

    @property
    def is_success(self) -> bool:
        """Whether it did what it was asked."""
        return 200 <= self.status < 300

    def decoded(self) -> dict[str, Any]:
        """Return the JSON object that the answer holds, or an empty one."""
        try:
            value = json.loads(self.content)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def detail(self) -> str:
        """Return what the server says is wrong."""
        value = self.decoded()
        return " ".join(str(part) for part in (value.get("detail"), value.get("validation_errors")) if part)


class LabelStudioClient:
    """One server, one account. A context manager."""

    def __init__(
        self, url: str, token: str, *, seconds: float = 60.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: Address of the server.
            token: Legacy token or personal access token; the second is a JWT, which is traded for short-lived ones.
            seconds: That one answer may take.
            sleep: Waits between two attempts.
        """
        self.url = check_url(url)
        self._token = token
        self._sleep = sleep
        self._timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        self._bearer: str | None = None
        # A proxy that the environment names serves the outside.
        self._http = httpx.Client(base_url=self.url, follow_redirects=False, trust_env=not is_loopback(self.url))

    def __enter__(self) -> LabelStudioClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

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
        answer = self._json("POST", "/api/projects/", body={"title": title, "label_config": labeling_config})
        return self._project(answer)

    def tasks(self, project: Project) -> Iterator[dict[str, Any]]:
        """Yield the project's tasks without their annotations."""
        yield from self._pages("/api/tasks/", "tasks", project=project.id, fields="task_only")

    def add_tasks(self, project: Project, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Import tasks. A request that may have arrived is not sent again."""
        answer = self._json("POST", f"/api/projects/{project.id}/import", body=[{"data": dict(data)} for data in tasks])
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
                self._send("GET", f"/api/projects/{project.id}/export", params=params, file=file)
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
            answer = self._json("GET", target, params={**params, "page": page, "page_size": PAGE_SIZE})
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

    def _json(self, method: str, target: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        answer = self._send(method, target, params=params, body=body)
        try:
            return json.loads(answer.content)
        except (ValueError, RecursionError) as error:
            raise LabelServerError(
                f"{self.url}{target} does not answer with JSON. Is this a Label Studio server?"
            ) from error

    def _send(
        self,
        method: str,
        target: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        file: BinaryIO | None = None,
    ) -> Answer:
        """Send a request until it is answered well; what may have changed something is sent once."""
        is_renewed = False
        for attempt in range(1, MAX_ATTEMPTS + 1):
            last = attempt == MAX_ATTEMPTS
            request = self._http.build_request(
                method, target, params=params, json=body, headers=self._authorization(), timeout=self._timeout
            )
            try:
                answer = self._once(request, file)
            except httpx.TransportError as error:
                if last or method != "GET" or isinstance(error, httpx.ConnectError):
                    raise self._unreachable(error) from error
                self._sleep(_wait("", attempt))
                continue
            if answer.is_success:
                return answer
            if answer.status == httpx.codes.UNAUTHORIZED and self._bearer is not None and not is_renewed:
                self._bearer, is_renewed = None, True  # a short-lived token has run out
                continue
            # 429 says that nothing was done; after another failure that is certain only of a GET.
            again = answer.status == httpx.codes.TOO_MANY_REQUESTS or (method == "GET" and answer.status >= 500)
            if last or not again:
                raise self._refused(method, target, answer)
            self._sleep(_wait(answer.retry_after, attempt))
        raise AssertionError("the last attempt returns or raises")

    def _once(self, request: httpx.Request, file: BinaryIO | None) -> Answer:
        """Send a request once. A good answer goes to ``file`` if there is one."""
        response = self._http.send(request, stream=True)
        try:
            content = bytearray()
            if file is not None:
                file.seek(0)
                file.truncate()
            for chunk in response.iter_bytes():
                if file is not None and response.is_success:
                    file.write(chunk)
                    continue
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise LabelServerError(f"{self.url} answers with more than {MAX_ANSWER_BYTES:,} bytes.")
        finally:
            response.close()
        headers = response.headers
        return Answer(
            status=response.status_code,
            content=bytes(content),
            location=headers.get("Location", ""),
            retry_after=headers.get("Retry-After", ""),
        )

    def _authorization(self) -> dict[str, str]:
        if not (self._token.startswith("ey") and self._token.count(".") == 2):
            return {"Authorization": f"Token {self._token}"}
        if self._bearer is None:  # a personal access token is a JWT that buys short-lived ones
            target = "/api/token/refresh/"
            request = self._http.build_request(
                "POST", target, json={"refresh": self._token}, headers={}, timeout=self._timeout
            )
            try:
                answer = self._once(request, None)
            except httpx.TransportError as error:
                raise self._unreachable(error) from error
            access = answer.decoded().get("access")
            if not answer.is_success or not isinstance(access, str):
                raise self._refused("POST", target, answer)
            self._bearer = access
        return {"Authorization": f"Bearer {self._bearer}"}

    def _unreachable(self, error: httpx.TransportError) -> LabelServerError:
        what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
        return LabelServerError(
            f"{self.url} {what} ({self._clean(str(error)) or type(error).__name__}). Is the server running, and is "
            f"label.url right?"
        )

    def _refused(self, method: str, target: str, answer: Answer) -> LabelServerError:
        status = answer.status
        if 300 <= status < 400:
            place = urlsplit(answer.location)
            where = f"{place.scheme}://{place.hostname}" if place.hostname else "another page"
            return LabelServerError(
                f"{self.url} sends {method} {target} on to {self._clean(where)}, and the token is not carried along. "
                f"Set label.url to the server's own address."
            )
        advice = ADVICE.get(status, "Look into the server's log." if status >= 500 else "")
        detail = self._clean(answer.detail()).rstrip(".")
        return LabelServerError(
            f"{self.url} answers {method} {target} with {status}{f': {detail}' if detail else ''}. {advice}".rstrip()
        )

    def _clean(self, text: str) -> str:
        """Take both tokens out of a text of the server's."""
        for secret in (self._token, self._bearer):
            text = text.replace(secret, "[redacted]") if secret else text
        return " ".join(text.split())[:300]


def _wait(asked: str, attempt: int) -> float:
    """Return how long to wait: what the server asks for, else twice as long each time."""
    return min(float(asked), MAX_WAIT) if asked.isdecimal() else min(0.5 * 2 ** (attempt - 1), MAX_WAIT)
