"""Online or offline: decided once, quickly, and without a question."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from wandb_server import WandbServer

from pipeline.config.shared import TrackingConfig, TrackingMode
from pipeline.tracking.server import DECISION_VARIABLE, DEFAULT_BASE_URL, Decision, decide, find_account


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def choose(mode: TrackingMode, **environment: str) -> tuple[Decision, str]:
    return decide(TrackingConfig(mode=mode), environment)


def test_without_a_key_nobody_is_asked(home: Path) -> None:
    with WandbServer() as server:
        for mode in (TrackingMode.auto, TrackingMode.online):
            decision, reason = choose(mode, WANDB_BASE_URL=server.url)
            assert (decision, "no API key" in reason) == (Decision.offline, True)
        assert server.requests == []


def test_a_server_that_answers_is_used(home: Path) -> None:
    with WandbServer(api_key="right") as server:
        given = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "right"}
        assert choose(TrackingMode.auto, **given)[0] is Decision.online
        assert choose(TrackingMode.online, **given)[0] is Decision.online
        assert choose(TrackingMode.offline, **given)[0] is Decision.offline
        assert choose(TrackingMode.disabled, **given)[0] is Decision.disabled
        assert choose(TrackingMode.auto, WANDB_MODE="offline", **given)[0] is Decision.offline
        assert choose(TrackingMode.auto, WANDB_MODE="disabled", **given)[0] is Decision.disabled
        assert choose(TrackingMode.online, WANDB_MODE="offline", **given)[0] is Decision.online
        decision, reason = choose(TrackingMode.auto, WANDB_BASE_URL=server.url, WANDB_API_KEY="wrong")
        assert (decision, "does not accept the API key" in reason) == (Decision.offline, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"), [("hang", "did not answer"), ("error", "answers 500"), ("drop", "cannot be")]
)
def test_a_broken_server_is_found_out_within_seconds(home: Path, fault: str, said: str) -> None:
    with WandbServer() as server:
        server.fault = fault
        began = time.monotonic()
        decision, reason = choose(TrackingMode.auto, WANDB_BASE_URL=server.url, WANDB_API_KEY="k")
        assert time.monotonic() - began < 4.5
        assert decision is Decision.offline
        assert said in reason


def test_a_sweep_decides_once(home: Path) -> None:
    with WandbServer() as server:
        given = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k"}
        assert choose(TrackingMode.auto, **given, **{DECISION_VARIABLE: "offline"})[0] is Decision.offline
        assert choose(TrackingMode.auto, **given, **{DECISION_VARIABLE: "online"})[0] is Decision.online
        assert choose(TrackingMode.disabled, **given, **{DECISION_VARIABLE: "online"})[0] is Decision.disabled
        assert server.requests == []


def test_keys_and_servers_are_found_where_a_login_puts_them(home: Path) -> None:
    assert find_account({}).base_url == DEFAULT_BASE_URL
    assert find_account({}).api_key is None
    (home / ".netrc").write_text("machine wandb.example.com:8080\n login user\n password from-netrc\n")
    (home / ".netrc").chmod(0o600)
    (home / ".config" / "wandb").mkdir(parents=True)
    (home / ".config" / "wandb" / "settings").write_text(
        "[default]\nbase_url = https://wandb.example.com:8080/\nentity = team%20\n"
    )
    found = find_account({})
    assert (found.base_url, found.entity, found.api_key) == ("https://wandb.example.com:8080", "team%20", "from-netrc")
    assert find_account({"WANDB_API_KEY": "from-variable"}).api_key == "from-variable"
    assert find_account({"WANDB_BASE_URL": "https://other.example.com"}).api_key is None
    (home / ".netrc").write_text("machine broken password\n")
    assert find_account({}).api_key is None
