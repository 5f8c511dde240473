"""The process that talks to W&B: `python -m pipeline.tracking.mirror_process`, started and ended by `mirror`.

The client lives in a process of its own so that it can neither raise into a training step, nor hold one up, nor keep
the program from ending: whatever hangs is killed. It reads `metrics.jsonl` itself, so the mirror cannot differ from the
record. Commands come in on standard input and answers go out on standard output, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking.record import Record, complete_lines, decode_row

if TYPE_CHECKING:
    import wandb

POLL_SECONDS = 0.5
ORPHAN_SECONDS = 10.0  # what an orphaned mirror may take to end
MAX_REFERENCED_FILES = 10_000
WRITTEN = "written"  # the table of what the policy wrote


class Mirror:
    """One W&B run that follows one record."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """Start the run, or take it up again; rows up to the server's last step are not sent again."""
        import wandb

        self.spec = spec
        self.online: bool = spec["mode"] == "online"
        self.record = Path(spec["record"])
        self._offset = 0
        self._pending: dict[str, Any] = {}
        self._pending_step = -1
        self._newest: dict[str, Any] = {}
        self._num_alerted: int = spec["num_alerted"]
        self.written = Path(spec["written"]) if spec["written"] else None
        self._written_bytes = 0  # of that file, when its rows were read
        self._texts: list[dict[str, Any]] = []  # these rows
        self._num_shown = 0  # of them
        for fragment in spec["superseded"]:  # two runs of one id that start in the same second would share a folder
            shutil.rmtree(fragment, ignore_errors=True)
        settings = wandb.Settings(
            console="off", silent=True, quiet=True, save_code=False, disable_git=True, disable_code=True,
            disable_job_creation=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
            x_stats_pid=spec["pid"], init_timeout=spec["patience"], show_errors=False, show_warnings=False,
        )  # fmt: skip
        self.run: wandb.Run = wandb.init(
            mode="online" if self.online else "offline", resume=spec["resume"] if self.online else None,
            id=spec["run_id"], project=spec["project"], entity=spec["entity"], group=spec["group"],
            job_type=spec["job_type"], name=spec["name"], tags=spec["tags"], config=spec["config"],
            dir=spec["folder"], settings=settings,
        )  # fmt: skip
        self.sent = self.run.starting_step - 1 if self.online else -1
        for difference in (spec["source_diff"], spec["project_diff"]):
            if difference and Path(difference).exists():
                # A copy, because the client would leave a link, which breaks when the outputs are moved.
                kept = shutil.copy(difference, self.run.dir)
                self.run.save(kept, base_path=self.run.dir, policy="now")

    def facts(self) -> dict[str, Any]:
        """Say where the run is kept, and how far the server was."""
        folder = Path(self.run.dir).parent
        facts = {"run_id": self.run.id, "url": self.run.url, "entity": self.run.entity or None}
        return facts | {"fragment": str(folder), "last_step": self.sent}

    def follow(self) -> None:
        """Send the rows that the record has gained; rows of one step become one."""
        if not self.record.exists():
            return  # sealed and moved; `finish` names its new place
        with self.record.open("rb") as file:
            file.seek(self._offset)
            lines = complete_lines(file.read())
        if not self._read_texts():
            return
        for line in lines:
            self._offset += len(line)
            row = decode_row(json.loads(line))
            step = row.pop("step")
            if step != self._pending_step:
                self.flush()
                self._pending_step = step
            self._pending.update(row)

    def _read_texts(self) -> bool:
        """Read what the policy wrote, after the rows that it belongs to; False where both were moved in between."""
        if self.written is None:
            return True
        if not self.written.exists():
            return self.record.exists()  # nothing was written; else sealed and moved, and `finish` names the new place
        if (num_bytes := self.written.stat().st_size) != self._written_bytes:
            self._texts, self._written_bytes = list(Record(self.written).rows()), num_bytes
        return True

    def flush(self) -> None:
        """Send the row that was held back until its step was over."""
        if self._pending:
            self._newest.update(self._pending)
            if self._pending_step > self.sent:
                self.run.log({**self._pending, **self._written_by(self._pending_step)}, step=self._pending_step)
                self.sent = self._pending_step
        self._pending = {}

    def _written_by(self, step: int) -> dict[str, Any]:
        """Return the table of what the policy wrote up to a step, where it has grown."""
        import wandb

        rows = [row for row in self._texts if row["step"] <= step]
        if len(rows) == self._num_shown:
            return {}
        self._num_shown = len(rows)
        columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row))
        data = [[row.get(str(name)) for name in columns] for row in rows]
        return {WRITTEN: wandb.Table(columns=columns, data=data, allow_mixed_types=True)}

    def alert(self, alerts: list[dict[str, str]]) -> int:
        """Let the server tell whoever watches the project; return how many it has been given, of all of the run.

        Offline nobody could be told in time; `runs sync` tells them.
        """
        for entry in alerts[self._num_alerted :] if self.online else []:
            self.run.alert(entry["title"], entry["text"], level="WARN")
            self._num_alerted += 1
        return self._num_alerted

    def finish(self, command: dict[str, Any]) -> dict[str, Any]:
        """Bring the rest over, link inputs and output, and end the run."""
        import wandb

        self.record = Path(command["record"])
        self.written = Path(command["written"]) if command["written"] else None
        self.follow()
        self.flush()
        sealed = (command["output"] or {"metadata": {}})["metadata"].get("metrics", {})
        self.run.summary.update({**self._newest, **sealed})  # the results, by which a sweep's trials are compared
        for name, table in command["tables"].items():
            self.run.summary[name] = wandb.Table(columns=table["columns"], data=table["rows"], allow_mixed_types=True)
        self.alert(command["alerts"])
        if self.online:
            for entry in command["inputs"]:
                self._use(entry)
        facts = self.facts()
        if command["output"]:
            artifact = self._describe(command["output"])
            self.run.log_artifact(artifact, aliases=_aliases(command["output"], Path(command["folder"]).name))
            if self.online:
                artifact.wait()
            facts["artifact_digest"] = artifact.digest
        facts["registered"] = [self._register(entry) for entry in command["registered"]] if self.online else []
        self.run.finish(exit_code=command["exit_code"])
        return facts

    def _describe(self, entry: dict[str, Any], *, by_reference: bool = False) -> wandb.Artifact:
        import wandb

        artifact = wandb.Artifact(entry["id"], type=entry["kind"], metadata=entry["metadata"])
        if by_reference or not self.spec["upload_artifacts"]:
            artifact.add_reference(Path(entry["path"]).resolve().as_uri(), max_objects=MAX_REFERENCED_FILES)
        else:
            # "immutable": the original is read, also later by `wandb sync`, and nothing is copied to a staging folder.
            artifact.add_dir(entry["path"], policy="immutable", skip_cache=True)
        return artifact

    def _register(self, entry: dict[str, Any]) -> str:
        """Link an artifact into the registry; nothing happens where it is linked already."""
        import wandb

        name = self._name(entry)
        if not wandb.Api().artifact_exists(name):
            self._use(entry)
        wandb.Api().artifact(name).link(self.spec["registry"], aliases=["passed"])
        return str(entry["id"])

    def _name(self, entry: dict[str, Any]) -> str:
        return f"{self.run.entity}/{self.run.project}/{entry['id']}:latest"

    def _use(self, entry: dict[str, Any]) -> None:
        import wandb

        name = self._name(entry)
        if wandb.Api().artifact_exists(name):
            self.run.use_artifact(name)
        elif Path(entry["path"]).exists():
            self.run.use_artifact(self._describe(entry, by_reference=True))
        else:
            raise FileNotFoundError(f"the input {entry['id']} is neither on the server nor at {entry['path']}")


