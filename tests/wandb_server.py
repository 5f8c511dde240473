"""A server on the loopback interface that speaks enough of the W&B protocol for the real client.

The client validates what it is answered with its own models, so a reply of the wrong shape fails loudly. Uploads are
checked against the MD5 that the client declared. History lines are kept by their line number, as the real service does:
a stream that starts again at 0 overwrites what was there.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import yaml

ENTITY = "loopback"
CREATED = "2026-01-01T00:00:00Z"
Variables = dict[str, Any]


def edges(nodes: list[Any]) -> dict[str, Any]:
    """Wrap nodes in one page of a GraphQL connection."""
    page = {"endCursor": None, "hasNextPage": False, "__typename": "PageInfo"}
    return {"edges": [{"node": node, "cursor": ""} for node in nodes], "pageInfo": page, "totalCount": len(nodes)}


@dataclass
class StoredRun:
    """What the server knows of one run."""

    id: str
    project: str
    attributes: dict[str, Any] = field(default_factory=dict)  # as UpsertBucket sent them
    lines: dict[str, dict[int, str]] = field(default_factory=dict)  # file of the stream -> line number -> text
    files: dict[str, bytes] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)  # artifact ids
    outputs: list[str] = field(default_factory=list)
    num_streams_started: int = 0
    state: str = "running"

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows in the order of their line numbers."""
        lines = self.lines.get("wandb-history.jsonl", {})
        return [json.loads(lines[number], parse_constant=str) for number in sorted(lines)]  # NaN is served as "NaN"

    @property
    def config(self) -> dict[str, Any]:
        """Configuration without the client's own entry."""
        stored = json.loads(self.attributes.get("config") or "{}")
        return {key: entry["value"] for key, entry in stored.items() if key != "_wandb"}

    @property
    def summary(self) -> dict[str, Any]:
        """The newest summary that was streamed."""
        lines = self.lines.get("wandb-summary.json", {})
        found: dict[str, Any] = json.loads(lines[max(lines)], parse_constant=str) if lines else {}
        return found


