"""Evaluation: our sampling and scoring against lm-evaluation-harness's HF backend, in float32 and at one batch size."""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.benchmark import Benchmark, Measurement
from benchmarks.sft import benchmark_model, demonstrations

CONTEXT = 1024
MAX_NEW_TOKENS = 256  # as `configs/suite/gsm8k.yaml`: two thirds of the completions end before, at different lengths
GENERATION, LIKELIHOOD = ("ours_generation", "lm_eval_generation"), ("ours_likelihood", "lm_eval_likelihood")
MAX_SCORE_DIFFERENCE = 1e-4  # relative, in float32: the order of additions differs, and nothing else may
WARM_UP = 2  # items that are done before the clock starts: kernels are chosen and buffers are touched


def measure(variant: str, options: argparse.Namespace) -> Measurement:
    """Answer or score every row once; loading is left out, encoding is part of the work."""
    from pipeline.runtime.memory import peak_memory_bytes

    rows = demonstrations(options.rows)
    work = (_ours if variant.startswith("ours") else _lm_eval)(variant in GENERATION, options)
    work(rows[:WARM_UP])
    started = time.perf_counter()
    results = work(rows)
    seconds = time.perf_counter() - started
    return Measurement(
        seconds=seconds,
        processed=len(rows),
        peak_bytes=peak_memory_bytes(),
        unit="items",
        dtype="float32",
        notes={"results": results},
    )


def _ours(generates: bool, options: argparse.Namespace) -> Any:
    from pipeline.artifacts.base_model import cache_folder, resolve_base
    from pipeline.config.evaluation import SamplingConfig
    from pipeline.config.shared import DType, RuntimeConfig
    from pipeline.config.stages import OverlengthPolicy
    from pipeline.data.encode import encode_prompt, encode_rows, load_chat
    from pipeline.models.generation import generate
    from pipeline.models.loading import load_base
    from pipeline.models.scoring import score
    from pipeline.runtime.allocator import keep_memory

    keep_memory()
    config, runtime = benchmark_model(options), RuntimeConfig()
    base = resolve_base(config, cache_folder(runtime))
    chat = load_chat(base.folder, config)
    model = load_base(base, config, runtime, DType.float32)

    def write(rows: Sequence[Any]) -> list[str]:
        prompts = [encode_prompt(row.prompt, chat) for row in rows]
        sampling = SamplingConfig(max_new_tokens=MAX_NEW_TOKENS)
        return [one.text for one in generate(model, chat, prompts, sampling, options.batch_size)]

    def rate(rows: Sequence[Any]) -> list[float]:
        encoded = encode_rows(rows, chat, CONTEXT, OverlengthPolicy["raise"]).rows
        return [one.nats for one in score(model, encoded, options.batch_size)]

    return write if generates else rate


def _lm_eval(generates: bool, options: argparse.Namespace) -> Any:
    if importlib.util.find_spec("lm_eval") is None:
        raise SystemExit("lm-evaluation-harness is not installed: python -m pip install lm-eval==0.4.13")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from pipeline.artifacts.base_model import cache_folder, resolve_base
    from pipeline.config.shared import RuntimeConfig
    from pipeline.config.stages import OverlengthPolicy
    from pipeline.data.encode import encode_rows, load_chat

    config = benchmark_model(options)
    base = resolve_base(config, cache_folder(RuntimeConfig()))
    chat = load_chat(base.folder, config)
    peer = HFLM(
        pretrained=str(base.folder), device="cpu", dtype="float32", batch_size=options.batch_size, max_length=CONTEXT
    )

    def write(rows: Sequence[Any]) -> list[str]:
        settings = {"until": [], "max_gen_toks": MAX_NEW_TOKENS, "do_sample": False}
        asked = [(chat.render(row.prompt, generation_prompt=True), settings) for row in rows]
        instances = [Instance("generate_until", {}, pair, number) for number, pair in enumerate(asked)]
        return list(peer.generate_until(instances, disable_tqdm=True))

    def rate(rows: Sequence[Any]) -> list[float]:
        # Its public method moves white space from the end of a prompt to the completion and scores it; the method
        # behind it takes tokens, so that both score the same ones.
        asked = []
        for row in encode_rows(rows, chat, CONTEXT, OverlengthPolicy["raise"]).rows:
            first = row.completion_mask.index(True)
            asked.append((("", row.id), row.input_ids[:first], row.input_ids[first:]))
        return [nats for nats, _ in peer._loglikelihood_tokens(asked, disable_tqdm=True)]

    return write if generates else rate


def summarise(results: dict[str, list[Measurement]]) -> dict[str, Any]:
    """Return the ratios of the medians, and how far both agree on what they made; NaN where a score is NaN."""

    def speed(variant: str) -> float:
        return median(one.per_second for one in results[variant])

    summary: dict[str, Any] = {}
    for key, (ours, theirs) in {"ratio": GENERATION, "likelihood_ratio": LIKELIHOOD}.items():
        if results.get(ours) and results.get(theirs):
            summary[key] = speed(ours) / speed(theirs)
            summary[f"{key}_memory"] = median(one.peak_bytes for one in results[ours]) / median(
                one.peak_bytes for one in results[theirs]
            )
            pairs = list(zip(*(results[name][0].notes["results"] for name in (ours, theirs)), strict=True))
            if key == "ratio":
                summary["same_completions"] = sum(a.strip() == b.strip() for a, b in pairs) / len(pairs)
            else:
                differences = [abs(a - b) / max(1.0, abs(b)) for a, b in pairs]
                summary["max_score_difference"] = math.nan if any(map(math.isnan, differences)) else max(differences)
    summary["items_per_second"] = {variant: round(speed(variant), 3) for variant in results if results[variant]}
    return summary


def problem(summary: dict[str, Any]) -> str:
    """Say so where the scores are not those of the peer, because then speeds compare different work."""
    difference = summary.get("max_score_difference", 0.0)
    if difference <= MAX_SCORE_DIFFERENCE:
        return ""
    return f"evaluate: scores differ by {difference:.2g}, more than {MAX_SCORE_DIFFERENCE:g}: the speeds say nothing"


BENCHMARK = Benchmark(
    variants=(*GENERATION, *LIKELIHOOD),
    default_rows=64,
    measure=measure,
    summarise=summarise,
    problem=problem,
)
