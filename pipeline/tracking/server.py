"""Whether the tracking server is configured and answers; asked without its client, so that the answer is quick."""

from __future__ import annotations

import base64
import configparser
import json
import netrc
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config.shared import TrackingConfig, TrackingMode

DEFAULT_BASE_URL = "https://api.forge.coreweave.com"  # of the client; a test compares them
DEFAULT_HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")  # the second is where older log-ins were stored
PROBE_SECONDS = 3.0
DECISION_VARIABLE = "PIPELINE_TRACKING_DECISION"
AGENT_VARIABLE = "WANDB_SWEEP_ID"  # set by W&B's agent in what it starts


class Decision(StrEnum):
    """Where the mirror of one invocation, or of one sweep, is kept."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(frozen=True)
class Account:
    """Server and key, as the client would find them."""

    base_url: str
    entity: str | None
    api_key: str | None


def find_account(environment: Mapping[str, str] | None = None) -> Account:
    """Read server, entity and key from the environment, the client's settings file and netrc."""
    variables = os.environ if environment is None else environment
    settings = _stored_settings(variables)
    base_url = variables.get("WANDB_BASE_URL") or settings.get("base_url") or DEFAULT_BASE_URL
    entity = variables.get("WANDB_ENTITY") or settings.get("entity")
    return Account(base_url.rstrip("/"), entity, variables.get("WANDB_API_KEY") or _netrc_key(base_url, variables))


def _stored_settings(variables: Mapping[str, str]) -> dict[str, str]:
    folder = Path(variables.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "settings")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}  # the client ignores such a file too
    return dict(parser["default"]) if parser.has_section("default") else {}


def _netrc_key(base_url: str, variables: Mapping[str, str]) -> str | None:
    named = variables.get("NETRC")
    candidates = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    hosts = [urlsplit(base_url).netloc, *(DEFAULT_HOSTS if base_url == DEFAULT_BASE_URL else ())]
    for path in candidates:
        try:
            stored = netrc.netrc(path)
        except (OSError, netrc.NetrcParseError):
            continue
        for host in hosts:
            found = stored.authenticators(host)
            if found and found[2]:
                return found[2]
    return None


def probe(account: Account, seconds: float = PROBE_SECONDS) -> str | None:
    """Ask the server who we are; return None when it answers, else why it cannot be used, after `seconds` at most."""
    outcome: list[str | None] = []
    # In a thread of its own, because the look-up of a name obeys no timeout.
    asking = threading.Thread(target=lambda: outcome.append(_ask(account, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    return outcome[0] if outcome else f"{account.base_url} did not answer within {seconds:.0f} s"


def _ask(account: Account, seconds: float) -> str | None:
    credentials = base64.b64encode(f"api:{account.api_key}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310  (http and https only, checked below)
        f"{account.base_url}/graphql",
        data=json.dumps({"query": "query Viewer { viewer { id } }"}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Basic {credentials}"},
    )
    if urlsplit(account.base_url).scheme not in ("http", "https"):
        return f"{account.base_url} is no http address"
    try:
        with urllib.request.urlopen(request, timeout=seconds) as reply:  # noqa: S310
            answer = json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                return f"{account.base_url} does not accept the API key"
            return f"{account.base_url} answers {error.code}"
    except (OSError, ValueError) as error:  # refused, unreachable, timed out, not JSON
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return f"{account.base_url} did not answer within {seconds:.0f} s"
        return f"{account.base_url} cannot be used: {reason}"
    if not isinstance(answer, dict) or not (answer.get("data") or {}).get("viewer"):
        return f"{account.base_url} does not accept the API key"
    return None


def decide(config: TrackingConfig, environment: Mapping[str, str] | None = None) -> tuple[Decision, str]:
    """Choose between online and offline, without ever asking the user; return the choice and its reason.

    The parent of a sweep passes the choice to its children in the variable `PIPELINE_TRACKING_DECISION`.
    """
    variables = os.environ if environment is None else environment
    inherited = variables.get("WANDB_MODE", "")
    if config.mode is TrackingMode.disabled or (config.mode is TrackingMode.auto and inherited == "disabled"):
        return Decision.disabled, "as configured"
    if config.mode is TrackingMode.offline or (config.mode is TrackingMode.auto and inherited in ("offline", "dryrun")):
        return Decision.offline, "as configured"
    passed = variables.get(DECISION_VARIABLE)
    if passed in (Decision.online, Decision.offline):
        return Decision(passed), "decided once for the whole sweep"
    account = find_account(variables)
    if not account.api_key:
        return Decision.offline, "no API key is configured (WANDB_API_KEY, or `wandb login`)"
    problem = probe(account)
    return (Decision.offline, problem) if problem else (Decision.online, account.base_url)
