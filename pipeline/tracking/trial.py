"""The result of a trial that W&B's own agent started, in the run that the agent gave it.

The stages keep runs of their own, as always; a trial whose stages are all reused has none and a result all the same.
As a script, `python -m pipeline.tracking.trial`, it reads one JSON object from standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.tracking.mirror import TRIAL_VARIABLES, client_environment
from pipeline.tracking.server import Decision, decide

if TYPE_CHECKING:
    from pipeline.tracking.session import TrackingSession

OBJECTIVE = "objective"  # name of the metric that the sweep looks at
GIVEN = ("RUN_ID", *TRIAL_VARIABLES, "PROJECT", "ENTITY")  # what the agent says of the trial
SECONDS = 60.0  # for the client to start, tell one row, and end
INIT_SECONDS = 5.0


def report_trial(session: TrackingSession, values: Sequence[Mapping[str, Any]]) -> None:
    """Tell the agent's server how the trial ended; where it cannot be reached, say so and go on."""
    decision = session.decision or decide(session.config)[0]
    if decision is not Decision.online:
        session.notice(f"W&B: the sweep's server is not told the result, because tracking is {decision}")
        return
    environment = client_environment(session.wandb_folder)
    environment |= {f"WANDB_{name}": os.environ[f"WANDB_{name}"] for name in GIVEN if f"WANDB_{name}" in os.environ}
    row = {OBJECTIVE: values[0]["value"], **{entry["name"]: entry["value"] for entry in values}}
    told = {"row": row, "folder": str(session.wandb_folder), "run_folder": session.run_folder.name}
    try:
        subprocess.run(
            [sys.executable, "-m", "pipeline.tracking.trial"], input=json.dumps(told), text=True, check=True,
            capture_output=True, env=environment, timeout=SECONDS,
        )  # fmt: skip
    except (subprocess.SubprocessError, OSError) as error:
        output = getattr(error, "stderr", None) or error
        session.notice(f"W&B: the sweep's server was not told the result: {str(output).strip().splitlines()[-1:]}")


def main() -> None:
    """Log one row in the run that the environment names."""
    import wandb

    told = json.loads(sys.stdin.read())
    settings = wandb.Settings(
        console="off", silent=True, save_code=False, disable_git=True, disable_code=True, x_disable_meta=True,
        x_disable_machine_info=True, x_save_requirements=False, init_timeout=INIT_SECONDS,
    )  # fmt: skip
    run = wandb.init(dir=told["folder"], job_type="trial", config={"run_folder": told["run_folder"]}, settings=settings)
    run.log(told["row"])
    run.finish()


if __name__ == "__main__":
    main()
