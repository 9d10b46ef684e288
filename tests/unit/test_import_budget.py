"""What a command may load. This is what keeps commands fast: imports are nearly all a light command does, and, unlike
the time they take, which of them happen is the same on every machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.answering import Answer, Asked, answering

from shipway.artifact import Artifact
from shipway.deployment.spec import DeploymentSpec
from shipway.deployment.step import PULL_STEP
from shipway.deployment.write import deployment_text
from shipway.digest import sha256_bytes
from shipway.release.build import build
from shipway.release.scan import scan
from shipway.report.collect import page_key
from shipway.run.record import RunRecord, run_folder, write_record
from shipway.settings import Settings
from shipway.stack import ProcessFacts, StackFacts, write_facts
from shipway.stack.secrets import load_or_make_secrets
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig
from shipway.testing import S3Server

FETCH = "click obstore pathspec typing_extensions"
BUDGET = {
    # command                                                    packages it may load besides Shipway
    "--help":                                                    "click",
    "ls --help":                                                 "click",
    "run --help":                                                "click",
    "ls":                                                        "click",
    "ls --json":                                                 "click",
    "inspect tiny/one":                                          "click",
    "runs":                                                      "click",
    "show first":                                                "click obstore",
    "show first --json":                                         "click obstore",
    "get first result copy.json":                                "click obstore pathspec typing_extensions",
    "models -sb s3/it":                                          "click obstore",
    "why first":                                                 "click obstore",
    "why first:result --json":                                   "click obstore",
    "report first --fresh":                                      FETCH + " Jinja2 MarkupSafe",
    "report first":                                              FETCH,
    "status":                                                    "click psutil",
    "block s3 it --bucket-path BUCKET --endpoint-url ENDPOINT":  "click obstore",
}  # fmt: skip

UNCHANGED_BUILD = {
    "click", "jsonschema_rs", "msgspec", "obstore", "pathspec", "ruamel.yaml", "ruamel.yaml.clib", "typing_extensions",
}  # fmt: skip
"""What a build loads where nothing changed: neither Prefect nor the flow. Parameters are checked all the same."""

HEAVY = {"pydantic",
    "prefect", "fastapi", "httpx", "sqlalchemy", "boto3", "botocore", "cryptography", "rich", "polars", "pandas",
    "pyarrow", "numpy", "matplotlib", "pathspec", "jsonschema",
}  # fmt: skip
"""What a command that checks a deployment file, with all the packages this takes, leaves alone all the same."""

SLOW = {"asyncio", "multiprocessing", "sqlite3", "unittest", "xml"}
"""Parts of the standard library that none of these commands needs."""

NOT_AT_IMPORT = SLOW | {"dataclasses", "inspect", "json", "logging", "pathlib", "subprocess", "urllib"}
"""Parts of it that even `import shipway`, which every flow does, has no use for."""

FLOW = """
from prefect import flow

@flow(name="tiny")
def main(n: int = 1):
    pass
"""

COMMAND = "from shipway.cli import main; main()"

PROBE = """
import sys
statement, listing = sys.argv.pop(1), sys.argv.pop(1)
before = set(sys.modules)
try:
    exec(statement)
finally:
    print(*(set(sys.modules) - before), file=open(listing, "w"))
