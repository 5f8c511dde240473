"""The pages that ``--help`` prints. They import nothing but what lists the experiments."""

from __future__ import annotations

from pathlib import Path

COMPOSED_COMMANDS = ("train", "plan")  # configured by configs/<command>.yaml
COMMANDS = (*COMPOSED_COMMANDS, "compare", "runs", "label")

USAGE = """\
usage: python -m pipeline <command> [+experiment=NAME] [key=value ...]

commands
  train   run the stages of an experiment, reusing every artifact whose inputs have not changed, and evaluate
  plan    the same composition and checks without training: what is cached, rows, tokens, memory and time
  compare runs side by side: what differs, metrics with paired intervals, best first, and what the order is worth
  runs    runs list | verify [ID ...] | prune [--apply] | sync | workspace SWEEP
  label   label push | pull: pairs to a Label Studio server, and its annotations back
"""

KEYS = """\
keys that people change most
  data=gsm8k data.path=FILE data.limit=200   a preset in configs/data/, its file, and how many rows of it
  data=exports data.path=FILE                an annotation export; ingest.aggregation=dawid_skene, ingest.ties=label
  curate.near_duplicates.threshold=0.8       curate.max_quarantined_fraction=0.05  curate.filters=[...]
  model=hub model.id=ID_OR_FOLDER            any causal language model; the default is SmolLM2
  sft.optimizer.learning_rate=1e-4           sft.num_epochs=3  sft.batch_size=8  sft.max_length=1024
  sft.lora.rank=32 sft.lora.alpha=64         shape of the adapter; later stages go on with it
  reward.num_epochs=2  reward.num_members=3  the reward model; several members are an ensemble
  dpo.loss=ipo_sum  dpo.beta=0.1             loss and strength; docs/preference.md says which when
  kto.rows=comparisons  kto.beta=0.1         thumbs, or the sides of comparisons as such
  ppo.kl_coef=0.02  ppo.num_rollouts=60      penalty per nat, and how long
  ppo.rewards=[{name: numeric_answer}]       rewards by name, beside or in place of the reward model
  grpo.algorithm=rloo  grpo.group_size=8     several completions of a prompt compared, without a value model
  evaluate.suites=[heldout,house_style]      what is measured; files in configs/suite/
  evaluate.judges=[style]                    who compares answers; files in configs/judge/
  inputs.evaluate.policy=[base,FOLDER]       what is compared: stages, artifacts, folders, hub ids
  tracking=offline|online|disabled           Weights & Biases; the default goes online where a key is configured
  runtime.outputs=DIR  seed=7  force=[sft]   where everything is written; other seed; run a stage again

flags
  -m, --multirun      sweep: -m sft.optimizer.learning_rate=1e-4,2e-4 seed=1,2
                      side by side: hydra/launcher=joblib hydra.launcher.n_jobs=2; on Slurm: submitit_slurm
                      search: -m +sweep=sft sweep.trials=20; spaces in configs/sweep/, more in docs/sweeps.md
  --cfg job           print the composed configuration and stop
  --config-dir DIR    a folder with files of your own, laid out like configs/
  -sc install=bash    shell completion: eval "$(pipeline -sc install=bash)"

exit status: 0 done, 2 configuration, 3 data, 4 artifact, 5 checkpoints, 7 disk, 8 model, 10 labeling server,
11 endpoint, 17 diverged, 30 a hard gate failed, 31 a hard gate is undecided, 130/143 stopped
"""


def page(command: str | None) -> str:
    """Return the manual: usage, the experiments that exist, and the keys that people change most."""
    parts = [USAGE, f"experiments\n{experiments()}\n", KEYS]
    if command in PAGES:
        parts = [USAGE, PAGES[command]]
    return "\n".join(parts).rstrip()


PAGES = {  # of the commands that are not composed
    "compare": """\
compare [WHAT ...]         a run folder, a glob, a sweep, the beginning of a name below runs/, a folder with offline W&B
                           runs, or wandb:ENTITY/PROJECT/GROUP; every run where nothing is named
  --baseline RUN[:POLICY]  what the others are compared with: a number of the table or a name; the first one
  --by SUITE/METRIC        what the order goes by; the sweep's objective, else a primary metric
  --policy NAME|all        which policy of each run; its newest one
  --out DIR                where comparison.html, .csv and .json go; outputs/comparisons/NAME
  runtime.outputs=DIR      where the runs are
Runs that were evaluated on different items or by different checks are not ranked: the reason is printed.
""",
    "runs": """\
runs list                  runs and artifacts with size and state
runs verify [ID ...]       hash every file again and walk the lineage; exit status 4 if anything is wrong
runs prune [--apply]       delete what nothing reaches; without --apply only say what would go
runs sync                  deliver offline W&B runs, then replay the lineage
All of them take runtime.outputs=DIR after the positional words.
""",
    "label": """\
label push label.project=NAME label.path=pairs.jsonl    add pairs that the project does not have yet; makes the project
label pull label.project=NAME label.path=export.json    fetch all annotations as a file for a source `table: exports`
The server is label.url (http://localhost:8080), the token LABEL_STUDIO_API_KEY in the environment.
A pair is an id, a prompt and two completions, such as response_a and response_b, or chosen and rejected.
label.seed=0 decides which of them is shown on the left, label.seconds=60 how long an answer may take.
""",
}


def experiments() -> str:
    """Return a line per file of ``configs/experiment/``: its name and its first comment."""
    from pipeline.config.paths import configs_folder

    lines = []
    for file in sorted(Path(configs_folder() / "experiment").glob("*.yaml")):
        comments = [
            line.lstrip("# ").rstrip()
            for line in file.read_text(encoding="utf-8").splitlines()
            if line.startswith("# ")
        ]
        text = next((comment for comment in comments if not comment.startswith("@package")), "")
        lines.append(f"  +experiment={file.stem:<12} {text}")
    return "\n".join(lines)
