"""One invocation's tracking: decides once between online and offline, then starts runs."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.temporary import machine_since_its_start
from pipeline.config.shared import TrackingConfig, TrackingMode
from pipeline.runtime.environment import SOURCE_ROOT, environment, project_root, source_difference
from pipeline.tracking.mirror import MirrorFailed, MirrorProcess
from pipeline.tracking.mirrored import CLIENT_FOLDER, MirroredRun, describe_inputs, relative
from pipeline.tracking.redaction import RedactionFilter, Redactor
from pipeline.tracking.run import Run
from pipeline.tracking.server import Decision, decide, find_account

if TYPE_CHECKING:
    from pipeline.artifacts.artifact import Artifact
    from pipeline.artifacts.work import WorkFolder

RUN_ID_KEY = "wandb_run_id"
SOURCE_DIFF, PROJECT_DIFF = "source.diff", "project.diff"  # of this code, and of the repository that it is used in


class TrackingSession:
    """Context manager; an invocation that starts no run contacts nobody and imports no client."""

    def __init__(
        self, config: TrackingConfig, outputs: Path, run_folder: Path, logged_config: Mapping[str, Any]
    ) -> None:
        """Open the log file.

        Args:
            config: The section `tracking`.
            outputs: `runtime.outputs`.
            run_folder: The folder of this invocation, below `outputs`.
            logged_config: The configuration as it is shown in W&B; secrets are taken out here once more.
        """
        self.config, self.outputs, self.run_folder = config, outputs.absolute(), run_folder.absolute()
        self.redactor = Redactor()
        self.decision: Decision | None = None  # until the first run starts
        self.unsettled: dict[str, MirroredRun] = {}  # finished, and still being written by the mirror's process
        self.is_broken = False  # not even the disk takes the mirror; the record alone is kept
        self._logged_config = self.redactor.value(logged_config)
        self._process: MirrorProcess | None = None
        self._open_run: Run | None = None
        self._surroundings: dict[str, Any] = {}  # of the first run on
        self._differences: dict[str, str | None] = {}
        self.run_folder.mkdir(parents=True, exist_ok=True)
        self._log = logging.Logger(f"pipeline.run.{self.run_folder.name}", logging.INFO)
        handler = logging.FileHandler(self.run_folder / "run.log", encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        self._log.addHandler(handler)
        self._log.addFilter(RedactionFilter(self.redactor))

    def __enter__(self) -> TrackingSession:
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    @property
    def wandb_folder(self) -> Path:
        """Where everything that concerns W&B lies."""
        return self.run_folder / CLIENT_FOLDER

    @property
    def is_online(self) -> bool:
        """Whether the mirror is sent to the server as it grows."""
        return self.decision is Decision.online

    def log_line(self, text: str) -> None:
        """Write one line to the log file, without secrets."""
        self._log.info("%s", text)

    def notice(self, text: str) -> None:
        """Tell the user one line, on the terminal and in the log file, without secrets."""
        if self._open_run:
            self._open_run.notice(text)
            return
        self.log_line(text)
        print(self.redactor.text(text), flush=True)

    def start(
        self,
        *,
        stage: str,
        name: str,
        fingerprint: str,
        work: WorkFolder,
        inputs: Mapping[str, Sequence[Artifact]],
        step_total: int | None = None,
    ) -> Run:
        """Begin a run of a stage, or take one up again where its work folder remembers it.

        Args:
            stage: The stage's name; the job type in W&B.
            name: The node's name, which differs from the stage's where one stage runs several times.
            fingerprint: Of the node.
            work: Its work folder, locked by the caller.
            inputs: Role -> artifacts that are consumed.
            step_total: Number of steps, where it is known now; otherwise the stage tells it with its progress.
        """
        if self.decision is None:
            self._decide()
        mirrored = None
        if self.decision is not Decision.disabled:
            run_id = work.recall(RUN_ID_KEY)
            if not run_id:
                run_id = secrets.token_hex(5)
                work.remember(RUN_ID_KEY, run_id)
            mirrored = self._mirrored(run_id, stage, name, fingerprint, work, inputs)
            self.process()  # imports the client while the stage gets ready
        self._open_run = Run(
            self, stage=stage, name=name, record=work.metrics, written=work.written, mirrored=mirrored,
            step_total=step_total,
        )  # fmt: skip
        return self._open_run

    def _mirrored(
        self,
        run_id: str,
        stage: str,
        name: str,
        fingerprint: str,
        work: WorkFolder,
        inputs: Mapping[str, Sequence[Artifact]],
    ) -> MirroredRun:
        described = describe_inputs(inputs, self.outputs, self.redactor)
        shown = [{key: entry[key] for key in ("role", "id", "kind", "digest")} for entry in described]
        configured = dict(self._logged_config)
        if "inputs" in configured:  # what was asked for; beside what was consumed
            configured["configured_inputs"] = configured["inputs"]
        return MirroredRun(
            run_id=run_id, project=self.config.project, entity=self.config.entity or find_account().entity,
            group=self.config.group or self.run_folder.name, job_type=stage, name=f"{name}-{fingerprint[:8]}",
            tags=[self.redactor.text(tag) for tag in self.config.tags],
            config={
                **configured, "stage": stage, "node": name, "fingerprint": fingerprint, "inputs": shown,
                "invocation": self._invocation(),
            },
            upload_artifacts=self.config.upload_artifacts, inputs=described,
            run_folder=relative(self.run_folder, self.outputs), record=relative(work.metrics, self.outputs),
            written=relative(work.written, self.outputs), registry=self.config.registry,
            source_diff=self._differences[SOURCE_DIFF], project_diff=self._differences[PROJECT_DIFF],
            pid=os.getpid(), machine=machine_since_its_start(), started=time.time(), mode=str(self.decision),
        )  # fmt: skip

    def _invocation(self) -> dict[str, Any]:
        """Return the command and what it ran with; what working trees change in their commits goes into files."""
        if not self._surroundings:
            self._surroundings = {"command": shlex.join(["python", "-m", "pipeline", *sys.argv[1:]]), **environment()}
            self._surroundings = self.redactor.value(self._surroundings)
            self._differences = {
                name: self._keep_difference(root, name)
                for name, root in ((SOURCE_DIFF, SOURCE_ROOT), (PROJECT_DIFF, project_root(Path.cwd())))
            }
        return self._surroundings

    def _keep_difference(self, root: Path | None, name: str) -> str | None:
        """Write what a working tree changes in its commit, and return where; None where there is nothing to tell."""
        difference = source_difference(root) if root is not None else None
        if not difference:
            return None
        path = self.wandb_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.redactor.text(difference), encoding="utf-8")
        return relative(path, self.outputs)

    def _decide(self) -> None:
        """Choose between online and offline for the rest of the invocation."""
        self.decision, reason = decide(self.config)
        if self.decision is Decision.online:
            self.notice(f"W&B: online ({reason})")
        elif self.decision is Decision.offline and self.config.mode is TrackingMode.online:
            self.notice(
                f"WARNING  W&B: tracking.mode=online is not possible: {reason}. Training goes on and is recorded "
                "offline; `python -m pipeline runs sync` delivers it later."
            )
        elif self.decision is Decision.offline:
            self.notice(f"W&B: offline ({reason}); `python -m pipeline runs sync` delivers it later")

    def process(self) -> MirrorProcess:
        """Return the mirror's process, started where there is none."""
        if self._process is None:
            self._process = MirrorProcess(self.wandb_folder, self.redactor.text)
        return self._process

    def hear(self) -> bool:
        """Take in what the mirror's process has answered meanwhile; False means that it failed and is gone."""
        for answer in self._process.heard() if self._process else []:
            if "failed" in answer:
                self.fall_back(self.redactor.text(answer["reason"]))
                return False
            if answer["done"] == "alert" and self._open_run:
                self._open_run.alerted(answer["num_alerted"])
            if answer["done"] == "finish" and answer["run_id"] in self.unsettled:
                self.settle(self.unsettled.pop(answer["run_id"]), answer)
        return True

    def settle(self, run: MirroredRun, answer: Mapping[str, Any]) -> None:
        """Note that a run's mirror is complete, and where it is."""
        run.fragment = relative(Path(answer["fragment"]), self.outputs)
        run.artifact_digest = answer.get("artifact_digest")
        run.entity, run.delivered = answer["entity"] or run.entity, run.mode == "online"
        run.save(self.outputs)

    def drop_process(self) -> None:
        """End the mirror's process at once, with whatever it is doing."""
        if self._process:
            self._process.end(patience=0)
            self._process = None

    def restart_process(self) -> None:
        """Give up the run that is open; those before it are waited for."""
        self._wait_for_unsettled()
        self.drop_process()

    def fall_back(self, reason: str) -> None:
        """Give up on the server for the rest of the invocation, or on the mirror where there was none."""
        self.drop_process()
        if self.decision is Decision.online:
            self.decision = Decision.offline
            self.notice(f"W&B: offline from here on ({reason}); `python -m pipeline runs sync` delivers it later")
        else:
            self.is_broken = True
            self.unsettled.clear()  # their descriptions and records are on the disk: `runs sync` delivers from those
            self.notice(f"W&B: the mirror failed ({reason}); metrics.jsonl has every row")

    def _wait_for_unsettled(self) -> None:
        while self.unsettled and self._process:
            try:
                answer = self._process.wait("finish", online=False)
            except MirrorFailed as failed:
                self.fall_back(str(failed))
                return
            if answer["run_id"] in self.unsettled:
                self.settle(self.unsettled.pop(answer["run_id"]), answer)

    def close(self) -> None:
        """End the mirror's process, when it has written what it was told, and close the log file."""
        self._wait_for_unsettled()
        if self._process:
            self._process.end()
            self._process = None
        self._open_run = None
        for handler in list(self._log.handlers):
            self._log.removeHandler(handler)
            handler.close()