def _aliases(output: dict[str, Any], run_folder: str) -> list[str]:
    """Return names that an artifact is found by: the invocation that made it, and what its gates decided."""
    outcomes = set(output["metadata"].get("gates", {}).values())
    verdict = next((word for word in ("FAIL", "INCONCLUSIVE", "PASS") if word in outcomes), None)
    return ["latest", run_folder, *([f"gates-{verdict.lower()}"] if verdict else [])]


def look_up(spec: dict[str, Any]) -> dict[str, Any]:
    """Read back from the server how far a run is and whether its artifact was committed."""
    import wandb

    api = wandb.Api()
    path = f"{spec['entity'] or api.default_entity}/{spec['project']}"
    found: dict[str, Any] = {"last_step": None, "num_rows": 0, "artifact_digest": None, "inputs": []}
    try:
        run = api.run(f"{path}/{spec['run_id']}")
    except wandb.errors.CommError as error:
        if not isinstance(error.exc, wandb.apis.public.runs.RunNotFoundError):
            raise  # taken for an unknown run, its rows would be sent twice
        return found
    found |= {"last_step": run.lastHistoryStep, "num_rows": run.historyLineCount, "state": run.state}
    found["inputs"] = [artifact.name.partition(":")[0] for artifact in run.used_artifacts()]
    output = spec["output"]
    if output and api.artifact_exists(f"{path}/{output['id']}:latest"):
        artifact = api.artifact(f"{path}/{output['id']}:latest")
        found["artifact_digest"] = artifact.digest if artifact.state == "COMMITTED" else None
    return found


