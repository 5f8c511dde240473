"""What is refused before anything runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.__main__ import run
from pipeline.commands import train
from pipeline.config.composition import load_endpoints, load_judges, load_suite
from pipeline.config.paths import configs_folder
from pipeline.config.tables import load_tables
from pipeline.tracking.redaction import find_secrets

TOKEN = "hf_" + "Canary0123456789Canary"
ADDRESS = "base_url: http://localhost:1/v1\nmodel: toy\n"


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configuration files; what would run does not."""
    monkeypatch.setattr(train, "train", lambda prepared, again: 0)
    for kind in ("endpoint", "judge", "suite"):
        (tmp_path / kind).mkdir()
    return tmp_path


def started(configs: Path, endpoint: str, judge: str, suite: str) -> int:
    return run([
        "train", "+experiment=evaluate", "tracking=disabled", f"--config-dir={configs}",
        f"inputs.evaluate.policy=[base,http:{endpoint}]", f"evaluate.judges=[{judge}]", f"evaluate.suites=[{suite}]",
    ])  # fmt: skip


def test_a_secret_in_a_file_that_the_run_names_is_refused_by_file_and_key(
    configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (configs / "endpoint" / "leaky.yaml").write_text(f"{ADDRESS}extra: {{api_key: canary-of-no-form}}\n")
    (configs / "judge" / "leaky.yaml").write_text(
        "kind: http\nendpoint:\n  base_url: http://localhost:1/v1\n  model: toy\n"
        f"  extra: {{header: 'Bearer sk-{TOKEN[3:]}'}}\n"
    )
    (configs / "suite" / "leaky.yaml").write_text(
        f"kind: generation\nchecks: [{{name: regex, params: {{pattern: {TOKEN}}}}}]\n"
    )
    assert started(configs, "leaky", "leaky", "leaky") == 2
    told = capsys.readouterr().err
    for line in (
        "endpoint `leaky`: extra.api_key: its name says that it holds a secret",
        "judge `leaky`: endpoint.extra.header: it looks like an API key",
        "suite `leaky`: checks.params.pattern: it looks like a Hugging Face token",
    ):
        assert line in told
    assert "anary" not in told


def test_what_such_files_usually_say_is_none(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_API_KEY", "canary-of-no-form")
    usual = "api_key_env: TOY_API_KEY\nmax_tokens_field: max_completion_tokens\nextra: {reasoning_effort: low}\n"
    (configs / "endpoint" / "usual.yaml").write_text(ADDRESS + usual)
    below = "".join(f"  {line}\n" for line in (ADDRESS + usual).splitlines())
    (configs / "judge" / "usual.yaml").write_text(f"kind: http\nparams: {{max_tokens: 32}}\nendpoint:\n{below}")
    (configs / "suite" / "password_resets.yaml").write_text(
        "kind: generation\nchecks: [{name: max_words, params: {limit: 60}}]\njudges: [usual]\n"
        "rubric: [{name: helpful, description: 'Does it help?', levels: {1: not at all, 5: very much}}]\n"
    )
    assert started(configs, "usual", "usual", "password_resets") == 0


def test_nothing_that_comes_with_the_project_looks_like_a_secret() -> None:
    folder, problems = [configs_folder()], list[str]()
    names = {kind: [path.stem for path in (folder[0] / kind).glob("*.yaml")] for kind in ("suite", "judge", "endpoint")}
    files = {
        "suite": {name: load_suite(name, folder) for name in names["suite"]},
        "judge": load_judges(names["judge"], folder, problems),
        "endpoint": load_endpoints([f"http:{name}" for name in names["endpoint"]], folder, problems),
        "table": load_tables(folder),
    }
    assert problems == []
    assert all(files.values())
    found = {f"{kind}/{name}": find_secrets(asdict(file)) for kind, own in files.items() for name, file in own.items()}
    assert {name: secrets for name, secrets in found.items() if secrets} == {}
