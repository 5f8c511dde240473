"""Command line: pick the command, compose its configuration, run it, and end with one clear message if it fails.

``--help``, an unknown command, ``--cfg job`` and a mistyped key answer before torch is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.manual import COMMANDS, page
from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Run the command of ``sys.argv`` and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status; errors of ours become one message on standard error."""
    try:
        return dispatch(arguments)
    except PipelineError as error:
        from pipeline.tracking.redaction import Redactor

        # Messages of others, such as Hydra's, repeat what was typed.
        print(Redactor().text(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("Interrupted before anything was running.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, say `head`, has seen enough
        return 141


def dispatch(arguments: list[str]) -> int:
    """Hand over to the command that the first argument names."""
    if arguments[:1] == ["-sc"] or arguments[1:2] == ["-sc"]:
        from pipeline.commands.completion import complete

        return complete(arguments)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in {"-h", "--help", "help"} or {"-h", "--help"} & set(rest):
        print(page(command if command in COMMANDS else None))
        return 0
    if command in {"-V", "--version"}:
        from pipeline import __version__

        print(__version__)
        return 0
    if command not in COMMANDS:
        from pipeline.config.suggestions import near_miss

        raise ConfigError(
            f"There is no command `{command}`.{near_miss(command, COMMANDS)} "
            f"Usage: python -m pipeline {{{','.join(COMMANDS)}}} [overrides]; `--help` explains them."
        )
    if command == "runs":
        from pipeline.commands.runs import run_command

        return run_command(rest)
    if command == "compare":
        from pipeline.commands.compare import compare_command

        return compare_command(rest)
    if command == "label":
        from pipeline.commands.label import label_command

        return label_command(rest)
    return compose_and_run(command, rest)


def compose_and_run(command: str, arguments: list[str]) -> int:
    """Compose the configuration of ``command`` with Hydra and run it, here or, in a sweep, in one child per trial."""
    if any(argument.startswith(("--experimental-rerun", "--exp")) for argument in arguments):
        raise ConfigError("--experimental-rerun reads a pickle and is not available. Run the command again as it was.")
    from pipeline.commands.composing import compose, flags_in

    if {"-m", "--multirun"} & set(flags_in(arguments)):
        from pipeline.commands.sweep import sweep

        return sweep(command, arguments)
    from pipeline.commands.launchers import refuse_outside_a_sweep

    refuse_outside_a_sweep(arguments)
    statuses: list[int] = []

    def task(composed: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        from pipeline.commands.train import execute

        sources = HydraConfig.get().runtime.config_sources
        search_path = [Path(source.path) for source in sources if source.schema == "file"]
        statuses.append(execute(command, composed, search_path, arguments))

    compose(command, arguments, task)
    return max(statuses, default=0)


if __name__ == "__main__":
    main()
