"""Makes the embedded votes of the help desk, in two steps.

``python scripts/make_help_desk_votes.py sample outputs/artifacts/sft-…`` lets the base model and a fine-tuned policy
answer the prompts and writes `data/helpdesk/candidates.jsonl`. It takes minutes, and another machine or another policy
gives other completions.

``python scripts/make_help_desk_votes.py vote`` ranks them, draws pairs and votes, plants defects and writes
`votes.json`, `test_votes.json` and `planted_votes.json`. The same candidates always give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from help_desk_votes.material import CANDIDATES, HELP_DESK, questions, read_samples, write_samples  # noqa: E402  (the path is set above)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the embedded votes of the help desk.")
    steps = parser.add_subparsers(dest="step", required=True)
    sample = steps.add_parser("sample", help="let the base and a fine-tuned policy answer the prompts")
    sample.add_argument("policy", type=Path, help="folder of a sealed policy, made by `train +experiment=sft`")
    sample.add_argument("--batch-size", type=int, default=24)
    sample.add_argument("--out", type=Path, default=CANDIDATES)
    sample.add_argument("--limit", type=int, default=None, help="only so many questions, for a quick look")
    vote = steps.add_parser("vote", help="draw pairs and votes from the sampled answers")
    vote.add_argument("--candidates", type=Path, default=CANDIDATES)
    vote.add_argument("--out", type=Path, default=HELP_DESK, help="folder of the three files")
    return parser.parse_args(argv)


def main() -> None:
    """Do one step."""
    options = arguments()
    if options.step == "sample":
        from help_desk_votes.sampling import draw

        asked = questions()[: options.limit]
        draw(asked, options.policy, options.batch_size, partial(write_samples, options.out))
        return
    from help_desk_votes.making import make
    from help_desk_votes.utility import Utility

    for name, text in make(questions(), read_samples(options.candidates), Utility()).items():
        (options.out / name).write_bytes(text.encode())
        print(f"{name}: {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
