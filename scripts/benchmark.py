"""Where speed is measured: ours and a peer do the same work in turns, each repetition in a process of its own.

``python scripts/benchmark.py sft --repetitions 3 --rows 64 --json``
``python scripts/benchmark.py dpo --repetitions 3 --rows 64 --json``
``python scripts/benchmark.py evaluate --repetitions 3 --rows 64 --batch-size 16 --json`` (pip install lm-eval==0.4.13)
``python scripts/benchmark.py curate --repetitions 1 --rows 100000 --peers datasketch datatrove``

Prints every repetition and the medians. With ``--json`` the last line is one JSON object with ``name``, ``ratio`` (our
speed over the peer's as it comes; of several peers, over the fastest), ``best_ratio`` (over the fastest setting of any
peer) and ``memory_ratio`` (our peak memory over that of the peer as it comes). `sft` and `dpo` add
``max_loss_difference`` (per step, on the same batches in float32), `curate` the recall and precision of each,
`evaluate` (whose ``ratio`` is generation's) ``likelihood_ratio``, the largest relative difference of two scores and the
share of equal completions. The exit status is 1 where a benchmark finds that both did not do the same work: `evaluate`,
where a score differs by more than 1e-4.

A benchmark is a `Benchmark` in `BENCHMARKS`: the names of its variants, a function that measures one of them, and a
function that turns all measurements into the final object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from benchmarks import curate, dpo, evaluate, ppo, reward, sft  # noqa: E402  (the path is set above)
from benchmarks.benchmark import Benchmark, Measurement  # noqa: E402

BENCHMARKS: dict[str, Benchmark] = {
    "curate": curate.BENCHMARK,
    "dpo": dpo.BENCHMARK,
    "evaluate": evaluate.BENCHMARK,
    "ppo": ppo.BENCHMARK,
    "reward": reward.BENCHMARK,
    "sft": sft.BENCHMARK,
}
RESULT = "benchmark-result: "  # a child's last line begins with this; libraries print lines of their own


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure speed and memory against a peer, on the same work.")
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--repetitions", type=int, default=3, help="of each variant; the median counts")
    parser.add_argument("--rows", type=int, default=None, help="rows of work; each benchmark has a default")
    parser.add_argument("--batch-size", type=int, default=8, help="rows of one optimizer step, or decoded together")
    parser.add_argument("--model", type=Path, default=None, help="folder of a causal model; default: the embedded one")
    parser.add_argument("--variants", nargs="*", default=None, help="measure only these, for a quick look")
    parser.add_argument(
        "--peers",
        nargs="*",
        default=[],
        help="curate: measure these beside ours: datasketch, datatrove, datatrove_spaces; "
        "pip install datasketch datatrove orjson spacy",
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def measure_in_child(variant: str, options: argparse.Namespace) -> Measurement:
    """Run one repetition of one variant in its own process and return what it measured."""
    command = [
        sys.executable, str(Path(__file__).resolve()), options.name, "--child", variant,
        "--rows", str(options.rows), "--batch-size", str(options.batch_size),
        *(["--model", str(options.model)] if options.model else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        sys.exit(f"{variant} ended with status {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return Measurement(**json.loads(lines[-1].removeprefix(RESULT)))


def table(results: dict[str, list[Measurement]]) -> str:
    """Return every repetition and the medians as text."""
    unit = next(iter(results.values()))[0].unit
    head = f"{'variant':<22}{f'{unit}/s':>10}   {'each repetition':<28}{'peak GB':>8}  dtype"
    lines = [head, "-" * len(head)]
    for variant, repetitions in results.items():
        speeds = [one.per_second for one in repetitions]
        lines.append(
            f"{variant:<22}{median(speeds):>10.4g}   {' '.join(f'{speed:.4g}' for speed in speeds):<28}"
            f"{median(one.peak_bytes for one in repetitions) / 1e9:>8.2f}  {repetitions[0].dtype}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure in turns and print; the exit status is 1 where the results are wrong."""
    options = arguments(argv)
    benchmark = BENCHMARKS[options.name]
    options.rows = options.rows or benchmark.default_rows
    if options.child is not None:
        print(RESULT + json.dumps(vars(benchmark.measure(options.child, options))), flush=True)
        return
    variants = options.variants or [*benchmark.variants, *options.peers]
    if unknown := sorted(set(options.peers) - set(benchmark.peers)):
        sys.exit(f"--peers: {options.name} knows {', '.join(benchmark.peers) or 'none'}, not {unknown[0]}")
    results: dict[str, list[Measurement]] = {variant: [] for variant in variants}
    started = time.perf_counter()
    for repetition in range(options.repetitions):
        for variant in variants:
            if variant in benchmark.measured_once and repetition:
                continue
            results[variant].append(measure_in_child(variant, options))
            print(f"[{time.perf_counter() - started:5.0f} s] {variant}: {results[variant][-1].summary()}", flush=True)
    print(table(results))
    work = {"rows": options.rows, "batch_size": options.batch_size}
    summary: dict[str, Any] = {"name": options.name, **work, **benchmark.summarise(results)}
    for key, value in summary.items():
        print(f"{key}: {value}")
    if options.json:
        print(json.dumps(summary), flush=True)
    if wrong := benchmark.problem(summary):
        sys.exit(wrong)


if __name__ == "__main__":
    main()