class Channel:
    """Commands by line from a file descriptor, with time to do something else in between."""

    def __init__(self, source: int, target: int) -> None:
        """Take the descriptors over."""
        self._source, self._target = source, target
        self._read = b""

    def commands(self) -> list[dict[str, Any]] | None:
        """Return the commands that came in within the polling interval; None when the other side is gone."""
        ready, _, _ = select.select([self._source], [], [], POLL_SECONDS)
        if not ready:
            return []
        data = os.read(self._source, 1 << 16)
        if not data:
            return None
        *lines, self._read = (self._read + data).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def answer(self, **facts: Any) -> None:
        """Write one answer."""
        os.write(self._target, json.dumps(facts).encode() + b"\n")


def serve(channel: Channel) -> None:
    """Obey until the other side is gone."""
    import wandb  # noqa: F401  (slow, and wanted before the first command)

    channel.answer(done="import")
    mirror: Mirror | None = None
    while (commands := channel.commands()) is not None:
        for command in commands:
            try:
                if command["do"] == "open":
                    mirror = Mirror(command["spec"])
                    channel.answer(done="open", **mirror.facts())
                elif command["do"] == "alert" and mirror:
                    channel.answer(done="alert", num_alerted=mirror.alert(command["alerts"]))
                elif command["do"] == "finish" and mirror:
                    answer, mirror = mirror.finish(command), None
                    channel.answer(done="finish", **answer)
                elif command["do"] == "look_up":
                    channel.answer(done="look_up", **look_up(command["spec"]))
            except Exception as error:  # the only way out of this process; the parent turns it into a notice
                traceback.print_exc()
                channel.answer(
                    failed=command["do"], reason=f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
                )
        if mirror:
            mirror.follow()
    threading.Timer(ORPHAN_SECONDS, os._exit, (1,)).start()
    if mirror:  # the training process died: say so, and hold back the last step, which may be half there
        mirror.run.finish(exit_code=1)
    os._exit(0)


def main() -> None:
    """Keep standard output for answers alone: what the client prints goes where errors go."""
    answers = os.dup(1)
    os.dup2(2, 1)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    print(f"{started} the mirror's process {os.getpid()} starts", file=sys.stderr)
    serve(Channel(0, answers))


if __name__ == "__main__":
    main()
