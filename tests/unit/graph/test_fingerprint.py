from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import fake_stages
import pytest
from fake_stages import make_config, make_suites

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import BaseModel
from pipeline.artifacts.hashing import FileHashes
from pipeline.artifacts.manifest import ArtifactKind, Manifest
from pipeline.config.data import FilterConfig, SourceConfig, TableName
from pipeline.config.endpoints import EndpointConfig
from pipeline.config.evaluation import CheckConfig
from pipeline.config.fields import option
from pipeline.config.plugins import load_plugins
from pipeline.config.root import Config
from pipeline.config.shared import DType, ModelConfig, ModelSource
from pipeline.errors import ArtifactError
from pipeline.graph.fingerprint import Surroundings, fingerprint, fingerprint_inputs, result_config, section_of
from pipeline.graph.reasons import differences
from pipeline.graph.spec import STAGES
from pipeline.graph.wiring import nodes_for


class Colour(StrEnum):
    red = "red"


@dataclass
class Inner:
    rate: float = 0.5
    speed: int = option(3, affects_results=False)


@dataclass
class Outer:
    inner: Inner = option(factory=Inner)
    many: list[Inner] = option(factory=lambda: [Inner(), Inner(rate=1.0)])
    colour: Colour = Colour.red
    path: Path = Path("a/b")
    log_every: int = option(1, affects_results=False)


def test_a_section_becomes_json_without_what_affects_no_result() -> None:
    assert result_config(Outer()) == {
        "inner": {"rate": 0.5},
        "many": [{"rate": 0.5}, {"rate": 1.0}],
        "colour": "red",
        "path": "a/b",
    }


def test_runtime_and_tracking_affect_no_result_at_all() -> None:
    config = Config()
    assert result_config(config.runtime) == {}
    assert result_config(config.tracking) == {}
    assert section_of(config, ModelConfig)[0] == "model"
    with pytest.raises(KeyError):
        section_of(config, Outer)


BASE = BaseModel(
    name="tiny",
    folder=Path("/models/tiny"),
    digest="a" * 64,
    tokenizer_digest="b" * 64,
    chat_template="{{ messages }}",
    context_length=512,
    vocab_size=512,
    hidden_size=64,
    architecture="LlamaForCausalLM",
    source="/models/tiny",
)


def table(
    tmp_path: Path, name: str = "samples-answers-base", config: Config | None = None, base: BaseModel = BASE
) -> dict[str, Any]:
    """Inputs of a real stage whose data set is left out."""
    config = config or real_config(tmp_path)
    nodes, problems = nodes_for(config, make_suites(), {}, STAGES)
    assert problems == []
    node = next(node for node in nodes if node.name == name)
    around = Surroundings(config=config, hashes=FileHashes(tmp_path / "hashes.json"), base=base, plugins={})
    return fingerprint_inputs(replace(node, inputs={}), {}, around)


def sealed(path: Path, kind: ArtifactKind, parts: dict[str, str]) -> Artifact:
    manifest = Manifest(
        kind=kind, stage="any", version=1, fingerprint="f" * 64, content_digest="c" * 64, parents=[], config={},
        parts=parts, files={},
    )  # fmt: skip
    return Artifact(path, manifest)


def real_config(tmp_path: Path) -> Config:
    config = make_config(tmp_path / "outputs", fake_stages.write_source(tmp_path / "rows.txt"))
    config.model = ModelConfig(id="tiny")
    return config


