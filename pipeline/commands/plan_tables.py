"""The tables of `plan`: rows, tokens, steps, memory and time, counted by the code that the stages run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import pyarrow.parquet

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import BaseModel
from pipeline.commands.runs import print_table, size
from pipeline.config.data import TableName
from pipeline.config.evaluation import SuiteConfig, SuiteKind, own_source
from pipeline.config.root import Config
from pipeline.config.stages import TrainingConfig
from pipeline.data.encode import (
    Chat,
    Dropped,
    Encoded,
    EncodingCounts,
    encode_comparison,
    encode_prompt_row,
    encode_rows,
    encode_unpaired,
    load_chat,
)
from pipeline.data.pairs import PairCounts
from pipeline.data.rows import Comparison, Demonstration, Prompt, Unpaired
from pipeline.data.suite_rows import read_suite_rows
from pipeline.data.tables import part_name, read_table
from pipeline.graph.estimates import MemoryEstimate, remembered_rate, training_memory
from pipeline.graph.fingerprint import result_config
from pipeline.graph.nodes import Node
from pipeline.graph.resolution import Resolution
from pipeline.runtime.environment import environment
from pipeline.stages.order import num_optimizer_steps

SMALL_DIFFERENCE, PLANNED_VARIANCE = 0.05, 0.25  # of shares that differ on a quarter of the items
MAX_ENCODED = 20_000  # rows of a table that no stage reads; more are counted by a sample


class Dropping(Protocol):
    """Counts of rows that a stage keeps and drops."""

    dropped: dict[str, int]  # by reason


def print_rows(dataset: Artifact) -> None:
    """Print how many rows each table and split has."""
    rows = []
    for part in sorted(dataset.manifest.parts):
        table, _, split = part.partition("/")
        count = pyarrow.parquet.read_metadata(dataset.file(f"{part}.parquet")).num_rows
        rows.append([table, split, f"{count:,}"])
    print_table("TABLE SPLIT ROWS", rows, nothing=f"{dataset.id} has no rows")


def print_sft(node: Node, resolution: Resolution) -> None:
    """Print tokens, steps, memory and time of supervised fine-tuning."""
    config, base, dataset = resolution.config, resolution.base_for(node), find_dataset(node, resolution)
    if base is None or dataset is None:
        return
    counts = count_tokens(config, base, dataset)
    header = "ROWS KEPT DROPPED TRUNCATED TOKENS SUPERVISED LONGEST"
    print_counts(node.name, header, {split: _cells(count) for split, count in counts.items()}, counts)
    sft, train = config.sft, counts["train"]
    if not train.encoded:
        print(f"{node.name}: no train row is left; raise sft.max_length or set sft.overlength=truncate\n")
        return
    print_training(node, resolution, base, sft, train, sides=1)


def find_dataset(node: Node, resolution: Resolution) -> Artifact | None:
    """Return the data set that a node reads; None as long as it is not made."""
    source = node.inputs["dataset"][0]
    return resolution.reference(source.reference) if source.reference else resolution.made.get(source.node or "")


def print_counts(name: str, header: str, cells: Mapping[str, Sequence[str]], counts: Mapping[str, Dropping]) -> None:
    """Print what a stage keeps of each split, a column for each word of the header, and why it drops the rest."""
    print_table(f"STAGE SPLIT {header}", [[name, split, *row] for split, row in cells.items()])
    for split, count in counts.items():
        if count.dropped:
            reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(count.dropped.items()))
            print(f"{name}: dropped of {split}: {reasons}")


def print_training(
    node: Node,
    resolution: Resolution,
    base: BaseModel,
    section: TrainingConfig,
    train: EncodingCounts | PairCounts,
    *,
    sides: int,
    upper_layers: int | None = None,
    num_tokens: int = 0,
) -> None:
    """Print steps, memory and time of a training; `graph.estimates.training_memory` says what the rest is."""
    steps = num_optimizer_steps(
        train.encoded, num_epochs=section.num_epochs, batch_size=section.batch_size, max_steps=section.max_steps
    )
    memory = training_memory(
        base.folder, section, resolution.config.model, train.longest, sides=sides, upper_layers=upper_layers,
        num_tokens=num_tokens,
    )  # fmt: skip
    print(f"{node.name}: {steps:,} optimizer steps of {section.batch_size} {'pairs' if sides == 2 else 'rows'}")
    print_memory(node.name, memory)
    if node.name in resolution.made:
        print(f"{node.name}: cached, so nothing is trained\n")
        return
    tokens = train.total_tokens * min(steps * section.batch_size / train.encoded, section.num_epochs)
    time = expected_time(node, resolution, base, "processed_tokens", tokens, lambda rate: f"{rate:,.0f} tokens/s")
    print(f"{node.name}: {time}\n")


def print_memory(name: str, memory: MemoryEstimate) -> None:
    """Print parameters and bytes."""
    millions = f"base {memory.base_parameters / 1e6:.1f} M parameters, adapter {memory.adapter_parameters / 1e6:.2f} M"
    parts = f"base {size(memory.base)}, adapter and optimizer {size(memory.adapter)}, "
    parts += f"activations {size(memory.activations)}, head {size(memory.head)}"
    parts += f", kept states of the lower layers {size(memory.kept)}" if memory.kept else ""
    print(f"{name}: {millions}; memory about {size(memory.total)} ({parts}); right to about a half")


def count_tokens(config: Config, base: BaseModel, dataset: Artifact) -> dict[str, EncodingCounts]:
    """Encode the demonstrations as the stage will and return what becomes of them, by split."""
    chat = load_chat(base.folder, config.model)
    for notice in chat.notices:
        print(notice)
    counts = {}
    for split in ("train", "validation"):
        if part_name("demonstrations", split) in dataset.manifest.parts:
            rows = read_table(dataset, "demonstrations", split, Demonstration)
            counts[split] = encode_rows(rows, chat, config.sft.max_length, config.sft.overlength).counts
    return counts


def print_other_tables(dataset: Artifact, nodes: Sequence[Node], resolution: Resolution) -> None:
    """Print the tokens of prompts, comparisons and labelled completions, against the model's context.

    What a stage that learns from comparisons keeps of them is in its own table; what does not fit into the context fits
    nowhere. Nothing is printed where no node of the run uses a model, because then there is no tokenizer either.
    """
    base = next((found for node in nodes if (found := resolution.base_for(node)) is not None), None)
    if base is None:
        return
    chat, rows, notes = load_chat(base.folder, resolution.config.model), [], []
    for part in sorted(dataset.manifest.parts):
        table, _, split = part.partition("/")
        if table == TableName.demonstrations:
            continue
        step, counts = count_part(dataset, table, split, chat, base.context_length)
        rows += [[name, split, *_cells(count)] for name, count in counts.items()]
        dropped = next(iter(counts.values())).dropped
        if dropped:
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(dropped.items()))
            notes.append(f"{part}: not encoded: {reasons}")
        if step > 1:
            notes.append(f"{part}: one row in {step} was counted")
    if rows:
        print_table("TABLE SPLIT ROWS KEPT DROPPED TRUNCATED TOKENS SUPERVISED LONGEST", rows)
        for note in notes:
            print(note)
        print(f"these rows are held to the model's context of {base.context_length:,} tokens\n")


def count_part(
    dataset: Artifact, table: str, split: str, chat: Chat, max_length: int
) -> tuple[int, dict[str, EncodingCounts]]:
    """Encode prompts, comparisons or labelled completions of one split, of large ones every n-th row.

    Returns:
        n, and what becomes of the rows: of comparisons by side.
    """
    if table == TableName.prompts:
        prompts = read_table(dataset, table, split, Prompt)
        step = -(-len(prompts) // MAX_ENCODED)
        counts = {"prompts": EncodingCounts()}
        for prompt in prompts[::step]:
            counts["prompts"].add(encode_prompt_row(prompt, chat, max_length))
        return step, counts
    if table == TableName.unpaired:
        thumbs = read_table(dataset, table, split, Unpaired)
        step = -(-len(thumbs) // MAX_ENCODED)
        counts = {"unpaired": EncodingCounts()}
        for thumb in thumbs[::step]:
            counts["unpaired"].add(encode_unpaired(thumb, chat, max_length))
        return step, counts
    comparisons = read_table(dataset, table, split, Comparison)
    step = -(-len(comparisons) // MAX_ENCODED)
    counts = {f"{table}/{side}": EncodingCounts() for side in ("chosen", "rejected")}
    for comparison in comparisons[::step]:
        pair = encode_comparison(comparison, chat, max_length)
        sides: tuple[Encoded | Dropped, Encoded | Dropped] = (pair, pair) if isinstance(pair, Dropped) else pair
        for count, side in zip(counts.values(), sides, strict=True):
            count.add(side)
    return step, counts


def print_samples(nodes: Sequence[Node], states: Sequence[str], resolution: Resolution) -> None:
    """Print how many items each suite asks, how small a difference so many find, and how long as many took before."""
    from pipeline.statistics.power import detectable_difference, items_needed  # scipy, which other commands do without

    rows, fewest = [], items_needed(SMALL_DIFFERENCE, PLANNED_VARIANCE)
    for node, state in zip(nodes, states, strict=True):
        suite, base = node.params["suite"], resolution.base_for(node)
        num_rows = _num_rows(node, suite, resolution)
        if base is None or num_rows is None:
            continue
        items = min(num_rows, suite.limit or num_rows)
        same = {"suite": result_config(suite)}
        known = remembered_rate(resolution.store, node.spec.name, "items", environment(), base.digest, same)
        time = "unknown" if known is None else f"about {span(items / known[0])}"
        found = detectable_difference(items, PLANNED_VARIANCE) if suite.kind is SuiteKind.generation else None
        finds = "-" if found is None else f"{100 * found:.1f} points"
        rows.append(
            [suite.name, node.params["policy_name"], f"{items:,}", finds, state, "-" if state == "cached" else time]
        )
    if rows:
        print_table("SUITE POLICY ITEMS FINDS STATE TIME", rows)
        print(
            "FINDS: the difference of a share that is found in four of five cases where two policies disagree on every "
            f"fourth item; {100 * SMALL_DIFFERENCE:.0f} points take {fewest:,} items.\n"
        )


def _num_rows(node: Node, suite: SuiteConfig, resolution: Resolution) -> int | None:
    """Return how many rows a suite chooses its items from; None where only running it can tell."""
    if (own := own_source(suite)) is not None:
        return len(read_suite_rows(own, suite.name))
    for source in node.inputs.get("dataset", ()):
        dataset = resolution.made.get(source.node or "")
        if source.reference is not None:
            dataset = resolution.reference(source.reference)
        if dataset is not None:
            return int(pyarrow.parquet.read_metadata(dataset.file(f"{suite.table}/{suite.split}.parquet")).num_rows)
    return None


def expected_time(
    node: Node, resolution: Resolution, base: BaseModel, metric: str, amount: float, pace: Callable[[float], str]
) -> str:
    """Say how long so much of a metric took on this machine before; ``pace`` says a rate per second in words."""
    unit = metric.rpartition("_")[2]
    known = remembered_rate(resolution.store, node.spec.name, metric, environment(), base.digest, {})
    if known is None:
        return f"time unknown for {amount:,.0f} {unit}: this machine has sealed no such run with this base yet"
    rate, artifact = known
    return (
        f"about {span(amount / rate)} for {amount:,.0f} {unit} at {pace(rate)}, measuring and loading included, as "
        f"{artifact.id} took"
    )


def span(seconds: float) -> str:
    """Return a span of time in the two units that read best."""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{seconds:.0f} s"


def _cells(counts: EncodingCounts) -> list[str]:
    dropped = sum(counts.dropped.values())
    numbers = [counts.given, counts.encoded, dropped, counts.truncated, counts.total_tokens]
    numbers += [counts.supervised_tokens, counts.longest]
    return [f"{number:,}" for number in numbers]