@dataclass
class StoredArtifact:
    """One version of an artifact."""

    id: str
    name: str
    kind: str
    digest: str
    project: str
    aliases: list[str]
    metadata: str | None
    state: str = "PENDING"
    manifest: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request as it came in; the Authorization header is left out."""

    method: str
    path: str
    operation: str
    body: bytes
    headers: dict[str, str]


class WandbServer:
    """Context manager: serves on a free port of 127.0.0.1 until it is left."""

    def __init__(self, *, api_key: str | None = None) -> None:
        """Accept every key, or only `api_key`."""
        self.api_key = api_key
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: dict[str, StoredArtifact] = {}
        self.sweeps: dict[str, dict[str, Any]] = {}  # name -> its configuration
        self.views: list[dict[str, Any]] = []  # saved workspaces
        self.alerts: list[dict[str, Any]] = []
        self.links: list[dict[str, Any]] = []  # artifacts in collections, as they were asked for
        self.trials: list[dict[str, Any]] = []  # values that agents are still to run, in W&B's own form
        self.requests: list[Request] = []
        self.fault: str | None = None  # "hang", "error" or "drop"
        self.num_bad_uploads = 0
        self.problems: list[str] = []
        self.lock = threading.RLock()
        self._trigger: tuple[str, str] | None = None
        self._released = threading.Event()
        self._blobs: dict[str, bytes] = {}
        self._expected_md5: dict[str, str] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> WandbServer:
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """Refuse every connection from now on, also those that are open."""
        self.fault = self.fault or "drop"
        self._released.set()
        self._http.shutdown()
        self._http.server_close()

    def break_on(self, needle: str, fault: str) -> None:
        """Let `fault` begin with the first request whose operation or path contains `needle`."""
        self._trigger = (needle, fault)

    def heal(self) -> None:
        """Serve normally again."""
        self._trigger = self.fault = None
        self._released.set()
        self._released = threading.Event()

    def wait_for(self, needle: str, timeout: float = 20.0) -> bool:
        """Wait until a request whose operation or path contains `needle` has come in."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if any(needle in request.operation or needle in request.path for request in list(self.requests)):
                return True
            time.sleep(0.02)
        return False

    def artifact(self, name: str) -> StoredArtifact:
        """Return the committed artifact of a name."""
        return next(item for item in self.artifacts.values() if item.name == name and item.state == "COMMITTED")

    def leaks(self, secrets: Iterable[str]) -> list[str]:
        """Return the operation or path of every request that holds one of the secrets, wherever it stands in it."""
        sent = [(entry, f"{entry.path} {entry.headers}".encode() + entry.body) for entry in self.requests]
        return [entry.operation or entry.path for entry, whole in sent if any(one.encode() in whole for one in secrets)]

    # Faults and routing

    def fault_for(self, request: Request) -> str | None:
        """Note the request and say how it should fail, if at all."""
        with self.lock:
            self.requests.append(request)
            if self._trigger and (self._trigger[0] in request.operation or self._trigger[0] in request.path):
                self.fault = self._trigger[1]
            return self.fault

    def hold(self) -> None:
        """Answer nothing for as long as the fault lasts."""
        self._released.wait(120)

    def respond(self, request: Request) -> tuple[int, bytes]:
        """Answer one request; what this server cannot answer is kept in `problems`, for a test to look at."""
        try:
            return self._respond(request)
        except (KeyError, AssertionError, TypeError, AttributeError) as error:
            self.problems.append(f"{request.operation or request.path}: {error!r}")
            return 400, json.dumps({"errors": [{"message": self.problems[-1]}]}).encode()

    def _respond(self, request: Request) -> tuple[int, bytes]:
        with self.lock:
            path = urlsplit(request.path).path
            if path == "/graphql":
                asked = json.loads(request.body)
                answer = getattr(self, f"_{request.operation}", None)
                if answer is None:
                    raise KeyError("unknown operation")
                return 200, json.dumps({"data": answer(asked.get("variables") or {})}).encode()
            if path.startswith("/files/"):
                return self._stream(unquote(path).split("/")[-2], json.loads(request.body))
            if path.startswith("/blob/") and request.method == "PUT":
                return self._put(unquote(path.removeprefix("/blob/")), request.body)
            if path.startswith("/blob/"):
                blob = self._blobs.get(unquote(path.removeprefix("/blob/")))
                return (404, b"") if blob is None else (200, blob)
            return 404, b"{}"

    def _stream(self, run_id: str, body: dict[str, Any]) -> tuple[int, bytes]:
        run = self.runs[run_id]
        for name, chunk in (body.get("files") or {}).items():
            lines = run.lines.setdefault(name, {})
            for number, line in enumerate(chunk["content"], start=chunk["offset"]):
                lines[number] = line
        if body.get("complete"):
            run.state = "finished" if body.get("exitcode") == 0 else "failed"
        return 200, b"{}"

    def _put(self, key: str, body: bytes) -> tuple[int, bytes]:
        expected = self._expected_md5.get(key)
        if expected and base64.b64encode(hashlib.md5(body).digest()).decode() != expected:
            self.num_bad_uploads += 1
            return 400, b"md5 differs"
        self._blobs[key] = body
        owner, _, name = key.partition("/")
        if owner in self.runs:
            self.runs[owner].files[name] = body
        elif owner in self.artifacts and name == "manifest":
            self.artifacts[owner].manifest = body
        elif owner in self.artifacts:
            self.artifacts[owner].files[name.removeprefix("file/")] = body
        return 200, b""

    def _url(self, key: str) -> str:
        return f"{self.url}/blob/{quote(key)}"

    # Operations, by their GraphQL name

    def _Viewer(self, _: Variables) -> Any:  # noqa: N802
        user: dict[str, Any] = {
            "id": "VXNlcjox",
            "entity": ENTITY,
            "username": ENTITY,
            "email": "",
            "flags": "{}",
            "name": ENTITY,
        }
        user |= {"admin": False, "deletedAt": None, "apiKeys": edges([]), "teams": edges([{"name": ENTITY}])}
        return {"viewer": {**user, "__typename": "User"}}

    _GetViewer = _GetDefaultEntity = _Viewer

    def _ServerFeaturesQuery(self, _: Variables) -> Any:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _XXHashDigestsEnabled(self, _: Variables) -> Any:  # noqa: N802
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _FetchArtifactDigestAlgorithm(self, _: Variables) -> Any:  # noqa: N802
        return {"project": {"artifactType": None}}

    def _OrganizationCoreWeaveOrganizationID(self, _: Variables) -> Any:  # noqa: N802
        return {"entity": {"organization": None}}

    def _FetchOrgInfoFromEntity(self, _: Variables) -> Any:  # noqa: N802
        return {"entity": {"organization": {"name": ENTITY, "orgEntity": {"name": ENTITY}}, "user": None}}

    def _bucket(self, run: StoredRun) -> dict[str, Any]:
        sent, lines = run.attributes, run.lines
        project = {"id": "UHJvamVjdDox", "name": run.project, "entity": {"id": "RW50aXR5OjE=", "name": ENTITY}}
        return {
            "id": run.id, "name": run.id, "displayName": sent.get("displayName") or run.id, "description": "",
            "notes": sent.get("notes"), "config": sent.get("config") or "{}", "sweepName": None, "project": project,
            "projectId": 1, "tags": sent.get("tags") or [], "state": run.state, "group": sent.get("groupName"),
            "jobType": sent.get("jobType"), "commit": None, "readOnly": False, "createdAt": CREATED,
            "heartbeatAt": CREATED, "systemMetrics": "{}", "user": {"name": ENTITY, "username": ENTITY},
            "summaryMetrics": json.dumps(run.summary), "wandbConfig": json.dumps({"t": {"value": 1}}),
            "historyLineCount": len(run.history), "logLineCount": len(lines.get("output.log", {})),
            "eventsLineCount": len(lines.get("wandb-events.jsonl", {})), "eventsTail": "[]",
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "historyKeys": {"lastStep": run.history[-1]["_step"] if run.history else -1, "keys": {}, "sets": []},
        }  # fmt: skip

    def _RunResumeStatus(self, asked: Variables) -> Any:  # noqa: N802
        run = self.runs.get(asked["name"])
        model = {"id": "UHJvamVjdDox", "name": asked["project"], "entity": {"id": "RW50aXR5OjE=", "name": ENTITY}}
        return {"model": {**model, "bucket": self._bucket(run) if run else None}}

    def _UpsertBucket(self, asked: Variables) -> Any:  # noqa: N802
        name = str(asked.get("name") or asked.get("id"))
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun(id=name, project=asked.get("project") or "uncategorized"))
        run.attributes.update({key: value for key, value in asked.items() if value is not None})
        run.num_streams_started += 1
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _CreateRunFiles(self, asked: Variables) -> Any:  # noqa: N802
        files = [{"name": name, "uploadUrl": self._url(f"{asked['run']}/{name}")} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    def _MarkRunFilesUploaded(self, _: Variables) -> Any:  # noqa: N802
        return {"markRunFilesUploaded": {"success": True}}

    def _Run(self, asked: Variables) -> Any:  # noqa: N802
        run = self.runs.get(asked.get("name") or asked.get("run") or asked["runName"])
        return {"project": {"internalId": "1", "run": self._bucket(run) if run else None}}

    def _NotifyScriptableRunAlert(self, asked: Variables) -> Any:  # noqa: N802
        self.alerts.append(asked)
        return {"notifyScriptableRunAlert": {"success": True}}

    _RunState = _QueryRunInfo = _RunHistoryKeys = _Run

    def _Runs(self, asked: Variables) -> Any:  # noqa: N802
        group = re.search(r'"group": *"([^"]*)"', asked.get("filters") or "")
        runs = [
            run
            for run in self.runs.values()
            if run.project == asked["project"] and (not group or run.attributes.get("groupName") == group[1])
        ]
        listed = edges([self._bucket(run) for run in runs])
        return {"project": {"internalId": "1", "runCount": len(runs), "readOnly": False, "runs": listed}}

    def _RunFullHistory(self, asked: Variables) -> Any:  # noqa: N802
        return {"project": {"run": {"history": [json.dumps(row) for row in self.runs[asked["name"]].history]}}}

    def _HistoryPage(self, asked: Variables) -> Any:  # noqa: N802
        rows = [row for row in self.runs[asked["run"]].history if asked["minStep"] <= row["_step"] < asked["maxStep"]]
        return {"project": {"run": {"history": [json.dumps(row) for row in rows]}}}

    def _RunParquetHistory(self, asked: Variables) -> Any:  # noqa: N802
        history = {"parquetUrls": [], "liveData": self.runs[asked["runName"]].history}
        return {"project": {"run": {"parquetHistory": history}}}

    # Sweeps

    def _UpsertSweep(self, asked: Variables) -> Any:  # noqa: N802
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = yaml.safe_load(asked["config"])
        project = {"id": "p", "name": asked["projectName"], "entity": {"id": "e", "name": ENTITY}}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def _SweepWithRuns(self, asked: Variables) -> Any:  # noqa: N802
        config = yaml.safe_dump(self.sweeps[asked["sweep"]])
        sweep = {"id": "s", "name": asked["sweep"], "method": "grid", "state": "RUNNING", "description": "",
                 "config": config, "createdAt": CREATED, "heartbeatAt": CREATED, "updatedAt": CREATED,
                 "earlyStopJobRunning": False, "bestLoss": None, "controller": None, "scheduler": None,
                 "runs": edges([])}  # fmt: skip
        return {"project": {"sweep": sweep}}

    def _UpsertView2(self, asked: Variables) -> Any:  # noqa: N802
        self.views.append(asked)
        return {"upsertView": {"view": {"id": f"view{len(self.views)}", "name": asked["name"]}, "inserted": True}}

    def _CreateAgent(self, _: Variables) -> Any:  # noqa: N802
        return {"createAgent": {"agent": {"id": "agent"}}}

    def _Heartbeat(self, asked: Variables) -> Any:  # noqa: N802
        """Give the agent the next trial when it runs none, and let it go when there are no more."""
        commands: list[dict[str, Any]] = []
        if not json.loads(asked["runState"]) and self.trials:
            number, values = len(self.trials), self.trials.pop(0)
            commands = [{"type": "run", "run_id": f"trial{number}", "program": None, "args": values}]
        elif not json.loads(asked["runState"]):
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": asked["id"]}, "commands": json.dumps(commands)}}

    # Artifacts

    def _CreateArtifact(self, asked: Variables) -> Any:  # noqa: N802
        wanted = asked["input"]
        name = wanted.get("artifactCollectionName") or wanted["artifactCollectionNames"][0]
        known = [item for item in self.artifacts.values() if item.name == name and item.digest == wanted["digest"]]
        if known:
            artifact = known[0]
        else:
            artifact = StoredArtifact(
                id=f"artifact-{len(self.artifacts)}", name=name, kind=wanted["artifactTypeName"], aliases=[],
                digest=wanted["digest"], project=wanted["projectName"], metadata=wanted.get("metadata"),
            )  # fmt: skip
            self.artifacts[artifact.id] = artifact
        artifact.aliases += [a["alias"] for a in wanted.get("aliases") or [] if a["alias"] not in artifact.aliases]
        run = self.runs.get(wanted.get("runName") or "")
        if run and artifact.id not in run.outputs and not wanted.get("useAfterCommit"):
            run.outputs.append(artifact.id)
        sequence = {"latestArtifact": {"id": artifact.id} if artifact.state == "COMMITTED" else None}
        created = {"id": artifact.id, "state": artifact.state, "artifactSequence": sequence}
        return {"createArtifact": {"artifact": created}}

    def _CreateArtifactManifest(self, asked: Variables) -> Any:  # noqa: N802
        owner = asked.get("artifactID") or asked["artifactManifestID"]
        file = {"id": f"{owner}-file", "uploadUrl": self._url(f"{owner}/manifest"), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": owner, "file": file}}}

    def _UpdateArtifactManifest(self, asked: Variables) -> Any:  # noqa: N802
        return {"updateArtifactManifest": self._CreateArtifactManifest(asked)["createArtifactManifest"]}

    def _CreateArtifactFiles(self, asked: Variables) -> Any:  # noqa: N802
        nodes: list[Any] = []
        for spec in asked["input"]["artifactFiles"]:
            key = f"{spec['artifactID']}/file/{spec['name']}"
            self._expected_md5[key] = spec["md5"]
            nodes.append({"storagePath": key, "uploadUrl": self._url(key), "uploadHeaders": [],
                          "uploadMultipartUrls": None, "artifact": {"id": spec["artifactID"]}})  # fmt: skip
        return {"createArtifactFiles": {"files": edges(nodes)}}

    def _CommitArtifact(self, asked: Variables) -> Any:  # noqa: N802
        artifact = self.artifacts[asked["artifactID"]]
        entries = json.loads(artifact.manifest)["contents"]
        missing = [name for name, entry in entries.items() if "ref" not in entry and name not in artifact.files]
        assert not missing, f"committed without {missing}"
        artifact.state = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def _UseArtifact(self, asked: Variables) -> Any:  # noqa: N802
        wanted = asked.get("input") or asked  # the Go half and the Python half of the client ask differently
        run, identity = self.runs[wanted["runName"]], wanted["artifactID"]
        if identity not in run.inputs:
            run.inputs.append(identity)
        return {"useArtifact": {"artifact": {"id": identity}}}

    def _LinkArtifact(self, asked: Variables) -> Any:  # noqa: N802
        if asked["input"] not in self.links:
            self.links.append(asked["input"])
        return {"result": {"versionIndex": 0}}

    def _node(self, artifact: StoredArtifact) -> dict[str, Any]:
        project = {"id": "p", "internalId": "1", "name": artifact.project, "entity": {"name": ENTITY}}
        collection = {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}
        aliases = [{"id": alias, "alias": alias, "artifactCollection": collection, "__typename": "ArtifactAlias"}
                   for alias in ["v0", *artifact.aliases]]  # fmt: skip
        size = sum(len(body) for body in artifact.files.values())
        return {
            "__typename": "Artifact", "id": artifact.id, "artifactSequence": collection, "versionIndex": 0,
            "artifactType": {"name": artifact.kind}, "description": None, "metadata": artifact.metadata,
            "ttlDurationSeconds": 0, "ttlIsInherited": True, "tags": [], "historyStep": None, "state": artifact.state,
            "size": size, "digest": artifact.digest, "digestAlgorithm": "MANIFEST_MD5", "commitHash": artifact.digest,
            "fileCount": len(artifact.files), "createdAt": CREATED, "updatedAt": CREATED, "aliases": aliases,
        }  # fmt: skip

    def _ArtifactByID(self, asked: Variables) -> Any:  # noqa: N802
        return {"artifact": self._node(self.artifacts[asked["id"]])}

    def _ArtifactMembershipByName(self, asked: Variables) -> Any:  # noqa: N802
        name, _, alias = asked["name"].partition(":")
        linked = {link["artifactID"] for link in self.links if link["artifactPortfolioName"] == name}
        found = [item for item in self.artifacts.values() if (item.name == name or item.id in linked)
                 and item.state == "COMMITTED" and alias in ("", "v0", *item.aliases)]  # fmt: skip
        if not found:
            return {"project": {"artifactCollectionMembership": None}}
        node = self._node(found[-1])
        membership = {"__typename": "ArtifactCollectionMembership", "id": f"m-{node['id']}", "versionIndex": 0,
                      "createdAt": CREATED, "aliases": node["aliases"], "artifactCollection": node["artifactSequence"],
                      "artifact": node}  # fmt: skip
        return {"project": {"artifactCollectionMembership": membership}}

    def _ArtifactType(self, asked: Variables) -> Any:  # noqa: N802
        name = asked["name"].partition(":")[0]
        kinds = [item.kind for item in self.artifacts.values() if item.name == name and item.state == "COMMITTED"]
        return {"project": {"artifact": {"artifactType": {"name": kinds[0]}} if kinds else None}}

    def _FetchArtifactManifest(self, asked: Variables) -> Any:  # noqa: N802
        identity = asked.get("id") or asked["artifact_id"]
        return {"artifact": {"currentManifest": {"file": {"directUrl": self._url(f"{identity}/manifest")}}}}

    _ArtifactManifest = _FetchArtifactManifest

    def _GetArtifactMembershipFileUrls(self, asked: Variables) -> Any:  # noqa: N802
        artifact = self.artifact(asked["collection"])
        files = [{"__typename": "File", "name": name, "directUrl": self._url(f"{artifact.id}/file/{name}")}
                 for name in artifact.files]  # fmt: skip
        membership = {"artifactMembership": {"files": edges(files)}, "__typename": "ArtifactSequence"}
        return {"project": {"artifactCollection": membership}}

    def _RunInputArtifacts(self, asked: Variables) -> Any:  # noqa: N802
        return self._lineage(self.runs[asked["run"]].inputs)

    def _RunOutputArtifacts(self, asked: Variables) -> Any:  # noqa: N802
        return self._lineage(self.runs[asked["run"]].outputs)

    def _lineage(self, identities: list[str]) -> Any:
        nodes = [self._node(self.artifacts[identity]) for identity in identities]
        return {"project": {"run": {"artifacts": edges(nodes)}}}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            named = re.search(rb"(?:query|mutation)\s+(\w+)", body) if self.path.endswith("/graphql") else None
            operation = named.group(1).decode() if named else ""
            headers = {key: value for key, value in self.headers.items() if key != "Authorization"}
            fault = server.fault_for(Request(self.command, self.path, operation, body, headers))
            if fault == "hang":
                server.hold()
            if fault in ("hang", "drop"):
                self.close_connection = True
                return
            expected = base64.b64encode(f"api:{server.api_key}".encode()).decode()
            status, answer = 500, b"broken"
            is_known = not server.api_key or expected in (self.headers["Authorization"] or "")
            if not is_known and not self.path.startswith("/blob/"):
                status, answer = 401, b"{}"
            elif fault != "error":
                status, answer = server.respond(Request(self.command, self.path, operation, body, headers))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
