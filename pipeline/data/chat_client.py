"""A chat model behind an OpenAI-compatible endpoint: patient, capped in cost, and asked nothing twice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2 as httpx

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_json
from pipeline.config.endpoints import EndpointConfig
from pipeline.data.chat_replies import ChatReply, ChatRequest, parse_reply
from pipeline.data.endpoint_address import check_address, find_key, is_loopback
from pipeline.data.spending import Charge, Pace, Spending, budget_of
from pipeline.errors import EndpointError

CACHE_VERSION = 1  # raised when a reply is read differently
CONNECT_SECONDS = 10.0
MAX_WAIT = 60.0  # seconds before one retry
MAX_REPLY_BYTES = 8 << 20
FATAL = {
    401: "It does not know the key. Correct the variable that `api_key_env` names.",
    403: "The key may not use this model.",
    404: "Is `base_url` the address up to the version, and `model` a name that the server knows?",
}


@dataclass(eq=False)
class _Failure(Exception):
    """An attempt failed in a way that may pass."""

    status: str  # of the reply, if no attempt is left
    detail: str
    wait: float | None = None  # seconds that the server asks for
    may_be_billed: bool = False


class ChatClient:
    """One endpoint. A context manager; its methods may be called from several threads."""

    def __init__(
        self,
        endpoint: EndpointConfig,
        cache: Path | None,
        *,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to nothing yet.

        Args:
            endpoint: Where and how.
            cache: Folder of answers that were given before; None asks again each time.
            sleep: Waits between attempts; None is a wait that ends when another thread meets an error.
            clock: Seconds, for the pace.

        Raises:
            ConfigError: The address is none, or the environment lacks the key.
        """
        self.endpoint, self.cache = endpoint, cache
        self.url = check_address(endpoint.base_url)
        self._key = find_key(endpoint.api_key_env)
        self._stopped = threading.Event()
        self._sleep = self._stopped.wait if sleep is None else sleep
        self.spending = Spending(endpoint=endpoint, budget=budget_of(self.url, endpoint.model))
        between = 60.0 / endpoint.requests_per_minute if endpoint.requests_per_minute else 0.0
        self._pace = Pace(seconds_between=between, sleep=self._sleep, clock=clock)
        seconds = endpoint.timeout_seconds
        self._http = httpx.Client(
            follow_redirects=False,  # the key is for this address alone
            trust_env=not is_loopback(self.url),
            timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
        )

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def complete_all(
        self, requests: Sequence[ChatRequest], on_reply: Callable[[int, ChatReply], None] | None = None
    ) -> list[ChatReply]:
        """Ask all, several at a time, and return the replies in order.

        Args:
            requests: What to ask.
            on_reply: Called in this thread with the place and the reply of each, as they come in.

        Raises:
            EndpointError: As `complete`; replies that came before are in the cache.
        """
        replies: dict[int, ChatReply] = {}
        with ThreadPoolExecutor(self.endpoint.max_concurrency, thread_name_prefix="chat") as pool:
            under_way: dict[Future[ChatReply], int] = {}
            waiting = iter(enumerate(requests))
            while True:
                for place, request in waiting:  # no more at a time than work, so that an error stops the rest
                    under_way[pool.submit(self.complete, request)] = place
                    if len(under_way) >= self.endpoint.max_concurrency:
                        break
                if not under_way:
                    return [replies[place] for place in range(len(requests))]
                try:
                    finished = wait(under_way, return_when=FIRST_COMPLETED).done
                    for place, reply in [(under_way.pop(done), done.result()) for done in finished]:
                        replies[place] = reply
                        if on_reply is not None:
                            on_reply(place, reply)
                except BaseException:
                    self._stopped.set()  # threads that wait for another attempt give up
                    raise

    def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once, or take the answer that was given before.

        What may pass (429, 5xx, time-outs, garbage) is tried again; a reply that still fails says so in its ``status``
        and is not kept, so that the next run asks again.

        Raises:
            EndpointError: The key, the address or the request is refused, or the answer could exceed `max_cost`.
        """
        body = self._body(request)
        kept = self._cache_file(body, request)
        known = _read(kept)
        if known is not None:
            self.spending.count_cached()
            return known
        worst = self.spending.price(request.max_prompt_tokens(), request.max_tokens)
        with self.spending.reserve(worst) as charge:
            reply = self._persist(body, charge)
        if reply.status in ("ok", "refused") and kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_durably(kept, json.dumps(asdict(reply), sort_keys=True, allow_nan=False))
        return reply

    def _persist(self, body: dict[str, Any], charge: Charge) -> ChatReply:
        """Send until it is answered or no attempt is left."""
        failure = _Failure("error", "another request met an error")
        for attempt in range(self.endpoint.max_retries + 1):
            self._pace.wait()
            if self._stopped.is_set():
                break
            self.spending.count_attempt(attempt)
            try:
                reply = parse_reply(self._once(body))
            except _Failure as error:
                failure = error
            except ValueError as error:
                failure = _Failure("error", f"not a chat completion: {error}", may_be_billed=True)
            else:
                charge(reply)
                return reply
            if failure.may_be_billed:
                charge(None)
            if attempt < self.endpoint.max_retries:
                seconds = min(MAX_WAIT, 2.0**attempt if failure.wait is None else failure.wait)
                if failure.wait is not None:
                    self._pace.hold_back(seconds)
                self._sleep(seconds)
        return ChatReply(status=failure.status, detail=failure.detail)

    def _once(self, body: Mapping[str, Any]) -> bytes:
        """Send once and return the bytes of a good answer."""
        deadline = time.monotonic() + self.endpoint.timeout_seconds
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        content = bytearray()
        try:
            with self._http.stream("POST", f"{self.url}/chat/completions", json=body, headers=headers) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_REPLY_BYTES:
                        raise _Failure("error", f"more than {MAX_REPLY_BYTES:,} bytes", may_be_billed=True)
                    if time.monotonic() > deadline:  # a server that sends a byte now and then never times out by itself
                        raise _Failure("timeout", self._late(), may_be_billed=True)
        except httpx.TimeoutException as error:
            sent = not isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
            raise _Failure("timeout", self._late(), may_be_billed=sent) from error
        except httpx.TransportError as error:
            raise _Failure("error", f"no connection: {self._clean(str(error)) or type(error).__name__}") from error
        if response.is_success:
            return bytes(content)
        raise self._failure(response.status_code, response.headers.get("Retry-After", ""), bytes(content))

    def _failure(self, status: int, retry_after: str, content: bytes) -> Exception:
        """Return what a bad status means: an error that will stay, or one that may pass."""
        detail = self._clean(content[:2000].decode("utf-8", "replace"))
        if status in (408, 409, 425, 429) or status >= 500:
            wait = float(retry_after) if retry_after.strip().isdigit() else None
            return _Failure("error", f"status {status}: {detail}", wait=wait)
        if 300 <= status < 400:
            advice = "It sends the request elsewhere, and the key is not carried along. Correct `base_url`."
        else:
            advice = FATAL.get(status, "Correct what it names.")
        return EndpointError(f"{self.url} answers with {status}: {detail or 'nothing'}. {advice}")

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        seed = {"seed": request.seed} if self.endpoint.send_seed else {}
        asked = {"logprobs": True, "top_logprobs": request.top_logprobs} if request.top_logprobs else {}
        return {
            "model": self.endpoint.model,
            "messages": [dict(message) for message in request.messages],
            self.endpoint.max_tokens_field: request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            **seed,
            **asked,
            **self.endpoint.extra,
        }

    def _cache_file(self, body: Mapping[str, Any], request: ChatRequest) -> Path | None:
        if self.cache is None:
            return None
        key = sha256_json({"version": CACHE_VERSION, "url": self.url, "body": dict(body), "draw": request.draw})
        return self.cache / key[:2] / f"{key}.json"

    def _late(self) -> str:
        return f"no whole answer within {self.endpoint.timeout_seconds:g} s"

    def _clean(self, text: str) -> str:
        """Take the key out of a text of the server's."""
        return " ".join((text.replace(self._key, "[redacted]") if self._key else text).split())[:300]


def answer_cache(cache: Path) -> Path:
    """Return the folder of answers below the user's cache folder."""
    return cache / "chat"


def _read(path: Path | None) -> ChatReply | None:
    """Return a kept reply; an unreadable one is asked for again."""
    if path is None or not path.is_file():
        return None
    try:
        return ChatReply(**{**json.loads(path.read_text(encoding="utf-8")), "cached": True})
    except (OSError, ValueError, TypeError):
        return None