def test_moving_or_renaming_the_base_changes_nothing(tmp_path: Path) -> None:
    config = real_config(tmp_path)
    config.model = ModelConfig(id="/elsewhere/tiny", source=ModelSource.hub, revision="main")
    moved = replace(BASE, folder=Path("/elsewhere/tiny"), source="/elsewhere/tiny", name="other")
    assert table(tmp_path, config=config, base=moved) == table(tmp_path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"digest": "c" * 64}, "base weights"),
        ({"tokenizer_digest": "c" * 64}, "base tokenizer"),
        ({"chat_template": "other"}, "chat template"),
        ({"context_length": 1024}, "base context length"),
    ],
)
def test_what_the_base_is_counts(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    before, after = table(tmp_path), table(tmp_path, base=replace(BASE, **change))
    assert [name for name in before if before[name] != after[name]] == [key]
    assert fingerprint(before) != fingerprint(after)


@pytest.mark.parametrize(
    ("field", "value"), [("system_prompt", "Be brief."), ("dtype", DType.float32), ("context_length", 64)]
)
def test_how_the_base_is_used_counts(tmp_path: Path, field: str, value: Any) -> None:
    config = real_config(tmp_path)
    setattr(config.model, field, value)
    before, after = table(tmp_path), table(tmp_path, config=config)
    assert [name for name in before if before[name] != after[name]] == [f"model.{field}"]


def test_the_ends_that_a_model_declares_count_where_it_is_not_the_embedded_one(tmp_path: Path) -> None:
    config = real_config(tmp_path)
    config.model = ModelConfig(id="tiny", source=ModelSource.hub)
    base, declaration = replace(BASE, folder=tmp_path), tmp_path / "generation_config.json"
    before = table(tmp_path, config=config, base=base)
    declaration.write_text(json.dumps({"eos_token_id": [2, 0]}))
    both = table(tmp_path, config=config, base=base)
    assert {name: both[name] for name in both.keys() - before.keys()} == {"base stop ids": [2, 0]}
    assert fingerprint(both) != fingerprint(before)
    declaration.write_text(json.dumps({"eos_token_id": [2, 40]}))
    assert fingerprint(table(tmp_path, config=config, base=base)) != fingerprint(both)
    declaration.write_text(json.dumps({"eos_token_id": [2, 0], "temperature": 0.6}))
    assert table(tmp_path, config=config, base=base) == both, "its other defaults are never used"
    assert table(tmp_path, base=base) == table(tmp_path), "the embedded model's files are made here"


def test_dtype_counts_as_configured(tmp_path: Path) -> None:
    assert table(tmp_path)["model.dtype"] == "auto"


def test_a_template_file_counts_by_its_text(tmp_path: Path) -> None:
    config = real_config(tmp_path)
    (tmp_path / "one.jinja").write_text("{{ messages }}")
    config.model.chat_template = str(tmp_path / "one.jinja")
    assert table(tmp_path, config=config) == table(tmp_path)  # the base's own text
    (tmp_path / "one.jinja").write_text("other")
    assert table(tmp_path, config=config)["chat template"] != table(tmp_path)["chat template"]


def test_every_result_affecting_key_of_a_stage_is_in_its_table(tmp_path: Path) -> None:
    sft = table(tmp_path, "sft")
    kept = {
        "sft.lora.rank",
        "sft.optimizer.learning_rate",
        "sft.seed",
        "sft.max_length",
        "library torch",
        "library trl",
    }
    assert kept <= sft.keys()
    left_out = {"sft.save_every", "sft.keep_checkpoints", "runtime.outputs", "seed", "name"}
    assert not left_out & sft.keys()
    for item in fields(real_config(tmp_path).sft):
        covered = any(key == f"sft.{item.name}" or key.startswith(f"sft.{item.name}.") for key in sft)
        assert covered == item.metadata.get("affects_results", True), item.name


def test_the_version_of_a_stage_and_of_its_libraries_to_the_second_number_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(versions: str, stage: int) -> dict[str, Any]:
        def version(name: str) -> str:
            if name == "trl":
                raise importlib.metadata.PackageNotFoundError(name)
            return versions

        monkeypatch.setattr(importlib.metadata, "version", version)
        config = real_config(tmp_path)
        nodes, _ = nodes_for(config, make_suites(), {}, {**STAGES, "sft": replace(STAGES["sft"], version=stage)})
        node = replace(next(node for node in nodes if node.name == "sft"), inputs={})
        around = Surroundings(config=config, hashes=FileHashes(tmp_path / "hashes.json"), base=BASE, plugins={})
        return fingerprint_inputs(node, {}, around)

    first = made("2.13.0+cpu", 7)
    assert (first["version"], first["library torch"], first["library trl"]) == (7, "2.13", None)
    assert differences(first, made("2.13.4", 7)) == []
    assert differences(first, made("2.13.0", 8)) == ["version: 7 -> 8"]
    assert "library torch: 2.13 -> 2.14" in differences(first, made("2.14.0", 7))


def test_a_file_that_a_filter_reads_counts_for_curate(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("bad\n")
    config = real_config(tmp_path)
    config.curate.filters = [FilterConfig(name="toxicity", params={"words": str(words)})]
    before = table(tmp_path, "curate", config)
    words.write_text("bad\nworse\n")
    assert differences(before, table(tmp_path, "curate", config)) == ["filter toxicity: words.txt changed"]
    assert not any("words.txt" in key for key in table(tmp_path, "sft", config))


def test_a_plugin_counts_for_curate_where_a_filter_of_it_is_used(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from pipeline.data.filters.registry import register_filter\n"
        "@register_filter('of_fingerprint_test')\n"
        "def mine():\n"
        "    'Keep everything.'\n"
        "    return lambda row: row\n",
        encoding="utf-8",
    )
    plugins = load_plugins([str(plugin)])

    def named(stage: str, *filters: str) -> bool:
        config = real_config(tmp_path)
        config.curate.filters = [FilterConfig(name=name) for name in filters]
        node = next(node for node in nodes_for(config, make_suites(), {}, STAGES)[0] if node.name == stage)
        around = Surroundings(config=config, hashes=FileHashes(tmp_path / "hashes"), base=BASE, plugins=plugins)
        return any(key.startswith("plugin ") for key in fingerprint_inputs(replace(node, inputs={}), {}, around))

    assert named("curate", "placeholders", "of_fingerprint_test")
    assert not named("curate", "placeholders")
    assert not named("sft", "of_fingerprint_test")


def test_an_input_without_a_part_that_is_read_is_no_input(tmp_path: Path) -> None:
    """Else its content would be no part of the fingerprint."""
    config = real_config(tmp_path)
    nodes, _ = nodes_for(config, make_suites(), {}, STAGES)
    node = next(node for node in nodes if node.name == "sft")
    dataset = sealed(tmp_path / "curate-1-2", ArtifactKind.dataset, {"prompts/train": "d" * 64})
    around = Surroundings(config=config, hashes=FileHashes(tmp_path / "hashes.json"), base=BASE, plugins={})
    with pytest.raises(ArtifactError, match=r"sft: curate-1-2 \(dataset\) has no part that matches demonstrations"):
        fingerprint_inputs(node, {"dataset": [dataset], "policy": []}, around)


def test_each_of_several_inputs_counts_and_which_is_which(tmp_path: Path) -> None:
    config = real_config(tmp_path)
    nodes, _ = nodes_for(config, make_suites(), {}, STAGES)
    report = next(node for node in nodes if node.name == "report")
    node = replace(report, inputs={"samples": report.inputs["samples"]})
    around = Surroundings(config=config, hashes=FileHashes(tmp_path / "hashes.json"), base=None, plugins={})

    def made(*digits: str) -> str:
        samples = [sealed(tmp_path / digit, ArtifactKind.samples, {"samples": digit * 64}) for digit in digits]
        return fingerprint(fingerprint_inputs(node, {"samples": samples}, around))

    assert made("a", "b") == made("a", "b")
    assert len({made("a", "b"), made("c", "b"), made("a", "c"), made("b", "a")}) == 4


def test_a_file_that_a_check_reads_counts_for_the_report_alone(tmp_path: Path, repository: Path) -> None:
    sheet = tmp_path / "sheet.yaml"
    sheet.write_bytes((repository / "data" / "helpdesk" / "fact_sheet.yaml").read_bytes())
    suites = make_suites()
    suites["answers"].checks = [CheckConfig(name="facts_only", params={"fact_sheet": str(sheet)})]

    def tables() -> list[dict[str, Any]]:
        nodes, _ = nodes_for(real_config(tmp_path), suites, {}, STAGES)
        hashes = FileHashes(tmp_path / "hashes.json")
        around = Surroundings(config=real_config(tmp_path), hashes=hashes, base=BASE, plugins={"mine.py": "d" * 64})
        return [fingerprint_inputs(replace(node, inputs={}), {}, around) for node in nodes]

    before = tables()
    sheet.write_bytes(sheet.read_bytes() + b"\n# another line\n")
    after = tables()
    assert [b == a for b, a in zip(before, after, strict=True)] == [True, True, True, True, False]
    assert differences(before[-1], after[-1]) == ["check answers facts_only: sheet.yaml changed"]
    assert ["plugin mine.py" in entry for entry in before] == [False, False, False, False, True]


def test_differences_name_keys_and_hide_digests() -> None:
    before = {"rate": 0.1, "input dataset: a/train": "a" * 64, "gone": 1, "flag": True, "same": 1}
    after = {"rate": 0.2, "input dataset: a/train": "b" * 64, "flag": False, "same": 1, "plugin x": "c" * 64}
    assert differences(before, after) == [
        "rate: 0.1 -> 0.2",
        "input dataset: a/train changed",
        "flag: true -> false",
        "plugin x is new",
        "gone: no longer 1",
    ]
    assert differences(before, dict(before)) == []


def test_a_suites_own_prompts_count_by_what_they_say_and_not_by_where_they_lie(tmp_path: Path) -> None:
    def digest(name: str, content: str) -> str:
        path = tmp_path / name
        path.write_text(content)
        suites = make_suites("mine")
        suites["mine"].prompts = str(path)
        config = make_config(tmp_path / "outputs", tmp_path / "rows.txt", ("evaluate",))
        nodes, _ = nodes_for(config, suites, {}, fake_stages.STAGES)
        around = Surroundings(config=config, hashes=FileHashes(tmp_path / f"{name}.hashes"), base=None, plugins={})
        node = next(node for node in nodes if node.name == "samples-mine-base")
        return fingerprint(fingerprint_inputs(node, {"dataset": [], "policy": []}, around))

    first = digest("a.jsonl", '{"prompt": "Hi"}')
    assert digest("b.jsonl", '{"prompt": "Hi"}') == first
    assert digest("c.jsonl", '{"prompt": "Ho"}') != first


def test_a_labeling_interface_counts_for_ingest_by_what_it_says_and_not_by_where_it_lies(tmp_path: Path) -> None:
    export, interface = tmp_path / "votes.json", tmp_path / "interface.xml"
    export.write_text("[]")

    def ingested(content: str) -> dict[str, Any]:
        interface.write_text(content)
        source = SourceConfig(table=TableName.exports, path=str(export), labeling_config=str(interface))
        config = real_config(tmp_path)
        config.stages, config.data.sources = ["ingest", "curate"], [*config.data.sources, source]
        return table(tmp_path, "ingest", config)

    before, edited = ingested("<View>left</View>"), ingested("<View>right</View>")
    assert differences(before, edited) == ["data.sources[0].labeling_config content changed"]
    interface = tmp_path / "elsewhere.xml"
    assert ingested("<View>right</View>") == edited


def test_the_system_prompt_is_the_own_models_and_counts_for_no_other(tmp_path: Path) -> None:
    other = tmp_path / "other"  # another model, of which the folder is all that is looked at here
    other.mkdir()
    toy = EndpointConfig(name="toy", base_url="http://localhost:1/v1", model="toy")

    def tables(system_prompt: str | None) -> dict[str, dict[str, Any]]:
        config = real_config(tmp_path)
        config.model.system_prompt = system_prompt
        config.inputs.evaluate.policy = ["base", "sft", str(other), "hub:org/name", "http:toy"]
        nodes, problems = nodes_for(config, make_suites(), {}, STAGES, endpoints={"toy": toy})
        assert problems == []
        around = Surroundings(config=config, hashes=FileHashes(tmp_path / "hashes.json"), base=BASE, plugins={})
        samples = [replace(node, inputs={}) for node in nodes if node.spec.name == "samples"]
        told = {node.params["policy_name"]: node.model for node in samples}
        assert [told[name].system_prompt for name in ("other", "name")] == [None, None]
        return {node.params["policy_name"]: fingerprint_inputs(node, {}, around) for node in samples}

    without, given = tables(None), tables("You are the help desk's own model.")
    moved = {name: differences(without[name], given[name]) for name in without}
    own = ["model.system_prompt: null -> You are the help desk's own model."]
    assert moved == {"base": own, "sft": own, "other": [], "name": [], "toy": []}
    assert not any("system_prompt" in key for key in given["toy"])
