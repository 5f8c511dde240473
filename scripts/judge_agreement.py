"""How far judges agree with people, beside how far two people agree: PandaLM's test set, three annotators a pair.

``python scripts/judge_agreement.py FOLDER/pandalm --judges style base --pairs 200``
``python scripts/judge_agreement.py FOLDER/pandalm --judges gold --reward-model reward-0123 --outputs outputs``

FOLDER holds ``testset-v1.json`` and, if the stored verdicts of a model are to be measured as well,
``gpt-3.5-turbo-testset-v1.json`` (https://github.com/WeOpenML/PandaLM, Apache-2.0). Everything is cached and resumed as
in a run of the pipeline. Ends with one line of JSON: the scorecard of each judge. A judge that counts the checks of a
suite, such as `rules`, does not apply to votes, which come without a suite, and is shown so.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.artifacts.base_model import cache_folder, resolve_base  # noqa: E402  (the path is set above)
from pipeline.artifacts.hashing import FileHashes  # noqa: E402
from pipeline.artifacts.store import Store  # noqa: E402
from pipeline.config.composition import load_judges  # noqa: E402
from pipeline.config.data import DataConfig, SourceConfig, TableName  # noqa: E402
from pipeline.config.evaluation import EvaluateConfig, SuiteConfig, SuiteKind  # noqa: E402
from pipeline.config.judges import JudgeConfig, QualificationConfig, VotePool  # noqa: E402
from pipeline.config.paths import configs_folder  # noqa: E402
from pipeline.config.root import EVALUATE, INGEST, Config, EvaluateInputs, InputsConfig  # noqa: E402
from pipeline.config.shared import DType, ModelConfig, ModelSource, RuntimeConfig, TrackingConfig, TrackingMode  # noqa: E402
from pipeline.config.tables import load_tables  # noqa: E402
from pipeline.errors import ConfigError, PipelineError  # noqa: E402
from pipeline.evaluation.judges.registry import build_judge  # noqa: E402
from pipeline.evaluation.judges.reward_model import GOLD  # noqa: E402
from pipeline.evaluation.scorecards import shortcomings  # noqa: E402
from pipeline.graph.chain import Wiring  # noqa: E402
from pipeline.graph.execution import run_nodes  # noqa: E402
from pipeline.graph.judging import Judging  # noqa: E402
from pipeline.graph.run_folder import RunFolder  # noqa: E402
from pipeline.graph.spec import STAGES  # noqa: E402
from pipeline.graph.wiring import nodes_for  # noqa: E402
from pipeline.stages.scorecard import CARD_FILE  # noqa: E402
from pipeline.tracking.session import TrackingSession  # noqa: E402

VOTES, STORED = "testset-v1.json", "gpt-3.5-turbo-testset-v1.json"
STORED_JUDGE = "gpt-3.5-turbo"
NOT_APPLICABLE = "does not apply to votes"
COLUMNS = (
    "agreement", "kappa", "kappa_with_one_person", "human_agreement", "human_kappa", "consistency", "first_slot_bias",
    "prefers_longer", "people_prefer_longer", "null_win_rate", "injection_flip_rate", "padding_flip_rate",
    "calibration_error",
)  # fmt: skip


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure judges against PandaLM's annotators.")
    parser.add_argument("folder", type=Path, help=f"holds {VOTES}")
    parser.add_argument("--judges", nargs="*", default=["style", "base"], help="files of configs/judge/")
    told = "artifact's id or path, for judges that go by `gold`; pairs whose prompts it learnt from are left out"
    parser.add_argument("--reward-model", default=None, help=told)
    parser.add_argument("--pairs", type=int, default=200, help="with votes, the first by hash")
    parser.add_argument("--probes", type=int, default=10, help="of them that attacks are tried on")
    parser.add_argument("--model", default=None, help="folder or hub id of the local judge; default: the embedded one")
    parser.add_argument("--dtype", default="auto", choices=[dtype.value for dtype in DType])
    parser.add_argument("--outputs", default="outputs")
    return parser.parse_args(argv)


def stored_votes(folder: Path, target: Path) -> Path | None:
    """Write the stored verdicts of the model as an export in which it is the annotator; None where there are none.

    Raises:
        ConfigError: They are not verdicts on the pairs of the votes.
    """
    if not (folder / STORED).is_file():
        return None
    rows = []
    try:
        pairs = {row["idx"]: row for row in json.loads((folder / VOTES).read_text(encoding="utf-8"))}
        for row in json.loads((folder / STORED).read_text(encoding="utf-8")):
            pair = pairs[row["idx"]]
            texts = {key: pair[key] for key in ("instruction", "input", "response1", "response2")}
            rows.append({**texts, "annotator1": row["gpt_result"]})
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / STORED}: not PandaLM's stored verdicts on the pairs of {VOTES} ({error!r}). "
            "Take both files from one version of PandaLM, or remove this one."
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return target


def configuration(options: argparse.Namespace) -> Config:
    """Return what a run of the pipeline would be composed to."""
    votes = SourceConfig(
        table=TableName.exports, path=str(options.folder / VOTES), importer="pandalm", licence="Apache-2.0"
    )
    asked = QualificationConfig(votes=VotePool.all, num_pairs=options.pairs, num_probes=options.probes)
    model = ModelConfig(id="SmolLM2-135M-Instruct", dtype=DType(options.dtype))
    if options.model:
        model = ModelConfig(source=ModelSource.hub, id=options.model, dtype=DType(options.dtype))
    return Config(
        name="judges",
        stages=[INGEST],
        inputs=InputsConfig(evaluate=EvaluateInputs(gold=options.reward_model)),
        model=model,
        data=DataConfig(name="pandalm", sources=[votes]),
        evaluate=EvaluateConfig(qualification=asked),
        runtime=RuntimeConfig(outputs=options.outputs),
        tracking=TrackingConfig(mode=TrackingMode.disabled),
    )


def chosen_judges(options: argparse.Namespace) -> dict[str, JudgeConfig]:
    """Read the judges that are asked for, the members of panels before the panels.

    Raises:
        ConfigError: There are no votes, no such judge, or no reward model for one that needs it.
    """
    problems: list[str] = []
    if not (options.folder / VOTES).is_file():
        problems.append(f"{options.folder}: there is no {VOTES}. Name the folder of PandaLM's test set.")
    judges = load_judges(options.judges, [configs_folder()], problems)
    lacking = [name for name, config in judges.items() if build_judge(config).reward_model == GOLD]
    if lacking and options.reward_model is None:
        problems.append(
            f"--judges {' '.join(lacking)}: a reward model is needed. Write --reward-model with its artifact's id."
        )
    if problems:
        raise ConfigError("\n".join(problems))
    return judges


def needs_suite(name: str, judges: dict[str, JudgeConfig]) -> bool:
    """Whether a judge, or a member of the panel that it is, counts the checks of a suite, which votes do not have."""
    return any(build_judge(judges[one]).checks is None for one in (name, *judges[name].members))


def measure(config: Config, judges: dict[str, JudgeConfig]) -> dict[str, dict[str, Any]]:
    """Run or reuse the scorecard of every judge and return their contents."""
    tables = load_tables([configs_folder()])
    nodes, problems = nodes_for(config, {}, tables)
    wiring = Wiring(config, STAGES, [INGEST, EVALUATE], problems)
    judging = Judging(wiring, judges, ())
    for name in judges:
        judging.measure(name, SuiteConfig(name="votes", kind=SuiteKind.generation))
    if problems:
        raise ConfigError("\n".join(problems))
    outputs = Path(config.runtime.outputs)
    cache = cache_folder(config.runtime)
    folder = RunFolder.create(outputs, config.name, "0")
    with TrackingSession(config.tracking, outputs, folder.path, {}) as session:
        done = run_nodes(
            [*nodes, *judging.nodes], config=config, store=Store(outputs), session=session,
            base=lambda model: resolve_base(model, cache), hashes=FileHashes(cache / "file-hashes.json"), plugins={},
            folder=folder, say=session.notice, again=f"{sys.executable} {' '.join(sys.argv)}",
        )  # fmt: skip
    return {
        step.node.params["judge"].name: json.loads(step.artifact.file(CARD_FILE).read_text(encoding="utf-8"))
        for step in done
        if step.node.spec.name == "scorecard"
    }


def report(judges: dict[str, JudgeConfig], cards: dict[str, dict[str, Any]], asked: QualificationConfig) -> None:
    """Print a table, who qualifies, and one line of JSON."""
    measured = {name: content["card"] for name, content in cards.items() if content["applies"]}
    print()
    print(f"{'measure':<24}" + "".join(f"{name:>28}" for name in measured))
    for measure_name in COLUMNS:
        cells = [card.get(measure_name) for card in measured.values()]
        print(f"{measure_name:<24}" + "".join(f"{_cell(cell):>28}" for cell in cells))
    for name, config in judges.items():
        if name in measured:
            reasons = shortcomings(build_judge(config), measured[name], asked)
            print(f"{name}: {'qualified' if not reasons else 'not qualified: ' + '; '.join(reasons)}")
        else:
            print(f"{name}: {NOT_APPLICABLE}")
    print(json.dumps(measured, sort_keys=True))


def main(argv: list[str] | None = None) -> int:
    """Measure and print; what is wrong is one message and the exit status of its kind."""
    options = arguments(argv)
    try:
        judges = chosen_judges(options)
        stored = stored_votes(options.folder, Path(options.outputs) / "pandalm" / STORED)
        if stored is not None:
            params = {"votes": str(stored), "importer": "pandalm", "people": False}
            judges[STORED_JUDGE] = JudgeConfig(name=STORED_JUDGE, kind="human", params=params)
        config = configuration(options)
        cards = measure(config, {name: judge for name, judge in judges.items() if not needs_suite(name, judges)})
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    report(judges, cards, config.evaluate.qualification)
    return 0


def _cell(value: dict[str, Any] | None) -> str:
    if value is None or value["estimate"] is None:
        return "-"
    interval = "" if value["low"] is None else f" [{value['low']:.2f}, {value['high']:.2f}]"
    return f"{value['estimate']:.3f}{interval}"


if __name__ == "__main__":
    sys.exit(main())
