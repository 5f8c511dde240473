"""What requests to a chat endpoint took, what they may cost, and when the next one may leave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.config.endpoints import EndpointConfig
from pipeline.data.chat_replies import ChatReply
from pipeline.errors import EndpointError

Charge = Callable[[ChatReply | None], None]


@dataclass(kw_only=True)
class Budget:
    """What one model has cost and may still cost, over all clients of this process."""

    spent: float = 0.0  # in the currency of the prices
    reserved: float = 0.0  # that requests under way may cost
    lock: threading.Lock = field(default_factory=threading.Lock)


_budgets: dict[tuple[str, str], Budget] = {}


def budget_of(url: str, model: str) -> Budget:
    """Return the budget that all clients of a model share: a run makes one for each pair of policies and each suite."""
    return _budgets.setdefault((url, model), Budget())


@dataclass(kw_only=True)
class Spending:
    """What the requests of one client took so far; safe to use from several threads."""

    endpoint: EndpointConfig
    requests: int = 0  # that were sent, retries included
    retries: int = 0
    cached: int = 0  # answers that needed no request
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # in the currency of the prices
    budget: Budget = field(default_factory=Budget)

    def price(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what a request of this size costs, in the currency of the prices."""
        return (prompt_tokens * self.endpoint.input_price + completion_tokens * self.endpoint.output_price) / 1e6

    def count_cached(self) -> None:
        """Count an answer that needed no request."""
        with self.budget.lock:
            self.cached += 1

    def count_attempt(self, attempt: int) -> None:
        """Count a request that is about to be sent; attempts are numbered from 0.

        Raises:
            EndpointError: What earlier attempts may have cost leaves nothing for another.
        """
        with self.budget.lock:
            if attempt:
                self._require(0.0)
            self.requests += 1
            self.retries += attempt > 0

    @contextmanager
    def reserve(self, worst: float) -> Iterator[Charge]:
        """Set the most that an answer can cost aside; the function that is given charges what it did cost.

        Raises:
            EndpointError: It could go beyond `max_cost`.
        """
        with self.budget.lock:
            self._require(worst)
            self.budget.reserved += worst

        def charge(reply: ChatReply | None) -> None:
            """Add the cost of an answer; of one that was lost or does not say what it took, the most it can be."""
            with self.budget.lock:
                if reply is None or reply.prompt_tokens is None or reply.completion_tokens is None:
                    self._spend(worst)
                    return
                self.prompt_tokens += reply.prompt_tokens
                self.completion_tokens += reply.completion_tokens
                self._spend(self.price(reply.prompt_tokens, reply.completion_tokens))

        try:
            yield charge
        finally:
            with self.budget.lock:
                self.budget.reserved -= worst

    def _spend(self, amount: float) -> None:
        self.cost += amount
        self.budget.spent += amount

    def _require(self, worst: float) -> None:
        cap, spent, reserved = self.endpoint.max_cost, self.budget.spent, self.budget.reserved
        if cap is not None and spent + reserved + worst > cap:
            raise EndpointError(
                f"{self.endpoint.base_url}: {spent:.4g} is spent, what comes next could cost "
                f"{reserved + worst:.4g} more, and `max_cost` is {cap:g}. Answers so far are kept: raise "
                "`max_cost` and run the same command again."
            )


@dataclass(kw_only=True)
class Pace:
    """When the next request may leave, over all threads."""

    seconds_between: float
    sleep: Callable[[float], object]
    clock: Callable[[], float]
    _next_start: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        """Take the next free place and wait for it."""
        with self._lock:
            now = self.clock()
            start = max(now, self._next_start)
            self._next_start = start + self.seconds_between
        if start > now:
            self.sleep(start - now)

    def hold_back(self, seconds: float) -> None:
        """Let no request leave for a while."""
        with self._lock:
            self._next_start = max(self._next_start, self.clock() + seconds)
