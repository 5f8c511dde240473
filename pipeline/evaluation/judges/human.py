"""The judge that is people: pairs are written for a labeling tool, and its export is read back as verdicts.

A vote is found again by what was judged, the prompt and the two texts, so it may come from any tool and any file that
`ingest` reads, and it counts for every pair of policies that wrote these texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.data import DataConfig, SourceConfig, TableName
from pipeline.config.ingest import IngestConfig
from pipeline.config.paths import configs_folder
from pipeline.config.tables import load_tables
from pipeline.data.rows import BadRowError
from pipeline.evaluation.judges.protocol import Answer, Ask, Judge, JudgeContext, Question, Status
from pipeline.evaluation.judges.registry import register_judge
from pipeline.labels.collecting import Collected, ExportAccount, Reporting, collect
from pipeline.labels.pair_votes import PairVotes, pair_of, votes_on_pairs
from pipeline.labels.pairs import LABELING_CONFIG, TASK_KEYS, pair_task
from pipeline.labels.verdicts import Pair

PAIRS_FILE, TASKS_FILE, INTERFACE_FILE = "pairs.jsonl", "tasks.json", "labeling.xml"


@register_judge("human")
def human(
    *, votes: Path | None = None, importer: str = "auto", labeling_config: Path | None = None, people: bool = True
) -> Judge:
    """People compare two completions; the mean of their votes is the score.

    Args:
        votes: An export of the labeling tool; without one the pairs are written and nobody has voted.
        importer: Who reads it: a registered importer or a declared table.
        labeling_config: Label Studio's, where it is not the one that is written here.
        people: False where the votes are a model's, which must then qualify as any other judge.
    """

    @contextmanager
    def opened(context: JudgeContext) -> Iterator[Ask]:
        known: dict[Pair, PairVotes] = {}
        if votes is not None:
            collected = read_votes(votes, importer, labeling_config, context)
            known = votes_on_pairs(collected.votes)

        def ask(questions: Sequence[Question]) -> list[Answer]:
            return [_answer(question, known, context.config.seed) for question in questions]

        yield ask

    return Judge(open=opened, announce=write_tasks, order_sensitive=False, is_people=people, answers_anything=False)


def read_votes(path: Path, importer: str, labeling_config: Path | None, context: JudgeContext) -> Collected:
    """Read an export as `ingest` does, and say what became of its records.

    Raises:
        ConfigError: There is no such importer.
        DataError: It cannot be read.
    """
    interface = None if labeling_config is None else str(labeling_config)
    source = SourceConfig(table=TableName.exports, path=str(path), importer=importer, labeling_config=interface)
    notice = context.job.run.notice

    def account(account: ExportAccount) -> None:
        for line in account.summary():
            notice(line)

    reporting = Reporting(bad_record=lambda entry: notice(f"bad record of {path.name}: {entry}"), account=account)
    data = DataConfig(name=context.config.name, sources=[source])
    return collect(data, IngestConfig(), load_tables([configs_folder()]), reporting)


def write_tasks(context: JudgeContext, questions: Sequence[Question]) -> None:
    """Write what people are to judge: pairs for `label push`, and the same as tasks to import by hand.

    Which side a completion stands on is decided by a keyed hash of the pair, and nothing says whose it is. Pairs that
    nobody can judge, such as those with an empty completion, are left out here and counted as errors.
    """
    folder, pairs, tasks = context.job.staging, [], []
    for question in questions:
        row = _pair_row(question, context.config.seed)
        try:
            task = pair_task(row, context.config.seed)
        except BadRowError:
            continue
        pairs.append(json.dumps(row, sort_keys=True) + "\n")
        tasks.append({"data": {"id": task["id"], **{key: task[key] for key in sorted(TASK_KEYS)}}})
    (folder / PAIRS_FILE).write_text("".join(pairs), encoding="utf-8", newline="\n")
    (folder / TASKS_FILE).write_text(json.dumps(tasks, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
    (folder / INTERFACE_FILE).write_text(LABELING_CONFIG, encoding="utf-8", newline="\n")
    context.job.run.notice(
        f"{context.config.name}: {len(tasks):,} of {len(questions):,} pairs to judge are in {PAIRS_FILE} (for `label "
        f"push`) and {TASKS_FILE} of this artifact; read the export back with evaluate.votes=FILE"
    )


def _pair_row(question: Question, seed: int) -> dict[str, Any]:
    told = json.dumps([seed, question.prompt, sorted(question.shown)])
    identifier = hashlib.sha256(told.encode()).hexdigest()[:16]
    return {"id": identifier, "prompt": question.prompt, "completions": list(question.shown)}


def _answer(question: Question, known: Mapping[Pair, PairVotes], seed: int) -> Answer:
    pair, swapped = pair_of(question.prompt, *question.shown)
    votes = known.get(pair)
    if votes is not None:
        return Answer(score=1 - votes.mean if swapped else votes.mean)
    try:
        pair_task(_pair_row(question, seed), seed)
    except BadRowError as error:
        return Answer(score=None, status=Status.error, detail=str(error))
    return Answer(score=None, status=Status.no_vote)
