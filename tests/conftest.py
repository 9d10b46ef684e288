"""What every test runs in: an environment of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# What `make test` tries of each property; `make test-all` takes Hypothesis's own number.
settings.register_profile("short", settings.default, max_examples=30)
settings.load_profile("short")

pytest_plugins = ["shipway.testing"]

FOREIGN = ("AWS_", "MLFLOW_", "PREFECT_", "SHIPWAY_")

ON_STACK = ("acceptance", "faults")
"""Folders of tests that start servers or many processes."""

LONG = (
    "faults/test_healing.py",
    "acceptance/test_parity.py",
    "acceptance/test_worker_program.py",
    "acceptance/test_walk.py",
    "acceptance/test_stack.py",
    "acceptance/test_flights_example.py",
    "acceptance/test_backfill.py",
    "acceptance/test_bad_input.py",
    "acceptance/test_walkthrough_2022.py",
    "acceptance/test_secrets_sweep.py",
    "acceptance/test_reclaim.py",
    "acceptance/test_resume.py",
    "acceptance/test_flow_kinds.py",
    "acceptance/test_mlflow.py",
    "acceptance/test_doctor.py",
    "faults/test_commit_faults.py",
    "faults/test_worker_faults.py",
    "acceptance/test_lineage.py",
    "acceptance/test_models.py",
    "acceptance/test_build_again.py",
)
"""The longest files of those folders, the longest first; what is not named here takes less than these."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(program): skipped where the program is not on the path, failed there when CI=true"
    )
    config.addinivalue_line(
        "markers", "long: takes long, for a variant of what other tests show; `make test-all` runs it"
    )
    config.addinivalue_line("markers", "parity: a variant of what other cases show; `make parity` runs it")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files in the order in which two workers are done with them soonest.

    A stack lives until its worker's last test and takes part of a core all the time, so what needs none comes first.
    Of the rest the longest files come first, or one of them would be left at the end for one worker alone.
    """
    folder = Path(__file__).parent

    def place(item: pytest.Item) -> tuple[bool, int]:
        file = item.path.relative_to(folder).as_posix()
        return file.startswith(ON_STACK), LONG.index(file) if file in LONG else len(LONG)

    items.sort(key=place)


def pytest_runtest_setup(item: pytest.Item) -> None:
    from shipway.testing import skip_or_fail  # not above: pytest must import its plugins first

    for marker in item.iter_markers("needs"):
        for program in marker.args:
            if shutil.which(program) is None:
                skip_or_fail(f"{program} is not installed")


@pytest.fixture(scope="session", autouse=True)
def hermetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Take away what the person at this machine has configured, for this process and all those it starts.

    For the session, because servers that serve many tests are started in it too. A test that needs a variable sets it
    with `monkeypatch`.
    """
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FOREIGN):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("PREFECT_HOME", str(home / ".prefect"))
        # Otherwise a search for AWS credentials waits for the network of a cloud machine.
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        # No test cuts the power: folder stores of this process need not wait for the disk at each write.
        patch.setattr(os, "fsync", lambda descriptor: None)
        # Shared by the processes that run the tests side by side.
        shared = tmp_path_factory.getbasetemp().parent if os.environ.get("PYTEST_XDIST_WORKER") else home
        patch.setenv("TEST_TABLES", str(shared / "tables.db"))
        yield home
