"""A server on the loopback interface that speaks enough of the Hugging Face hub's protocol for the real clients.

Like the hub it keeps every commit, names the commit and the ETag of a file in headers, sends small files itself and
large ones from another host behind a signed address. That host refuses a request that brings an Authorization header,
so a client that lets its token leave the hub fails. Xet is answered as absent, or as out of order. The description and
the list of files of a gated repository are open to everybody, its files are not; a private one looks as if it did not
exist.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE_SUFFIXES = (".safetensors", ".bin", ".parquet")  # what `.gitattributes` of the hub gives to LFS
PAGE_SIZE = 3  # entries of a listing; the hub's own pages hold 1,000
API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+?)(?:/(?P<verb>revision|tree|paths-info|xet-read-token)/(?P<rest>.+))?"
)
RESOLVE = re.compile(r"(?:/(?P<kind>datasets))?/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
OF_NO_CONCERN = {"/api/agent-harnesses"}  # which coding agents call the client; it lives well without an answer
Headers = dict[str, str]


@dataclass
class Repository:
    """What the server knows of one model or data set."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # commit -> path -> content
    refs: dict[str, str] = field(default_factory=dict)  # branch or tag -> commit
    is_gated: bool = False
    is_private: bool = False


@dataclass(frozen=True)
class Request:
    """One request as it came in, and how much of a body it was answered with."""

    method: str
    path: str
    host: str  # "hub" or "storage"
    token: str | None  # of the Authorization header
    first_byte: int  # of the Range header
    headers: Headers


