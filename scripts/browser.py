"""Headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
WIDTH, HEIGHT = 1440, 900
PHONE = 600
"""A window less wide than this is a phone's."""
LIMIT = 60.0
"""Seconds within which a page must show what it is to show."""
QUIET = 1.5
"""Seconds for which a page must not change before its picture is taken."""


@dataclass
class Browser:
    """One page of a running Chromium, driven over its DevTools protocol."""

    connection: Connection
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method and return its result.

        Raises:
            RuntimeError: the browser refused.
        """
        number = next(self._numbers)
        self.connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.connection.recv(timeout=LIMIT))
            if answer.get("id") != number:
                continue  # an event
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the page, None where it raises."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def show(self, url: str, texts: tuple[str, ...], quiet: float = QUIET) -> None:
        """Open a page and wait until it shows `texts` and has come to rest, for `quiet` seconds.

        Raises:
            TimeoutError: it did not; the message says what is missing.
        """
        self.call("Page.navigate", url=url)
        self.wait(url, texts, quiet)

    def wait(self, what: str, texts: tuple[str, ...], quiet: float = QUIET, seconds: float = LIMIT) -> None:
        """Wait until the page shows `texts` and has come to rest, for `quiet` seconds.

        Raises:
            TimeoutError: it did not; the message says what, and what is missing.
        """
        deadline = time.monotonic() + seconds
        seen, since = "", time.monotonic()
        while time.monotonic() < deadline:
            time.sleep(0.1)
            # Below its text a page may still be drawing: the task graph is a canvas, placeholders have no text.
            now = self.evaluate("document.body.innerText + document.querySelectorAll('*').length") or ""
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > quiet and all(text in now for text in texts):
                return
        missing = ", ".join(repr(text) for text in texts if text not in seen)
        raise TimeoutError(f"{what} did not show {missing or 'anything at rest'} within {seconds:g} s:\n{seen[:2000]}")

    def log_in(self, ui_url: str, auth_string: str, seconds: float = LIMIT) -> None:
        """Have Prefect's UI, whose login page is shown, let one in; its page of runs is shown then."""
        self.evaluate("document.querySelector('input[type=password]').focus()")
        self.call("Input.insertText", text=auth_string)
        self.evaluate("document.querySelector('button[type=submit]').click()")
        # It complains of what it was refused before, and goes on doing so.
        self.evaluate("document.querySelectorAll('.p-toast__close-btn').forEach(button => button.click())")
        self.wait(f"{ui_url} after the login", ("Flow runs", "Task runs"), seconds=seconds)

    def look(self, width: int, height: int, colours: str | None = None) -> None:
        """Give the window a size in pixels, and what it shows the colours, `light` or `dark`, that its user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < PHONE}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": colours}] if colours else []
        self.call("Emulation.setEmulatedMedia", media="screen", features=features)

    def picture(self) -> bytes:
        """Return what the window shows as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start Chromium with a profile of its own and stop it in the end."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        sys.exit("Chromium is not installed; scripts/test-tools --install, as root, installs it")
    with tempfile.TemporaryDirectory(prefix="shipway-chromium-", ignore_cleanup_errors=True) as profile:
        argv = [program, *FLAGS, f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            address = _page_address(Path(profile) / "DevToolsActivePort", process)
            with connect(address, max_size=None, proxy=None) as connection:
                browser = Browser(connection)
                browser.look(WIDTH, HEIGHT)
                yield browser
        finally:
            process.terminate()
            process.wait()


def _page_address(file: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait until Chromium says where it listens and return the address of its one page."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
        if file.exists() and (lines := file.read_text().splitlines()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=30) as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
    raise RuntimeError("Chromium did not start")
