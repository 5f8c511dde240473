"""A real headless Chromium, driven over the DevTools protocol through a pair of pipes: no driver, no library."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMAND = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
         "--disable-background-networking", "--disable-component-update", "--no-first-run")  # fmt: skip

# The texts of plots that stick out of them.
SPILLED = """[...document.querySelectorAll('svg')].flatMap(svg => {
    const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(text => {
        const own = text.getBoundingClientRect();
        return own.width && (own.left < box.left - 1 || own.right > box.right + 1 || own.bottom > box.bottom + 1);
    }).map(text => svg.getAttribute('aria-label') + ': ' + text.textContent);
})"""


class Browser:
    """One tab; everything that it says or asks the network for is kept."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer, self._buffer, self._number = reader, writer, b"", 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, session=None)
        self.session: str | None = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, params: dict[str, Any] | None = None, session: str | None = "own") -> dict[str, Any]:
        """Ask for something and wait for the answer; events that come before it are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = self.session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._reader, 1 << 16)
            assert read, "the browser has gone"
            self._buffer += read
        line, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(line))

    def open(self, url: str, *, width: int, height: int = 900, dark: bool = False, script: bool = True) -> None:
        """Load a page at a width, and wait until it has loaded."""
        self.events.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size)
        self.call("Emulation.setScriptExecutionDisabled", {"value": not script})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.call("Page.navigate", {"url": url})
        while not self.of("Page.loadEventFired"):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        return self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True})["result"].get("value")

    def of(self, method: str) -> list[dict[str, Any]]:
        """Return what was heard of one kind."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def complaints(self) -> list[dict[str, Any]]:
        """Return errors, warnings and messages of the page."""
        return [*self.of("Runtime.consoleAPICalled"), *self.of("Runtime.exceptionThrown"), *self.of("Log.entryAdded")]

    def requests(self) -> list[str]:
        """Return every address that the page asked for, its own included."""
        return [event["request"]["url"] for event in self.of("Network.requestWillBeSent")]

    def picture(self, path: Path, *, top: float = 0, height: float | None = None) -> None:
        """Write a screenshot of the page from `top`, whole where no height is said."""
        width, whole = (self.value(f"document.documentElement.scroll{side}") for side in ("Width", "Height"))
        clip = {"x": 0, "y": top, "width": width, "height": height or whole - top, "scale": 1}
        shot = self.call("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Run a browser with a profile of its own. It reads descriptor 3 and writes descriptor 4."""
    assert COMMAND is not None
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100) for descriptor in (their_in, their_out)]
    null = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
    moves = [(os.POSIX_SPAWN_DUP2, descriptor, wanted) for descriptor, wanted in zip(high, (3, 4), strict=True)]
    command = [COMMAND, *FLAGS, f"--user-data-dir={profile}"]
    process = os.posix_spawn(COMMAND, command, os.environ, file_actions=[null, *moves])
    for descriptor in (their_in, their_out, *high):
        os.close(descriptor)
    try:
        yield Browser(our_in, our_out)
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
        os.close(our_in)
        os.close(our_out)
