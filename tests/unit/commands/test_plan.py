from __future__ import annotations

from pathlib import Path

import fake_stages
import pytest
from fake_stages import make_config, make_suites, run_chain, write_source
from tiny import make_tiny_model
from transformers import AutoTokenizer

from pipeline.artifacts.base_model import BaseModel
from pipeline.artifacts.hashing import FileHashes, sha256_file
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.commands import plan_tables
from pipeline.commands.plan import Planned, walk
from pipeline.commands.plan_tables import print_other_tables, print_rows, print_samples, print_sft, span
from pipeline.config.data import TableName
from pipeline.config.evaluation import SuiteKind
from pipeline.config.root import Config
from pipeline.config.shared import ModelConfig
from pipeline.data.rows import Comparison, Demonstration, Message, Prompt
from pipeline.data.tables import part_name, rows_digest, write_table
from pipeline.errors import DataError
from pipeline.graph.resolution import Resolution
from pipeline.graph.spec import STAGES
from pipeline.graph.wiring import nodes_for


def walked(config: Config) -> dict[str, Planned]:
    nodes, problems = nodes_for(config, make_suites(), {}, fake_stages.STAGES)
    assert problems == []
    outputs = Path(config.runtime.outputs)
    resolution = Resolution(
        config=config,
        store=Store(outputs),
        hashes=FileHashes(outputs / "hashes.json"),
        base=lambda _: pytest.fail("no fake stage uses a base"),
        say=lambda text: None,
    )
    return {entry.node.name: entry for entry in walk(nodes, resolution)}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_config(tmp_path / "outputs", write_source(tmp_path / "rows.txt"))


def states(planned: dict[str, Planned]) -> list[str]:
    return [entry.state for entry in planned.values()]


def test_before_the_first_run_only_the_data_set_is_made(config: Config) -> None:
    planned = walked(config)
    assert states(planned) == ["made now", "to run", "to run", "unknown", "unknown"]
    assert planned["sft"].reason == "first run"
    assert planned["samples-answers-sft"].reason == "until sft has run"
    assert [path.name.split("-")[0] for path in Store(Path(config.runtime.outputs)).folders()] == ["curate"]
    assert not list(Path(config.runtime.outputs).glob("runs/*"))
    assert states(walked(config))[0] == "cached"


def test_after_a_run_everything_is_cached_and_a_change_is_explained(config: Config) -> None:
    run_chain(config, say=lambda text: None)
    assert states(walked(config)) == ["cached"] * 5
    config.sft.seed = 3
    planned = walked(config)
    assert states(planned) == ["cached", "to run", "cached", "unknown", "unknown"]
    assert planned["sft"].reason == "changed since the last one: sft.seed: 17 -> 3"
    config.sft.seed, config.force = 17, ["evaluate"]
    planned = walked(config)
    assert states(planned) == ["cached", "cached", "to run", "to run", "unknown"]
    assert planned["samples-answers-base"].reason == "asked for by `force`"


def test_a_missing_split_shows_in_the_plan(config: Config, tmp_path: Path) -> None:
    write_source(tmp_path / "rows.txt", test="")
    with pytest.raises(DataError, match="the suite 'answers' needs it"):
        walked(config)


def turn(role: str, content: str) -> Message:
    return Message(role=role, content=content)


def test_tokens_and_steps_are_counted_as_the_stage_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path / "outputs", tmp_path / "rows.txt", ("sft", "evaluate"))
    store, folder = Store(tmp_path / "outputs"), make_tiny_model(tmp_path / "model")
    work, parts = store.work("curate", "c" * 64), {}
    for split, count in (("train", 10), ("test", 3)):
        rows = [
            Demonstration(
                id=f"{split}-{number}",
                source="made",
                licence=None,
                prompt=[turn("user", f"Question {number}?")],
                completion=[turn("assistant", "Long answer. " * (40 if number == 9 else 1))],
            )
            for number in range(count)
        ]
        write_table(work.staging, "demonstrations", split, rows)
        parts[part_name("demonstrations", split)] = rows_digest(rows)
    dataset = store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
        outcome=StageOutcome(parts=parts),
    )  # fmt: skip
    config.inputs.sft.dataset = config.inputs.evaluate.dataset = dataset.id
    config.model = ModelConfig(id=str(folder))
    config.sft.max_length, config.sft.batch_size, config.sft.num_epochs = 80, 4, 2
    base = BaseModel(
        name="tiny", folder=folder, digest=sha256_file(folder / "model.safetensors"), tokenizer_digest="t",
        chat_template="", context_length=512, vocab_size=512, hidden_size=64, architecture="Llama", source="",
    )  # fmt: skip
    nodes, problems = nodes_for(config, make_suites(), {}, STAGES)
    assert problems == []
    hashes = FileHashes(tmp_path / "hashes.json")
    resolution = Resolution(config=config, store=store, hashes=hashes, base=lambda _: base)
    resolution.require_references(nodes)
    print_rows(dataset)
    print_sft(nodes[0], resolution)
    print_samples(nodes[1:3], ["to run", "unknown"], resolution)
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split() for line in lines]
    assert ["demonstrations", "test", "3"] in cells
    assert ["demonstrations", "train", "10"] in cells
    assert [row[:6] for row in cells if row[:2] == ["sft", "train"]] == [["sft", "train", "10", "9", "1", "0"]]
    assert any(line.startswith("sft: dropped of train: 1 ") for line in lines)
    assert "sft: 5 optimizer steps of 4 rows" in lines  # 18 / 4
    assert any(line.startswith("sft: base 0.1 M parameters") for line in lines)
    assert any(line.startswith("sft: time unknown for") for line in lines)
    # 2.8016 standard errors of sqrt(1/4 / 3) each; 5 points: 2.8016^2 / 4 / 0.05^2 = 784.9
    assert ["answers", "base", "3", "80.9", "points", "to", "run", "unknown"] in cells
    assert any(line.endswith("5 points take 785 items.") for line in lines)
    suites = make_suites("mine", "task", "short")
    own = tmp_path / "mine.jsonl"
    own.write_text("".join(f'{{"prompt": "Number {number}"}}\n' for number in range(7)))
    suites["mine"].prompts = suites["short"].prompts = str(own)
    suites["mine"].table = suites["short"].table = TableName.prompts
    suites["short"].limit = 2
    suites["task"].kind, suites["task"].task = SuiteKind.lm_eval, "arc_easy"
    nodes, problems = nodes_for(config, suites, {}, STAGES)
    assert problems == []
    samples = [node for node in nodes if node.name.startswith("samples-") and node.name.endswith("-base")]
    print_samples(samples, ["to run"] * 3, resolution)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["mine", "base", "7"], ["short", "base", "2"]]


