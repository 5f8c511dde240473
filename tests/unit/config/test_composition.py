"""Composing real configurations: strict keys, near misses, one report of everything that is wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import hydra
import pytest
from hydra import initialize_config_dir

from pipeline.commands.composing import compose
from pipeline.config.composition import Composed, load, load_suite, register_schema
from pipeline.config.data import SourceConfig, SourceSplit, TableName
from pipeline.config.paths import configs_folder
from pipeline.config.root import Config
from pipeline.config.shared import DType
from pipeline.config.suggestions import key_paths, unknown_key
from pipeline.config.validation import problems_in
from pipeline.errors import ConfigError

EXPERIMENTS = sorted(file.stem for file in (configs_folder() / "experiment").glob("*.yaml"))
SUITES = sorted(file.stem for file in (configs_folder() / "suite").glob("*.yaml"))


def composed(*overrides: str, search_path: list[Path] | None = None) -> Composed:
    """What overrides make, by Hydra's function: its command line composes everything twice."""
    register_schema()
    with initialize_config_dir(str(configs_folder()), version_base="1.3"):
        return load(hydra.compose("train", overrides=list(overrides)), search_path or [configs_folder()])


def on_the_command_line(*arguments: str) -> Composed:
    result: list[Composed] = []
    compose("train", list(arguments), lambda config: result.append(load(config, [configs_folder()])))
    return result[0]


@pytest.mark.slow
def test_the_command_line_composes_what_hydra_composes() -> None:
    overrides = ("+experiment=dpo", "dpo.beta=0.5")
    assert on_the_command_line(*overrides).resolved == composed(*overrides).resolved
    assert composed(*overrides).resolved != composed("+experiment=dpo").resolved


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_without_problems(name: str) -> None:
    loaded = composed(f"+experiment={name}")
    assert loaded.config.name == name
    assert loaded.problems == []


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_loads(name: str) -> None:
    assert load_suite(name, [configs_folder()]).name == name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gsm8k", "jsonl", "exports", "hub", "open_votes"])
@pytest.mark.parametrize("given", [[], ["data.path=null"]])
def test_a_preset_for_a_file_of_ones_own_asks_for_it_beside_all_else(name: str, given: list[str]) -> None:
    found = composed("+experiment=sft", f"data={name}", *given, "evaluate.suites=[heldout]", "sft.lora.rank=0").problems
    assert found == ["data.path: has no value; add `data.path=…`", "sft.lora.rank=0: must be at least 1."]


@pytest.mark.parametrize("name", sorted(file.stem for file in (configs_folder() / "data").glob("*.yaml")))
def test_every_data_preset_composes(name: str) -> None:
    path = configs_folder() / "train.yaml"  # any file that is there: what it holds is not read
    loaded = composed("+experiment=sft", f"data={name}", f"data.path={path}", "evaluate.suites=[heldout]")
    assert [problem for problem in loaded.problems if "path" not in problem] == []


def test_values_reach_the_dataclasses() -> None:
    config = composed("+experiment=sft", "sft.lora.rank=32", "sft.optimizer.learning_rate=1e-4", "seed=5").config
    assert config.sft.lora.rank == 32
    assert config.sft.optimizer.learning_rate == 1e-4
    assert config.sft.seed == 5  # follows `seed`
    assert config.evaluate.suites == config.data.suites


# Sections whose seed is their own, and why.
OWN_SEEDS = {
    "ingest": "what the votes say does not depend on what is trained on them",
    "curate": "sweeping `seed` must not split the data anew",
    "sweep": "of the search, which may try several seeds of training",
}


def test_every_training_section_follows_the_seed() -> None:
    config = composed("+experiment=sft", "seed=12345").config
    seeds = {entry.name: getattr(getattr(config, entry.name), "seed", None) for entry in fields(Config)}
    followed = {name: seed for name, seed in seeds.items() if seed is not None and name not in OWN_SEEDS}
    assert followed == dict.fromkeys(followed, 12345)
    assert {"sft", "reward", "dpo", "kto", "ppo", "grpo"} <= followed.keys()
    assert all(seeds[name] != 12345 for name in OWN_SEEDS)


def test_ppo_in_float16_is_refused() -> None:
    loaded = composed("+experiment=ppo", "model.dtype=float16")
    [problem] = loaded.problems
    assert problem.startswith("model.dtype=float16:")
    assert "bfloat16" in problem
    loaded.config.model.dtype = DType.bfloat16
    assert problems_in(loaded.config) == []


