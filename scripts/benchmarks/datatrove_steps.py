"""datatrove's MinHash from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import TextNormConfig
from datatrove.utils.typeshelper import Languages
from datatrove.utils.word_tokenizers import WordTokenizer

from benchmarks.curate import MAX_CHARACTERS, MIN_CHARACTERS

ROWS_OF_BAND = 8


class Spaces(WordTokenizer):
    """Words parted at white space; punctuation is gone by then."""

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the text as one sentence."""
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return the text as one span."""
        return [(0, len(text))]


def as_document(reader: Any, data: dict[str, Any], path: str, place: int | str) -> dict[str, Any]:
    """Return prompt and completion as one text."""
    return {"text": f"{data['prompt']}\n{data['completion']}", "id": data["id"]}


def has_length(document: Any) -> bool:
    """Whether a text is neither too short nor too long."""
    return MIN_CHARACTERS <= len(document.text) <= 2 * MAX_CHARACTERS


def run(files: Path, folder: Path, num_workers: int, num_permutations: int, ngram: int, *, by_spaces: bool) -> None:
    """Run the four steps."""
    config = MinhashConfig(
        n_grams=ngram,
        num_buckets=num_permutations // ROWS_OF_BAND,
        hashes_per_bucket=ROWS_OF_BAND,
        norm_config=TextNormConfig(norm_numbers=False, norm_weekdays=False, norm_monthnames=False),
    )
    language = Spaces() if by_spaces else Languages.english
    num_files = len(list(files.glob("rows-*.jsonl")))

    def reader() -> Any:
        return JsonlReader(str(files), glob_pattern="rows-*.jsonl", adapter=as_document)

    steps: list[tuple[int, list[Any]]] = [
        (
            num_files,
            [
                reader(),
                LambdaFilter(has_length),
                MinhashDedupSignature(str(folder / "signatures"), config=config, language=language),
            ],
        ),
        (config.num_buckets, [MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config)]),
        (1, [MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"), config=config)]),
        (
            num_files,
            [
                reader(),
                LambdaFilter(has_length),
                MinhashDedupFilter(str(folder / "remove")),
                JsonlWriter(str(folder / "kept"), output_filename="${rank}.jsonl", compression=None),
            ],
        ),
    ]
    for number, (tasks, pipeline) in enumerate(steps):
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=num_workers, logging_dir=str(folder / f"logs-{number}"), start_method="spawn"
        ).run()