def test_prompts_and_comparisons_are_counted_against_the_models_context(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path / "outputs", tmp_path / "rows.txt", ("sft", "evaluate"))
    store, folder = Store(tmp_path / "outputs"), make_tiny_model(tmp_path / "model")
    work = store.work("curate", "c" * 64)
    common = {"source": "made", "licence": None}
    prompts = [Prompt(id=f"p{n}", prompt=[turn("user", "Why? " * (1 + 100 * (n == 3)))], **common) for n in range(4)]
    pairs = [
        Comparison(
            id=f"c{n}", prompt=[turn("user", "Why?")], chosen=[turn("assistant", "So.")],
            rejected=[turn("assistant", "No idea. " * (1 + 100 * (n > 2)))], confidence=1.0, num_votes=1, **common,
        )
        for n in range(5)
    ]  # fmt: skip
    parts = {}
    for table, rows in (("prompts", prompts), ("comparisons", pairs)):
        write_table(work.staging, table, "train", rows)
        parts[part_name(table, "train")] = rows_digest(rows)
    dataset = store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
        outcome=StageOutcome(parts=parts),
    )  # fmt: skip
    config.inputs.sft.dataset = config.inputs.evaluate.dataset = dataset.id
    config.model = ModelConfig(id=str(folder))
    base = BaseModel(
        name="tiny", folder=folder, digest="d", tokenizer_digest="t", chat_template="", context_length=100,
        vocab_size=512, hidden_size=64, architecture="Llama", source="",
    )  # fmt: skip
    nodes, _ = nodes_for(config, make_suites(), {}, STAGES)
    resolution = Resolution(config=config, store=store, hashes=FileHashes(tmp_path / "h.json"), base=lambda _: base)

    def tokens(*turns: Message, **more: bool) -> int:
        return len(tokenizer.apply_chat_template(list(turns), tokenize=True, return_dict=False, **more))

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokens(turn("user", "Why? "), add_generation_prompt=True)
    chosen = tokens(turn("user", "Why?"), turn("assistant", "So."))
    print_other_tables(dataset, nodes, resolution)
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split() for line in lines]
    assert ["prompts", "train", "4", "3", "1", "0", str(3 * prompt), "0", str(prompt)] in cells
    (row,) = [row for row in cells if row[:2] == ["comparisons/chosen", "train"]]
    assert row[2:6] == ["5", "3", "2", "0"], "a pair with one side over the context is dropped from both"
    assert int(row[8]) <= chosen  # the template's last line feed follows the end of the turn and is not encoded
    assert int(row[6]) == 3 * int(row[8])
    assert "comparisons/train: not encoded: 2 overlength" in lines
    assert "these rows are held to the model's context of 100 tokens" in lines

    monkeypatch.setattr(plan_tables, "MAX_ENCODED", 2)
    print_other_tables(dataset, nodes, resolution)
    out = capsys.readouterr().out
    assert "prompts/train: one row in 2 was counted" in out
    assert "comparisons/train: one row in 3 was counted" in out

    print_other_tables(dataset, [], resolution)
    assert capsys.readouterr().out == "", "without a node that uses a model there is no tokenizer to count with"


def test_spans_read_well() -> None:
    assert [span(s) for s in (5, 65, 3600 * 3 + 125)] == ["5 s", "1 min 5 s", "3 h 2 min"]