"""

RUN: dict[str, Any] = {
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
        # Not in the folder, which the next command may make a release of.
        listing = self.folder.with_name("modules.txt")
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
    (folder / "tiny.py").write_text(FLOW)
    spec = DeploymentSpec(
        name="one",
        flow="tiny",
        entrypoint="tiny.py:main",
        store="s3/it",
        release=str(build(scan(folder), store).version),
        parameters={"n": 1},
        parameter_openapi_schema={"type": "object", "properties": {"n": {"type": "integer"}}},
    )
    (folder / "tiny-deployment.yaml").write_text(deployment_text(spec, "tiny-deployment.yaml"))
    _save_run(store)
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    with _api(_answers(s3_server, bucket)) as api_url:
        _describe_stack(Settings(project=folder, api_url=api_url), s3_server.config(bucket))
        yield Stage(folder, s3_server, bucket, {"PREFECT_API_URL": api_url, **keys})


def _save_run(store: ObjectStore) -> None:
    """Put a run with one artifact into the store."""
    folder = run_folder("tiny", datetime.fromisoformat(RUN["expected_start_time"]), RUN["name"], RUN["id"])
    key, content = f"{folder}/1/result.json", b"{}"
    store.put(key, content)
    artifact = Artifact("result", key, sha256_bytes(content), len(content), "json")
    timings = dict.fromkeys(("scheduled", "started", "ended"), RUN["expected_start_time"])
    record = RunRecord(RUN["id"], RUN["name"], "tiny", "tiny/one", 1, None, {}, artifacts=(artifact,), timings=timings)
    assert write_record(store, folder, record)
    store.put(page_key(folder), b"its page")


def _describe_stack(settings: Settings, store: StoreConfig) -> None:
    """Have `status` believe in a stack: this very process is its supervisor."""
    settings.state.mkdir()
    load_or_make_secrets(settings.secrets_file)
    me = ProcessFacts(os.getpid(), psutil.Process().create_time())
    write_facts(settings, StackFacts("ready", settings.api_url, settings.api_url, "", None, store, me, ()))


def _answers(server: S3Server, bucket: str) -> dict[str, Any]:
    """Return what the Prefect API says, by method and path."""
    block = {
        "bucket_path": bucket,
        "endpoint_url": server.endpoint_url,
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
    }
    deployment = {
        "id": "d",
        "flow_id": "f",
        "name": "one",
        "version": f"1.{'a' * 64}",
        "tags": [],
        "parameters": {},
        "schedules": [],
        "paused": False,
        "pull_steps": [{PULL_STEP: {"store": "s3/it"}}],
    }
    checksum = json.loads(files("shipway.prefect").joinpath("block_schema.json").read_text())["checksum"]
    return {
        "GET /api/health": True,
        "GET /api/admin/version": metadata.version("prefect"),
        "POST /api/flows/filter": [{"id": "f", "name": "tiny"}],
        "POST /api/flow_runs/filter": [RUN],
        "POST /api/task_runs/filter": [],
        "POST /api/deployments/filter": [deployment],
        "GET /api/deployments/d": deployment,
        "GET /api/deployments/name/tiny/one": deployment,
        "GET /api/work_pools/shipway": {"name": "shipway", "type": "shipway"},
        "GET /api/work_pools/shipway/queues/default": {"name": "default"},
        "GET /api/block_types/slug/s3": {"id": "t"},
        f"GET /api/block_schemas/checksum/{checksum}": {"id": "s", "block_type_id": "t"},
        "GET /api/block_types/slug/s3/block_documents/name/it": {"id": "b", "data": block},
        "PATCH /api/block_documents/b": None,
    }


@contextmanager
def _api(answers: dict[str, Any]) -> Iterator[str]:
    """Serve fixed answers and return the address."""

    def answer(asked: Asked) -> Answer:
        body = json.dumps(answers.get(asked.line, {"detail": f"no {asked.line} here"})).encode()
        return Answer(200 if asked.line in answers else 404, body)

    with answering(answer) as address:
        yield f"{address}/api"


@pytest.mark.parametrize("command", BUDGET)
def test_a_command_loads_what_it_needs(stage: Stage, command: str) -> None:
    modules = stage.loaded(COMMAND, *command.split())
    assert _packages(modules) - set(BUDGET[command].split()) == set()
    assert _roots(modules) & SLOW == set()


def test_checking_a_deployment_file_loads_nothing_heavy(stage: Stage) -> None:
    modules = stage.loaded(COMMAND, "apply", "tiny-deployment.yaml", "--plan", status=2)
    assert "msgspec" in _packages(modules)
    assert _packages(modules) & HEAVY == set()
    assert _roots(modules) & SLOW == set()


def test_a_build_of_what_has_not_changed_loads_nothing_heavy(stage: Stage) -> None:
    command = ("build", "tiny.py:main", "-n", "two", "-p", "n=2", "-sb", "s3/it")
    assert "subprocess" in stage.loaded(COMMAND, *command)
    modules = stage.loaded(COMMAND, *command)
    assert _packages(modules) - UNCHANGED_BUILD == set()
    assert _roots(modules) & (SLOW | {"subprocess"}) == set()


def test_the_doctor_loads_nothing_heavy(stage: Stage) -> None:
    # It finds much to be mended in an API that is a few fixed answers.
    modules = stage.loaded(COMMAND, "doctor", status=1)
    assert "packaging" in _packages(modules)
    assert _packages(modules) & (HEAVY - {"pathspec"}) == set()


def test_importing_shipway_loads_next_to_nothing(stage: Stage) -> None:
    modules = stage.loaded("import shipway")
    assert {name for name in modules if name.startswith("shipway")} == {"shipway"}
    assert _packages(modules) == set()
    assert _roots(modules) & NOT_AT_IMPORT == set()


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
