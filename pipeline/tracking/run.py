"""One running stage: its record, its mirror, and what is told about it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking.mirror import MirrorFailed
from pipeline.tracking.mirrored import MirroredRun, describe, relative
from pipeline.tracking.progress import Progress
from pipeline.tracking.record import Record

if TYPE_CHECKING:
    from pipeline.artifacts.artifact import Artifact
    from pipeline.tracking.session import TrackingSession

Cell = str | int | float | bool | None


class Run:
    """Handed to a stage. The record is written at once; the mirror follows it and can neither raise nor wait here."""

    def __init__(
        self,
        session: TrackingSession,
        *,
        stage: str,
        name: str,
        record: Path,
        written: Path,
        mirrored: MirroredRun | None,
        step_total: int | None = None,
    ) -> None:
        """Made by :meth:`TrackingSession.start`; `mirrored` is None where tracking is disabled."""
        self.stage, self.name = stage, name
        self._session, self._mirrored, self._step_total = session, mirrored, step_total
        self._record, self._written = Record(record), Record(written)
        self._progress = Progress(name, session.log_line)
        self._tables: dict[str, Any] = {}
        self._texts: list[dict[str, Cell]] = []  # which the policy wrote since the last row
        self._is_open = False  # the mirror was told to start
        self._is_over = False

    @property
    def wandb_run_id(self) -> str | None:
        """Identity of the mirrored run, kept over restarts; None where tracking is disabled."""
        return self._mirrored.run_id if self._mirrored else None

    @property
    def facts(self) -> dict[str, str]:
        """Where the run is mirrored, for the manifest's `tracking`."""
        if not self._mirrored:
            return {"mode": "disabled"}
        facts = {"mode": str(self._session.decision), "run_id": self._mirrored.run_id}
        facts |= {"project": self._mirrored.project, "group": self._mirrored.group}
        return facts | ({"entity": self._mirrored.entity} if self._mirrored.entity else {})

    def log(self, row: Mapping[str, float | int], step: int) -> None:
        """Append one row of metrics to the record; the mirror follows.

        Raises:
            ValueError: The steps go back, which needs a cut.
            StorageError: The disk did not take the row.
        """
        while self._texts:
            self._written.append(self._texts.pop(0), step)
        self._record.append(row, step)
        self._progress.metrics(row)
        if self._step_total:
            self._progress.update(self._step_total, step)
        self._open_mirror()
        self._listen()

    def cut(self, step: int) -> None:
        """Drop every row beyond `step`, which a resumed run computes again, from the record and so from the mirror."""
        if self._is_open:
            self._session.restart_process()  # it has read what goes; the next one reads the record as it then is
            self._is_open = False
        self._record.cut(step)
        self._written.cut(step)

    def written(self, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Keep what the policy has written while it is trained, with the next row of metrics.

        The mirror shows all of it so far as one table with each step, so that the table grows over the run.
        """
        self._texts += [self._session.redactor.value(row) for row in rows]

    def alert(self, title: str, text: str) -> None:
        """Tell the user what needs attention, and with W&B's own alerts whoever watches the project."""
        self.notice(text)
        run = self._mirrored
        if run is None:
            return
        clean = self._session.redactor.text
        run.alerts.append({"title": clean(title), "text": clean(text)})
        if self._is_open and run.mode == "online":
            self._session.process().tell("alert", alerts=run.alerts)

    def alerted(self, num_alerted: int) -> None:
        """Hear that the server was given so many of the alerts."""
        if self._mirrored:
            self._mirrored.num_alerted = num_alerted

    def register(self, artifact: Artifact) -> None:
        """Link an artifact that has passed what it had to into `tracking.registry`, if one is named."""
        run = self._mirrored
        if run is not None and run.registry is not None:
            run.registered.append(describe(artifact, self._session.outputs, self._session.redactor))

    def notice(self, text: str) -> None:
        """Tell the user something, on the terminal and in the log file."""
        self._session.log_line(text)
        self._progress.say(self._session.redactor.text(text))

    def progress(self, total: int, done: int) -> None:
        """Show that `done` of `total` steps are made."""
        self._progress.update(total, done)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Mirror a table when the run finishes; one of the same name is replaced."""
        self._tables[name] = self._session.redactor.value(
            {"columns": [str(column) for column in columns], "rows": [list(row) for row in rows]}
        )

    def finish(self, artifact: Artifact) -> None:
        """End the run, whose output has been sealed (and with it the record has moved)."""
        self._end(0, artifact)

    def fail(self, error: BaseException) -> None:
        """End the run without an output."""
        self._session.log_line(f"{self.name} ended: {type(error).__name__}: {error}")
        self._end(1, None)

    def _end(self, exit_code: int, artifact: Artifact | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._progress.close()
        run, outputs = self._mirrored, self._session.outputs
        if not run:
            return
        try:
            run.tables, run.exit_code = self._tables, exit_code
            if artifact:
                run.output = describe(artifact, outputs, self._session.redactor)
            self._keep_records(run, artifact)
            was_online = self._session.is_online
            if self._finish_mirror(run) or (was_online and self._finish_mirror(run)):
                return
        except OSError as error:  # a full disk; the stage's own result is sealed, or its error is on its way
            self._session.drop_process()
            self.notice(f"W&B: the mirror of {self.name} was not written ({error}); metrics.jsonl has every row.")
            return
        self.notice(f"W&B: the mirror of {self.name} is incomplete; `python -m pipeline runs sync` delivers it.")

    def _keep_records(self, run: MirroredRun, artifact: Artifact | None) -> None:
        """Copy the records beside the mirror: work folders are removed, and artifacts may be pruned."""
        kept = [self._keep(run, record.path, artifact) for record in (self._record, self._written)]
        run.record, run.written = kept[0] or run.record, kept[1]

    def _keep(self, run: MirroredRun, record: Path, artifact: Artifact | None) -> str | None:
        """Copy a record, which has moved if an artifact was sealed, and return where it lies then."""
        sources = [artifact.path / record.name] if artifact else []
        for source in [*sources, record]:
            if source.is_file():
                kept = self._session.wandb_folder / f"{run.run_id}.{record.name}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, kept)
                return relative(kept, self._session.outputs)
        return None

    def _finish_mirror(self, run: MirroredRun) -> bool:
        """Let the mirror's process finish the run; on failure everything after this is offline.

        A server is waited for, because only its answer says that the run has arrived. The disk is not: what it answers
        is heard when the session closes.
        """
        self._open_mirror()
        run.save(self._session.outputs)
        if not self._is_open:
            return False
        self._is_open = False
        process, command = self._session.process(), run.command(self._session.outputs)
        process.tell("finish", **command)
        if run.mode != "online":
            self._session.unsettled[run.run_id] = run
            return True
        try:
            num_bytes = run.output["bytes"] if run.output and run.upload_artifacts else 0
            answer = process.wait("finish", online=True, num_bytes=num_bytes)
        except MirrorFailed as failed:
            self._session.fall_back(str(failed))
            run.forget_alerts()
            return False
        self._session.settle(run, answer)
        self.notice(f"W&B: {self.name} is at {answer['url']}")
        return True

    def _open_mirror(self) -> None:
        """Let the mirror's process start the run; whether it could is heard later."""
        run, session = self._mirrored, self._session
        if self._is_open or not run or session.is_broken:
            return
        self._is_open = True
        run.mode = str(session.decision)
        # What stands in older folders is in the record too: written once more, every step would count twice.
        superseded = [str(path) for path in run.fragments(session.outputs)]
        for path in run.earlier(session.outputs):
            path.unlink()
        with suppress(OSError):  # told when the run ends
            run.save(session.outputs)
        session.process().tell("open", spec=run.command(session.outputs, superseded=superseded))

    def _listen(self) -> None:
        """Hear, without waiting, whether the mirror's process has failed."""
        if self._mirrored and self._is_open and not self._session.hear():
            self._is_open = False
            self._mirrored.forget_alerts()
            self._open_mirror()  # from the record, and so with every row
