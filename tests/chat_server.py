"""A chat-completions server on the loopback interface: it answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Scripted:
    """One answer. A status of 0 hangs up."""

    status: int = 200
    content: Any = ""  # bytes as they are, anything else as JSON
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before it
    drip: float = 0.0  # seconds between two bytes of it


def completion(text: str | None, *, finish_reason: str = "stop", prompt_tokens: int = 10, **message: Any) -> Scripted:
    """Answer as a chat model does; a word is a token."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len((text or "").split())}
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
    return Scripted(content={"object": "chat.completion", "choices": [choice], "usage": usage})


@dataclass
class ChatServer:
    """Answers from the script first, then by the rule."""

    url: str = ""
    script: list[Scripted] = field(default_factory=list)
    rule: Callable[[dict[str, Any]], Scripted] = lambda body: completion("I cannot say.")
    asked: list[dict[str, Any]] = field(default_factory=list)  # the body of every request, in order
    keys: list[str | None] = field(default_factory=list)  # and its authorization
    times: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, body: dict[str, Any], key: str | None) -> Scripted:
        with self.lock:
            self.asked.append(body)
            self.keys.append(key)
            self.times.append(time.monotonic())
            if path != "/v1/chat/completions":
                return Scripted(status=404, content={"error": {"message": "no such path"}})
            return self.script.pop(0) if self.script else self.rule(body)


@contextmanager
def serve_chat() -> Iterator[ChatServer]:
    """Serve until the block ends."""
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            scripted = state.answer(self.path, body, self.headers.get("Authorization"))
            time.sleep(scripted.delay)
            if scripted.status == 0:
                self.close_connection = True
                return
            raw = scripted.content if isinstance(scripted.content, bytes) else json.dumps(scripted.content).encode()
            try:
                self.send_response(scripted.status)
                for name, value in {"Content-Length": str(len(raw)), **scripted.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for start in range(0, len(raw), 1 if scripted.drip else max(1, len(raw))):
                    self.wfile.write(raw[start : start + 1] if scripted.drip else raw)
                    self.wfile.flush()
                    time.sleep(scripted.drip)
            except (BrokenPipeError, ConnectionResetError):  # the client did not wait
                self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
