"""A model behind an HTTP endpoint that speaks the chat-completions protocol of OpenAI, as many servers do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.config.fields import MISSING, option

HTTP = "http:"  # before the name of an endpoint, where a policy is named


@dataclass(kw_only=True)
class EndpointConfig:
    """Where the model is asked, how patiently, and what it may cost. The key itself is never in a configuration."""

    name: str = option("", affects_results=False)  # of the file `configs/endpoint/<name>.yaml`, where it has one
    base_url: str = MISSING  # up to the version: https://api.openai.com/v1, http://localhost:8000/v1
    model: str = MISSING  # as the server calls it
    # Name of the environment variable that holds the key; null sends none.
    api_key_env: str | None = option(None, affects_results=False)
    extra: dict[str, Any] = option(factory=dict)  # further fields of the request, such as reasoning_effort
    max_tokens_field: str = "max_tokens"  # some servers call it max_completion_tokens
    send_seed: bool = True  # some servers refuse a request with a seed
    timeout_seconds: float = option(60.0, gt=0, affects_results=False)  # for one answer, from sending to its last byte
    max_retries: int = option(5, ge=0, affects_results=False)  # after a 429, a 5xx, a time-out or garbage
    requests_per_minute: float | None = option(None, gt=0, affects_results=False)  # null is as many as it answers
    max_concurrency: int = option(4, ge=1, affects_results=False)  # requests under way at a time
    input_price: float = option(0.0, ge=0, affects_results=False)  # per million tokens of prompts, in any currency
    output_price: float = option(0.0, ge=0, affects_results=False)  # per million tokens of completions
    # What one command may spend on the model, all stages together; null is no cap. Cached answers cost nothing again.
    max_cost: float | None = option(None, gt=0, affects_results=False)
