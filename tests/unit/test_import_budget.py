"""What a command may load. This is what keeps commands fast: imports are nearly all a light command does, and, unlike
the time they take, which of them happen is the same on every machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from shipway.artifact import Artifact
from shipway.deployment.plan import PULL_STEP
from shipway.deployment.spec import DeploymentSpec
from shipway.deployment.write import deployment_text
from shipway.digest import sha256_bytes
from shipway.release.build import build
from shipway.release.scan import scan
from shipway.run.record import RunRecord, run_folder, write_record
from shipway.settings import Settings
from shipway.stack import ProcessFacts, StackFacts, write_facts
from shipway.stack.secrets import load_or_make_secrets
from shipway.store.object_store import ObjectStore
from shipway.testing import S3Server

PYDANTIC = "pydantic pydantic_core annotated-types typing_extensions typing-inspection"
YAML = "ruamel.yaml ruamel.yaml.clib"

BUDGET = {
    # command                                     packages it may load besides Shipway
    "--help":                                     "click",
    "ls --help":                                  "click",
    "run --help":                                 "click",
    "ls":                                         "click",
    "ls --json":                                  "click",
    "inspect tiny/one":                           "click",
    "runs":                                       "click",
    "show first":                                 "click obstore",
    "show first --json":                          "click obstore",
    "get first result copy.json":                 "click obstore pathspec",
    "status":                                     "click psutil",
    "block s3 it --bucket-path BUCKET --endpoint-url ENDPOINT": "click obstore",
    "apply tiny-deployment.yaml --plan":          f"click obstore pathspec {PYDANTIC} {YAML}",
}  # fmt: skip

FORBIDDEN = {"asyncio", "multiprocessing", "sqlite3", "unittest", "xml"}
"""Heavy parts of the standard library that none of these commands needs; `import shipway` needs nearly nothing of it."""

STATEMENT_FORBIDDEN = FORBIDDEN | {"dataclasses", "inspect", "json", "logging", "pathlib", "subprocess", "urllib"}

PROBE = """
import sys
before = set(sys.modules)
try:
    exec(sys.argv.pop(1))
finally:
    print(*(set(sys.modules) - before), file=open(sys.argv.pop(1), "w"))
"""

RUN = {
    "id": "0190d000-0000-7000-8000-00000000000a",
    "name": "first",
    "flow_id": "f",
    "deployment_id": "d",
    "deployment_version": f"1.{'a' * 64}",
    "state_name": "Completed",
    "state_type": "COMPLETED",
    "expected_start_time": "2026-01-02T03:04:05+00:00",
    "start_time": "2026-01-02T03:04:05+00:00",
    "end_time": "2026-01-02T03:04:06+00:00",
    "total_run_time": 1.0,
    "parameters": {},
}


@dataclass(frozen=True)
class Stage:
    """A project whose Prefect API is a few fixed answers and whose store is real.

    Attributes:
        folder: the project.
        server: the S3 server.
        bucket: the store's bucket.
        environment: what the commands run with.
    """

    folder: Path
    server: S3Server
    bucket: str
    environment: dict[str, str]

    def loaded(self, statement: str, *arguments: str, status: int = 0) -> set[str]:
        """Return the modules that a statement loads in a fresh interpreter."""
        listing = self.folder / "modules.txt"
        words = {"BUCKET": self.bucket, "ENDPOINT": self.server.endpoint_url}
        done = subprocess.run(
            [sys.executable, "-c", PROBE, statement, str(listing), *(words.get(word, word) for word in arguments)],
            cwd=self.folder,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return set(listing.read_text().split())


@pytest.fixture(scope="module")
def stage(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("budget")
    bucket = s3_server.new_bucket()
    store = ObjectStore(s3_server.config(bucket))
    (folder / "tiny.py").write_text("")
    spec = DeploymentSpec(
        name="one",
        flow="tiny",
        entrypoint="tiny.py:main",
        store="s3/it",
        release=str(build(scan(folder), store).version),
        parameter_openapi_schema={},
    )
    (folder / "tiny-deployment.yaml").write_text(deployment_text(spec, "tiny-deployment.yaml"))
    _save_run(store)
    answers = _answers(spec, s3_server, bucket)
    with _api(answers) as api_url:
        settings = Settings(project=folder, api_url=api_url)
        load_or_make_secrets(settings.secrets_file)
        keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
        yield Stage(folder, s3_server, bucket, {"PREFECT_API_URL": api_url, **keys})


@pytest.mark.parametrize("command", BUDGET)
def test_a_command_loads_what_it_needs(stage: Stage, command: str) -> None:
    modules = stage.loaded("from shipway.cli import main; main()", *command.split())
    assert _packages(modules) - set(BUDGET[command].split()) == set()
    assert _roots(modules) & FORBIDDEN == set()


def test_importing_shipway_loads_next_to_nothing(stage: Stage) -> None:
    modules = stage.loaded("import shipway")
    assert {name for name in modules if name.startswith("shipway")} == {"shipway"}
    assert _packages(modules) == set()
    assert _roots(modules) & STATEMENT_FORBIDDEN == set()


def test_the_budget_would_notice(stage: Stage) -> None:
    modules = stage.loaded("import asyncio, httpx")
    assert "httpx" in _packages(modules)
    assert "asyncio" in _roots(modules)


def _roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def _packages(modules: set[str]) -> set[str]:
    """Return the installed packages that modules belong to, ours excepted."""
    owners = packages_distributions()
    return {owner for root in _roots(modules) for owner in owners.get(root, [])} - {"shipway"}
