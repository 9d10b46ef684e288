"""What every test runs in: an environment of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["shipway.testing"]

FOREIGN = ("AWS_", "MLFLOW_", "PREFECT_", "SHIPWAY_")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(program): skipped where the program is not on the path, failed there when CI=true"
    )


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
        yield home