def test_a_training_stage_is_always_evaluated() -> None:
    assert composed("+experiment=sft", "stages=[curate,sft]").config.stages == ["curate", "sft", "evaluate"]
    assert composed("+experiment=curate").config.stages == ["ingest", "curate"]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("sft.lora.rnak=3", "`sft.lora.rank`"),
        ("sft.learning_rate=1e-4", "`sft.optimizer.learning_rate`"),
        ("modle.id=x", "`model.id`"),
        ("model=smolm2", "`smollm2`"),
        ("+experiment=stf", "`sft`"),
        ("experiment=sft", "`+experiment=sft`"),
        ("sft.seed.x=1", "`sft.seed` is a value"),
    ],
)
def test_a_mistyped_word_names_what_was_meant(argument: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        on_the_command_line(*([] if argument.endswith("experiment=sft") else ["+experiment=sft"]), argument)
    assert expected in str(caught.value)
    assert argument in str(caught.value)


def test_every_mistyped_key_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        on_the_command_line("+experiment=sft", "sft.lora.rnak=3", "trakcing.mode=offline")
    assert "sft.lora.rank" in str(caught.value)
    assert "tracking.mode" in str(caught.value)


def test_a_mistyped_key_in_a_file_names_the_file_and_the_key(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nsft: {lora: {rnak: 3}}\n")
    with pytest.raises(ConfigError) as caught:
        on_the_command_line("--config-dir", str(tmp_path), "+experiment=mine")
    assert "experiment/mine" in str(caught.value)
    assert "`sft.lora.rank`" in str(caught.value)


def test_broken_yaml_is_told_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nsft: {lora: {rank: 3}\nseed: 1\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:\d+"):
        on_the_command_line("--config-dir", str(tmp_path), "+experiment=mine")


def test_every_problem_with_a_value_is_in_one_report() -> None:
    loaded = composed(
        "+experiment=sft",
        "sft.lora.rank=0",
        "sft.optimizer.learning_rate=-1",
        "sft.batch_size=9",
        "evaluate.suites=[heldot]",
    )
    report = "\n".join(loaded.problems)
    for key in ("sft.lora.rank=0", "sft.optimizer.learning_rate=-1", "sft.batch_size=9", "Did you mean `heldout`"):
        assert key in report


@pytest.mark.slow
def test_only_listed_stages_are_checked() -> None:
    assert composed("+experiment=curate", "sft.lora.rank=0").problems == []
    assert composed("+experiment=sft", "sft.lora.rank=0").problems != []


def test_a_limit_shortens_what_is_trained_on_and_nothing_else() -> None:
    loaded = composed("+experiment=reward", "data.limit=40")
    assert loaded.problems == []
    limits = {Path(source.path).name: source.limit for source in loaded.config.data.sources}
    assert {name: limit for name, limit in limits.items() if limit} == {"demonstrations.jsonl": 40, "votes.json": 40}
    assert {"test_prompts.jsonl", "test_votes.json"} <= set(limits)  # what is tested on stays whole


@pytest.mark.slow
def test_what_no_source_takes_is_refused_with_what_to_write(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    assert any("`data=jsonl`" in problem for problem in composed("+experiment=sft", f"data.path={rows}").problems)
    [folder] = composed("+experiment=sft", "data=jsonl", f"data.path={tmp_path}").problems
    assert folder.startswith("data.sources[0].path:")
    assert "is a folder" in folder
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        f"name: mine\nsources: [{{table: demonstrations, path: {rows}}}]\nsuites: [heldout]\n"
    )
    chosen = ("--config-dir", str(tmp_path), "+experiment=sft", "data=mine")
    assert on_the_command_line(*chosen).problems == []
    [problem] = on_the_command_line(*chosen, "data.limit=5").problems
    assert problem.startswith("data.limit=5:")
    assert "`limit: ${data.limit}`" in problem
    [problem] = on_the_command_line(*chosen, "data.revision=v1").problems
    assert problem.startswith("data.revision=v1:")


def test_a_data_set_of_the_hub_is_pinned_by_one_key() -> None:
    pinned = composed("+experiment=curate", "data=hub", "data.path=tiny/set", "data.revision=v1", "data.limit=5")
    assert pinned.problems == []
    [source] = pinned.config.data.sources
    assert (source.path, source.revision, source.limit) == ("tiny/set", "v1", 5)
    [source] = composed("+experiment=curate", "data=hub", "data.path=tiny/set").config.data.sources
    assert source.revision is None
    with_subset = "data.sources=[{table: demonstrations, path: '${data.path}', format: hub, subset: main}]"
    loaded = composed("+experiment=curate", "data=hub", "data.path=tiny/set", with_subset)
    assert loaded.problems == []
    assert (loaded.config.data.sources[0].path, loaded.config.data.sources[0].subset) == ("tiny/set", "main")


def test_missing_values_are_listed_with_what_to_write() -> None:
    loaded = composed("+experiment=sft", "model=hub", "sft.lora.rank=0")
    assert loaded.problems[0] == "model.id: has no value; add `model.id=…`"
    assert any("sft.lora.rank=0" in problem for problem in loaded.problems)  # in the same report


def test_wrong_types_name_the_key() -> None:
    with pytest.raises(ConfigError) as caught:
        on_the_command_line("+experiment=sft", "sft.num_epochs=many", "sft.overlength=rise")
    assert "`sft.num_epochs=many`" in str(caught.value)
    assert "[drop, truncate, raise]" in str(caught.value)


def test_a_suite_file_is_strict(tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "mine.yaml").write_text("kind: generation\ntable: prompts\ncheks: []\n")
    with pytest.raises(ConfigError, match="cheks"):
        load_suite("mine", [tmp_path])


def test_known_keys_are_known() -> None:
    paths = list(key_paths(Config))
    assert "sft.optimizer.learning_rate" in paths
    assert [path for path in paths if unknown_key(path, Config)] == []


OWN = """
kind: generation
table: prompts
prompts: mine.jsonl
judges: [rules]
rubric:
  - {name: helpful, description: "Is it solved, really?", levels: {1: not at all, 5: fully}}
"""


def own_suite(folder: Path, content: str = OWN) -> list[Path]:
    (folder / "suite").mkdir(exist_ok=True)
    (folder / "suite" / "mine.yaml").write_text(content)
    return [folder, configs_folder()]


@pytest.mark.slow
def test_a_suite_with_own_prompts_and_criteria(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text('{"prompt": "Hi"}\n')
    loaded = composed("+experiment=sft", "evaluate.suites=[mine,heldout]", search_path=own_suite(tmp_path))
    assert loaded.problems == []
    suite = loaded.suites["mine"]
    assert (suite.judges, suite.rubric[0].name, suite.rubric[0].levels[5]) == (["rules"], "helpful", "fully")
    guard = loaded.config.data.sources[-1]
    assert (guard.path, guard.split, guard.table) == ("mine.jsonl", "guard", "prompts")
    # A data set by itself is the same one, so that training after it finds it again.
    alone = composed("+experiment=curate", "evaluate.suites=[mine,heldout]", search_path=own_suite(tmp_path))
    assert alone.config.data.sources == loaded.config.data.sources
    assert all(source.split != "guard" for source in composed("+experiment=sft").config.data.sources)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("prompts: mine.jsonl", "prompts: mime.jsonl", "prompts: there is no file mime.jsonl"),
        ("prompts: mine.jsonl", "columns: {prompt: q}", "columns: they are of the file that `prompts` names"),
        ("prompts: mine.jsonl", "promts: mine.jsonl", "promts"),
        ("kind: generation", "kind: likelihood", "judges: a likelihood suite has no completion"),
        ("kind: generation", "kind: likelihood", "table=prompts: a likelihood suite reads demonstrations"),
        (
            "table: prompts",
            "table: comparisons",
            "table=comparisons: a generation suite reads prompts or demonstrations",
        ),
        ("name: helpful", "name: Helpful one", "rubric[0].name='Helpful one': must be lower-case words"),
        ('"Is it solved, really?"', '""', "rubric[0].description: says nothing"),
        ("5: fully", "6: fully", "rubric[0].levels.6: ratings go from 1 to 5"),
    ],
)
def test_a_wrong_suite_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text('{"prompt": "Hi"}\n')
    assert OWN.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        load_suite("mine", own_suite(tmp_path, OWN.replace(old, new)))
    assert problem in str(caught.value)


def test_exports_cannot_be_a_guard() -> None:
    config = composed("+experiment=sft").config
    assert problems_in(config) == []
    config.data.sources[2].split = SourceSplit.guard
    assert problems_in(config) == ["data.sources[2].split=guard: exports are votes to learn from; write `split: test`."]


def test_a_labeling_interface_that_is_not_there_is_told_by_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "votes.json").write_text("[]", encoding="utf-8")
    config = composed("+experiment=dpo").config
    source = SourceConfig(table=TableName.exports, path=str(tmp_path / "votes.json"))
    config.data.sources.append(source)
    assert problems_in(config) == []
    source.labeling_config = str(tmp_path / "interface.xml")
    (problem,) = problems_in(config)
    number = len(config.data.sources) - 1
    assert problem.startswith(f"data.sources[{number}].labeling_config: there is no file {source.labeling_config}.")
    (tmp_path / "interface.xml").write_text("<View/>", encoding="utf-8")
    assert problems_in(config) == []