@dataclass
class Fault:
    """How requests whose path contains `needle` fail, and how often."""

    needle: str
    status: int = 0  # 0 drops the connection
    num_bytes: int = 0  # that are sent before the connection is dropped
    times: int = 1_000_000
    method: str = ""  # any


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class HubServer:
    """Context manager: serves on two free ports of 127.0.0.1 until it is left."""

    def __init__(self) -> None:
        """Begin without a repository; `tokens` are known, and those in `accepted` may read gated repositories."""
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.tokens: set[str] = set()
        self.accepted: set[str] = set()
        self.requests: list[Request] = []
        self.sent: dict[str, int] = {}  # path in a repository -> bytes of bodies
        self.faults: list[Fault] = []
        self.problems: list[str] = []
        self.xet_address = ""  # where Xet is said to be; empty says that there is none
        self.lock = threading.RLock()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, host)) for host in ("hub", "storage")]
        for server in self._servers:
            server.daemon_threads = True
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        self._large: dict[str, tuple[str, bytes]] = {}  # sha256 -> path, content

    def __enter__(self) -> HubServer:
        """Start to serve."""
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """Refuse every connection from now on, and drop those that are open at their next request."""
        self.faults = [Fault("")]
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def push(self, kind: str, name: str, files: Path | Mapping[str, bytes]) -> str:
        """Commit a folder or the given files to `main` of a repository of `models` or `datasets`; return the commit."""
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()
            }
        repository = self.repositories.setdefault((kind, name), Repository())
        content = {path: bytes(data) for path, data in sorted(files.items())}
        seed = [kind, name, str(len(repository.commits)), *(f"{path} {oid(data)}" for path, data in content.items())]
        commit = hashlib.sha1("\n".join(seed).encode()).hexdigest()
        repository.commits[commit] = content
        repository.refs["main"] = commit
        return commit

    def asked(self, needle: str, *, method: str = "GET", host: str = "") -> list[Request]:
        """Return the requests of a method whose path contains `needle`."""
        return [
            request
            for request in list(self.requests)
            if needle in request.path and request.method == method and host in ("", request.host)
        ]

    # Answers

    def fault_for(self, request: Request) -> Fault | None:
        """Note the request and say how it should fail, if at all."""
        with self.lock:
            self.requests.append(request)
            name = self._large.get(request.path.split("?")[0].rsplit("/", 1)[-1], ("", b""))[0]
            for fault in self.faults:
                is_meant = fault.needle in request.path or fault.needle == name
                if fault.times and is_meant and fault.method in ("", request.method):
                    fault.times -= 1
                    return fault
        return None

    def respond(self, request: Request, body: bytes) -> tuple[int, Headers, bytes]:
        """Answer one request; what this server cannot answer is kept in `problems`, for a test to look at."""
        path = unquote(urlsplit(request.path).path)
        try:
            if request.host == "storage":
                return self._storage(request, path)
            if request.token is not None and request.token not in self.tokens:
                raise Refusal(401, "", "Invalid credentials in Authorization header")
            if found := RESOLVE.fullmatch(path):
                return self._resolve(request, **{**found.groupdict(), "kind": found["kind"] or "models"})
            if found := API.fullmatch(path):
                return self._api(request, body, **found.groupdict())
            if path not in OF_NO_CONCERN:
                self.problems.append(f"{request.method} {request.path}")
            raise Refusal(404, "", "Not Found")
        except Refusal as refusal:
            headers = {"X-Error-Message": str(refusal)} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            return refusal.status, headers, json.dumps({"error": str(refusal)}).encode()

    def _find(self, request: Request, kind: str, name: str, revision: str) -> tuple[Repository, str]:
        repository = self.repositories.get((kind, name))
        if repository is None or (repository.is_private and request.token not in self.accepted):
            if request.token is None:  # the hub does not tell strangers what does not exist
                raise Refusal(401, "RepoNotFound", "Invalid username or password.")
            raise Refusal(404, "RepoNotFound", "Repository not found")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def _api(
        self, request: Request, body: bytes, kind: str, id: str, verb: str | None, rest: str | None
    ) -> tuple[int, Headers, bytes]:
        # A slash in a revision is sent quoted, so it is told from the path below it before it is unquoted.
        quoted = urlsplit(request.path).path.split(f"/{verb}/", 1)[-1] if verb else "main"
        revision, _, below = quoted.partition("/")
        repository, commit = self._find(request, kind, id, unquote(revision))
        files = repository.commits[commit]
        if verb == "tree":
            return self._listing(request, commit, files, unquote(below))
        if verb == "xet-read-token":
            xet = {"X-Xet-Cas-Url": self.xet_address, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": "4000000000"}
            return 200, xet, b"{}"
        if verb == "paths-info":
            wanted = [path.rstrip("/") for path in parse_qs(body.decode()).get("paths", [])]
            known = {entry["path"]: entry for entry in entries(files)}
            return _json([known[path] for path in wanted if path in known])
        about = {
            "_id": commit[:24], "id": id, "author": id.split("/")[0], "sha": commit, "private": repository.is_private,
            "disabled": False, "gated": "manual" if repository.is_gated else False, "downloads": 0, "likes": 0,
            "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z", "tags": [],
            "siblings": [{"rfilename": path} for path in files],
        }  # fmt: skip
        return _json({**about, "modelId": id} if kind == "models" else about)

    def _listing(
        self, request: Request, commit: str, files: Mapping[str, bytes], below: str
    ) -> tuple[int, Headers, bytes]:
        query = parse_qs(urlsplit(request.path).query)
        is_recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = f"{below}/" if below else ""
        found = [entry for entry in entries(files) if entry["path"].startswith(prefix)]
        if below and not found:
            raise Refusal(404, "EntryNotFound", f"{below} does not exist on {commit}")
        if not is_recursive:
            found = [entry for entry in found if "/" not in entry["path"].removeprefix(prefix)]
        start = int(query.get("cursor", ["0"])[0])
        status, headers, answer = _json(found[start : start + PAGE_SIZE])
        if start + PAGE_SIZE < len(found):
            address = f"{self.url}{urlsplit(request.path).path}?recursive={is_recursive}&cursor={start + PAGE_SIZE}"
            headers["Link"] = f'<{address}>; rel="next"'
        return status, headers, answer

    def _resolve(self, request: Request, kind: str, id: str, revision: str, path: str) -> tuple[int, Headers, bytes]:
        repository, commit = self._find(request, kind, id, revision)
        place = f"{'datasets/' if kind == 'datasets' else ''}{id}"
        if repository.is_gated and request.token not in self.accepted:
            told = f"Access to {kind[:-1]} {id} is restricted"
            if request.token is None:
                raise Refusal(401, "GatedRepo", f"{told}. You must have access to it and be authenticated. Log in.")
            raise Refusal(403, "GatedRepo", f"{told} and you are not in the authorized list. Visit {self.url}/{place}")
        content = repository.commits[commit].get(path)
        if content is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not path.endswith(LARGE_SUFFIXES):
            return self._part(request, path, content, {**headers, "ETag": f'"{oid(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        self._large[digest] = (path, content)
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"'}
        if self.xet_address:
            token = f"{self.url}/api/{kind}/{id}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": digest, "Link": f'<{token}>; rel="xet-auth"'}
        return 302, {**headers, "Location": f"{self.storage_url}/{digest}?Signature=signed"}, b""

    def _storage(self, request: Request, path: str) -> tuple[int, Headers, bytes]:
        if request.token is not None:
            self.problems.append(f"a token was sent to the storage: {request.path}")
            raise Refusal(400, "", "Only one auth mechanism allowed")
        name, content = self._large[path.removeprefix("/")]
        return self._part(request, name, content, {"ETag": f'"{path.removeprefix("/")}"', "Accept-Ranges": "bytes"})

    def _part(self, request: Request, path: str, content: bytes, headers: Headers) -> tuple[int, Headers, bytes]:
        headers = {**headers, "X-Sent-Path": path}  # for `sent`; taken out before it is sent
        if not request.first_byte:
            return 200, headers, content
        last = len(content) - 1
        return (
            206,
            {**headers, "Content-Range": f"bytes {request.first_byte}-{last}/{last + 1}"},
            content[request.first_byte :],
        )


def oid(content: bytes) -> str:
    """Return git's id of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entries(files: Mapping[str, bytes]) -> Iterable[dict[str, Any]]:
    """Return files and folders as a listing of the hub names them."""
    folders = {parent.as_posix() for path in files for parent in Path(path).parents if parent != Path(".")}
    found: list[dict[str, Any]] = [
        {"type": "directory", "oid": oid(path.encode()), "size": 0, "path": path} for path in folders
    ]
    for path, content in files.items():
        entry = {"type": "file", "oid": oid(content), "size": len(content), "path": path}
        if path.endswith(LARGE_SUFFIXES):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        found.append(entry)
    return sorted(found, key=lambda entry: str(entry["path"]))


def _json(value: Any) -> tuple[int, Headers, bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _handler(server: HubServer, host: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            first = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range") or "")
            token = self.headers.get("Authorization")
            headers = {key: value for key, value in self.headers.items() if key != "Authorization"}
            request = Request(
                self.command, self.path, host, token and token.removeprefix("Bearer "),
                int(first[1]) if first else 0, headers,
            )  # fmt: skip
            fault = server.fault_for(request)
            if fault is not None and fault.status:
                self.answer(fault.status, {}, b'{"error": "out of order"}')
            elif fault is not None and not fault.num_bytes:
                self.close_connection = True
            else:
                self.answer(*server.respond(request, body), cut=fault.num_bytes if fault else None)

        def answer(self, status: int, headers: Headers, body: bytes, cut: int | None = None) -> None:
            name = headers.pop("X-Sent-Path", "")
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            sent = body if cut is None else body[:cut]
            with server.lock:
                server.sent[name] = server.sent.get(name, 0) + len(sent)
            self.wfile.write(sent)
            if cut is not None:
                self.close_connection = True

        do_GET = do_POST = do_HEAD = handle_any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
