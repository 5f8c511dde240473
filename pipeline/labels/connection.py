"""Requests to a Label Studio server: sent with patience, refused in clear words, and never with the token in them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx2 as httpx

from pipeline.data.endpoint_address import is_loopback
from pipeline.errors import ConfigError, LabelServerError

KEY_VARIABLE = "LABEL_STUDIO_API_KEY"
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


class Connection:
    """What is sent to one server with one token."""

    def __init__(self, url: str, token: str, *, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
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

    def close(self) -> None:
        """Let the server go."""
        self._http.close()

    def json(self, method: str, target: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Send a request and return the JSON that answers it."""
        answer = self.send(method, target, params=params, body=body)
        try:
            return json.loads(answer.content)
        except (ValueError, RecursionError) as error:
            raise LabelServerError(
                f"{self.url}{target} does not answer with JSON. Is this a Label Studio server?"
            ) from error

    def send(
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
