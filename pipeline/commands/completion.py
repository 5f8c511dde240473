"""Shell completion: Hydra's own, taught that the first word is a command."""

from __future__ import annotations

import os
import sys

from pipeline.commands.manual import COMMANDS, COMPOSED_COMMANDS


def complete(arguments: list[str]) -> int:
    """Answer ``-sc install=bash`` and the queries that the installed shell function makes.

    Hydra's completer knows overrides but no commands, so the command is cut out of the line that it sees.
    """
    command = arguments[0] if arguments[0] in COMMANDS else ""
    flags = arguments[1:] if command else arguments
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if any(flag.startswith("query") for flag in flags) and not command:
        rest = [word for word in words[1:] if word not in {"-m", "pipeline"}]
        if not rest or (len(rest) == 1 and not line.endswith(" ")):
            print("\n".join(name for name in COMMANDS if name.startswith(rest[0] if rest else "")))
            return 0
        command = rest[0]
        if command not in COMPOSED_COMMANDS:
            return 0
        shortened = line.replace(f" {command}", "", 1)
        os.environ["COMP_POINT"] = str(int(os.environ.get("COMP_POINT", len(line))) - (len(line) - len(shortened)))
        os.environ["COMP_LINE"] = shortened
    import hydra

    from pipeline.config.composition import register_schema
    from pipeline.config.paths import configs_folder

    register_schema()
    sys.argv = ["pipeline", *flags]
    hydra.main(version_base="1.3", config_path=str(configs_folder()), config_name=command or "train")(lambda _: None)()
    return 0
