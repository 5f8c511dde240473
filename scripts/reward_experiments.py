"""Reward models on public human votes: accuracy with intervals, cross-fitted so that every pair is held out once.

``PIPELINE_REAL_DATA=FOLDER python scripts/reward_experiments.py hh annotators pandalm``

`hh` and `pandalm` train five reward models with the stage `reward`, each on four folds of prompts that `curate` made,
and score the fifth. `annotators` lets five simulated annotators of known accuracy vote on hh-rlhf's labels and compares
what is learned from Dawid-Skene's confidence, from the share of the votes as confidence, and from hard majority labels,
on the original labels of pairs that nobody trained on. Every run is kept below ``--output``: the same command goes on
where it stopped and ends by printing the results as JSON. A key of the configuration is set by
``--set reward.optimizer.learning_rate=1e-4``; with ``reward.num_members=3`` a pair's score is the mean of three models.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from reward import annotators, cross_fitting  # noqa: E402
from reward.runs import compose  # noqa: E402

from pipeline.models.lower_layers import LowerLayers  # noqa: E402  (the path is set above)

EXPERIMENTS = {"hh": cross_fitting.run, "pandalm": cross_fitting.run, "annotators": annotators.run}


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(EXPERIMENTS))
    parser.add_argument("--output", type=Path, default=Path("outputs/reward_experiments"))
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1, 2, 3, 4], help="hold out only these")
    parser.add_argument(
        "--set", dest="changes", nargs="*", default=[], metavar="KEY=VALUE", help="of the configuration"
    )
    options = parser.parse_args()
    data = os.environ.get("PIPELINE_REAL_DATA")
    if not data:
        sys.exit("PIPELINE_REAL_DATA must name the folder of public data that holds hh-rlhf/ and pandalm/.")
    upper = compose(options.changes).reward.upper_layers
    lower = None if upper is None else LowerLayers(upper)  # the base is the same for all, and hh's pairs serve twice
    for name in options.names:
        summary = EXPERIMENTS[name](name, Path(data), options.output, options.folds, options.changes, lower)
        print(json.dumps({"name": name, **summary}, indent=1), flush=True)


if __name__ == "__main__":
    main()
