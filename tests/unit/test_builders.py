"""Builders as processes, before a real S3 server: two at once, and one that is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tests.faults.proxy import Request, faulty_proxy
from tests.unit.test_checkout import files

from shipway.blob import LARGE_FILE
from shipway.manifest import Version, read_manifest
from shipway.release.build import build
from shipway.release.checkout import checkout
from shipway.release.memory import Memory
from shipway.release.scan import scan
from shipway.store.object_store import WHOLE_UPLOAD, ObjectStore
from shipway.store.url import StoreConfig
from shipway.testing import S3Server

SECONDS = 120
BLOBS = 5

BUILDER = """
import json, os, sys, threading
from pathlib import Path
from shipway.release.build import build
from shipway.release.memory import Memory
from shipway.release.scan import scan
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig

folder, state, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
go_on, room = threading.Event(), threading.Semaphore(limit)

class Held(ObjectStore):
    def create(self, key, data, *, sha256=None):
        if key.rpartition("/")[2] != os.environ["PARTS"]:
            room.acquire()
        return super().create(key, data, sha256=sha256)

    def _multipart(self, path, content, *parts):
        # By now the store has been asked whether the object is there.
        def held():
            for number, piece in enumerate(content):
                if number == 3:
                    print("held", flush=True)
                    go_on.wait()
                yield piece
        return super()._multipart(path, held(), *parts)

def listen():
    if sys.stdin.readline():
        go_on.set()

threading.Thread(target=listen, daemon=True).start()
store = Held(StoreConfig(**json.loads(os.environ["STORE"])))
print(build(scan(folder), store, memory=Memory(state, store.address)).version, flush=True)
"""
"""Builds a folder; stops within its file in parts until told to go on, and for good after `limit` other objects."""


def make(folder: Path, text: str) -> Path:
    """Make a folder of which the release is one pack, a blob in several parts, and some blobs; return it."""
    folder.mkdir()
    (folder / "flow.py").write_text(f"x = {text!r}\n")
    (folder / "a-parts").write_bytes(b"parts" * (WHOLE_UPLOAD // 2))
    for n in range(BLOBS):
        (folder / f"blob_{n}").write_bytes(bytes([n]) * LARGE_FILE)
    return folder


@contextmanager
def builder(config: StoreConfig, folder: Path, state: Path, limit: int = 100) -> Iterator[subprocess.Popen[str]]:
    [parts] = [entry.sha256 for entry in scan(folder).entries if entry.path == "a-parts"]
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder), str(state), str(limit)],
        env=os.environ | {"STORE": json.dumps(asdict(config)), "PARTS": parts},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def config(s3_server: S3Server) -> StoreConfig:
    return s3_server.config(s3_server.new_bucket())


@pytest.mark.parametrize("same", [True, False], ids=["of one folder", "of two folders"])
def test_two_builders_at_once_make_two_whole_releases(config: StoreConfig, tmp_path: Path, same: bool) -> None:
    """Both have seen that the large file is not there before either of them has sent it."""
    one = make(tmp_path / "one", "one")
    folders = [one, one if same else make(tmp_path / "two", "two")]
    with (
        builder(config, folders[0], tmp_path / f"state-{folders[0].name}") as first,
        builder(config, folders[1], tmp_path / f"state-{folders[1].name}") as second,
    ):
        both = (first, second)
        assert [said(process) for process in both] == ["held", "held"]
        for process in both:
            assert process.stdin
            process.stdin.write("go on\n")
            process.stdin.flush()
        versions = [Version.parse(said(process)) for process in both]
        assert [process.wait(SECONDS) for process in both] == [0, 0]
    assert (versions[0] == versions[1]) == same
    store = ObjectStore(config)
    for number, (version, folder) in enumerate(zip(versions, folders, strict=True)):
        checkout(store, version, tmp_path / f"copy-{number}")
        assert files(tmp_path / f"copy-{number}") == files(folder)
    keys = {info.key for info in store.list("code/")}
    needed = {where.key for version in versions for where in read_manifest(store, version).contents.values()}
    assert {key for key in keys if "/releases/" not in key} == needed, "nothing is there twice"


def test_a_build_that_was_killed_sends_nothing_again_that_had_arrived(
    s3_server: S3Server, config: StoreConfig, tmp_path: Path
) -> None:
    folder, state, limit = make(tmp_path / "project", "x"), tmp_path / "state", 3
    store = ObjectStore(config)
    memory = Memory(state, store.address)
    with builder(config, folder, state, limit) as process:
        assert said(process) == "held"
        deadline = time.monotonic() + SECONDS
        while len(memory.arrived()) < limit:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait(SECONDS) == -signal.SIGKILL
    arrived = {info.key for info in store.list()}
    assert memory.arrived() == arrived
    assert len(arrived) == limit

    sent: list[Request] = []
    with faulty_proxy(s3_server.endpoint_url) as proxy:
        proxy.befall(sent.append)
        version = build(scan(folder), ObjectStore(replace(config, endpoint_url=proxy.url)), memory=memory).version
    written = Counter(
        request.target.partition("?")[0].removeprefix(f"/{config.bucket}/")
        for request in sent
        if request.method == "PUT"
    )
    assert not written.keys() & arrived
    assert written.keys() | arrived == {info.key for info in store.list()}
    # Of the large file, which had arrived in part, every part.
    size = (folder / "a-parts").stat().st_size
    assert sorted(written.values()) == [1] * (len(written) - 1) + [-(-size // WHOLE_UPLOAD)]
    checkout(store, version, tmp_path / "copy")
    assert files(tmp_path / "copy") == files(folder)
