"""What a release meets in the world: uploads that are refused, stores that lack something, clocks and people that err.

Each is one error of one line that names the thing and the next step, and what was good before stays good.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.store.test_s3_words import FakeS3, running_fake
from tests.unit.test_checkout import files

from shipway.blob import EPOCH_SECONDS, LARGE_FILE, current_epoch, epoch_of
from shipway.deployment.history import move_pointer, pointer_key, read_pointer
from shipway.errors import (
    AccessDeniedError,
    IntegrityError,
    ObjectNotFoundError,
    ShipwayError,
    StoreError,
    StoreUnreachableError,
    UnsupportedStoreError,
)
from shipway.manifest import Version, read_manifest
from shipway.release.build import build
from shipway.release.checkout import checkout
from shipway.release.memory import Memory
from shipway.release.scan import scan
from shipway.store.base import Store
from shipway.store.folder import FolderStore
from shipway.store.object_store import WHOLE_UPLOAD, ObjectStore
from shipway.store.probe import probe
from shipway.testing import S3Server

BLOBS = 5


def one_line(error: ShipwayError, thing: str, *secrets: str) -> None:
    """Check that an error is one line that names a thing and the next step, and no secret."""
    assert thing in error.message
    assert error.hint
    assert "\n" not in str(error)
    assert len(str(error)) < 500
    assert not any(secret in str(error) for secret in secrets)


class Proxy:
    """What stands between a builder and the server, and may misbehave.

    Attributes:
        refuse: given a path and how many writes came before, what a write is answered with; 0 for the server's answer.
        late: whether the server gets what is refused all the same.
        without: a header that is not passed on.
        written: how often each path was written to.
    """

    def __init__(self, server: str) -> None:
        self.server = urlsplit(server)
        self.endpoint_url = ""
        self.refuse: Callable[[str, int], int] = lambda _path, _before: 0
        self.late = False
        self.without = ""
        self.written: Counter[str] = Counter()
        self.lock = threading.Lock()

    def handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805, there are two of them here
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the name is the base class's
                pass

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                path = self.path.partition("?")[0]
                with proxy.lock:
                    status = proxy.refuse(path, proxy.written.total()) if self.command in ("PUT", "POST") else 0
                    if self.command == "PUT" and not status:
                        proxy.written[path] += 1
                if status and not proxy.late:
                    return self.answer(status, [], f"<Error><Code>{REFUSED[status][0]}</Code></Error>".encode())
                assert proxy.server.hostname
                connection = http.client.HTTPConnection(proxy.server.hostname, proxy.server.port)
                try:
                    connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        if name.lower() != proxy.without:
                            connection.putheader(name, value)
                    connection.endheaders(body)
                    answer = connection.getresponse()
                    content = answer.read()
                finally:
                    connection.close()
                if status:
                    return self.answer(status, [], b"")
                return self.answer(answer.status, answer.getheaders(), content)

            do_GET = do_HEAD = do_POST = do_DELETE = do_PUT  # noqa: N815, the base class looks for these names

            def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response_only(status)
                length = str(len(content))
                for name, value in headers:
                    if self.command == "HEAD" and name.lower() == "content-length":
                        length = value
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(content)

        return Handler


@contextmanager
def running_proxy(server: str) -> Iterator[Proxy]:
    proxy = Proxy(server)
    listener = ThreadingHTTPServer(("127.0.0.1", 0), proxy.handler())
    proxy.endpoint_url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with running_proxy(s3_server.endpoint_url) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of which the release is one pack and some blobs."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flow.py").write_text("x = 1\n")
    (folder / "other.py").write_text("x = 2\n")
    for n in range(BLOBS):
        (folder / f"blob_{n}").write_bytes(bytes([n]) * LARGE_FILE)
    return folder


REFUSED = {
    403: ("AccessDenied", AccessDeniedError),
    500: ("InternalError", StoreUnreachableError),
    507: ("InsufficientStorage", StoreError),
}


@pytest.mark.parametrize(("status", "late"), [(403, False), (500, False), (507, False), (500, True)])
def test_an_upload_refused_half_way_leaves_no_release_and_is_taken_up_again(
    s3_server: S3Server, proxy: Proxy, project: Path, tmp_path: Path, status: int, late: bool
) -> None:
    (project / "parts").write_bytes(b"parts" * (WHOLE_UPLOAD // 2))  # a blob that goes up in several parts
    config = s3_server.config(s3_server.new_bucket())
    store = ObjectStore(replace(config, endpoint_url=proxy.endpoint_url), retry_seconds=0.3)
    direct = ObjectStore(config)
    memory = Memory(tmp_path / "state", store.address)
    found, proxy.late = scan(project), late
    refusals: list[Callable[[str, int], int]] = [
        lambda _path, _before: status,
        lambda _path, before: status if before >= 3 else 0,
        lambda path, _before: status if "/releases/" in path else 0,
    ]
    for proxy.refuse in refusals:
        arrived = {f"/{config.bucket}/{key}" for key in memory.arrived()}
        proxy.written.clear()
        with pytest.raises(REFUSED[status][1]) as caught:
            build(found, store, memory=memory)
        one_line(caught.value, f"s3://{config.bucket}/code/", s3_server.secret_key, s3_server.access_key)
        assert not arrived & proxy.written.keys()
        # Of a manifest the server got, and whose answer was lost, nobody was told.
        assert late or not [info for info in direct.list("code/") if "/releases/" in info.key]
    assert len(memory.arrived()) == 1 + BLOBS + 1
    proxy.refuse = lambda _path, _before: 0
    proxy.written.clear()
    version = build(found, store, memory=memory).version
    assert [path.split("/")[-2] for path in proxy.written] == ["releases"]
    checkout(direct, version, tmp_path / "copy")
    assert files(tmp_path / "copy") == files(project)


@pytest.mark.parametrize("area", ["packs", "blobs", "releases"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damage_in_a_bucket_stops_the_checkout(
    s3_store: ObjectStore, project: Path, tmp_path: Path, area: str, harm: str
) -> None:
    version = build(scan(project), s3_store).version
    key = next(info.key for info in s3_store.list("code/") if f"/{area}/" in info.key)
    data = bytearray(s3_store.read(key))
    if harm == "remove":
        s3_store.delete(key)
    else:
        data[-1] ^= harm == "flip"
        s3_store.put(key, bytes(data if harm == "flip" else data[:-1]))
    with pytest.raises((IntegrityError, ObjectNotFoundError)) as caught:
        checkout(s3_store, version, tmp_path / "copies/copy")
    one_line(caught.value, version.short if area == "releases" else s3_store.url(key))
    assert not (tmp_path / "copies").exists() or list((tmp_path / "copies").iterdir()) == []


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    with running_fake() as server:
        yield server


@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_one_kind_of_condition_is_found_out(fake: FakeS3, condition: str) -> None:
    """The server behind the proxy checks no signatures, so that a header may be taken away."""
    with running_proxy(fake.endpoint_url) as proxy:
        proxy.without = condition.lower()
        store = ObjectStore(replace(fake.config(), endpoint_url=proxy.endpoint_url), retry_seconds=0.3)
        with pytest.raises(UnsupportedStoreError) as caught:
            probe(store)
    one_line(caught.value, f"s3://bucket ignores the condition of a conditional write ({condition})")
    assert fake.objects == {}


@pytest.mark.parametrize("call", [lambda s: s.create("k", b"x"), lambda s: s.replace("k", b"x", etag='"0"'), probe])
def test_a_store_that_knows_no_conditions_says_so(fake: FakeS3, call: Callable[[Store], object]) -> None:
    fake.refuse(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
    with pytest.raises(UnsupportedStoreError) as caught:
        call(ObjectStore(fake.config(), retry_seconds=0.3))
    one_line(caught.value, "s3://bucket/")


POINTERS = [
    b"",
    b"{",
    b"\xff",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"version": 1}',
    b'{"version": 2, "history": []}',
    b'{"version": 1, "history": 5}',
    b'{"version": 1, "history": ["x"]}',
    b'{"version": 1, "history": [{"release": "1.abc", "at": ""}]}',
    b'{"version": 1, "history": [{"release": 7, "at": ""}]}',
    json.dumps({"version": 1, "history": [{"release": f"1.{'0' * 64}"}]}).encode(),
]


@pytest.mark.parametrize("data", POINTERS)
@pytest.mark.parametrize("remembered", [False, True])
def test_a_pointer_edited_by_hand_is_named(
    folder_store: FolderStore, tmp_path: Path, data: bytes, remembered: bool
) -> None:
    version = Version(current_epoch(), "0" * 64)
    move_pointer(folder_store, "flow", "it", version)
    cache = tmp_path / "state" if remembered else None
    assert read_pointer(folder_store, "flow", "it", cache=cache)
    key = pointer_key("flow", "it")
    folder_store.put(key, data)
    for _ in range(2):
        with pytest.raises(IntegrityError) as caught:
            read_pointer(folder_store, "flow", "it", cache=cache)
        one_line(caught.value, folder_store.url(key))
    with pytest.raises(IntegrityError):
        move_pointer(folder_store, "flow", "it", Version(current_epoch(), "1" * 64))
    assert folder_store.read(key) == data


@pytest.mark.parametrize("harm", ["never there", "damaged"])
def test_a_pointer_to_a_release_that_cannot_be_read_costs_an_upload(
    folder_store: FolderStore, project: Path, tmp_path: Path, harm: str
) -> None:
    previous = Version(current_epoch(), "0" * 64)
    if harm == "damaged":
        folder_store.put(f"code/{previous.epoch}/releases/{previous.release_id}", b"{}")
    version = build(scan(project), folder_store, previous=previous).version
    checkout(folder_store, version, tmp_path / "copy")
    assert files(tmp_path / "copy") == files(project)


def test_a_release_refers_to_no_epoch_that_may_be_collected_whatever_the_clock_says(
    folder_store: FolderStore, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock four epochs ahead, then put right, then four behind, then right again."""
    now = current_epoch() * float(EPOCH_SECONDS)
    memory = Memory(tmp_path / "state", folder_store.address)
    previous: Version | None = None
    for n, epochs in enumerate((0, 4, 0, -4, 0)):
        monkeypatch.setattr("shipway.blob.time.time", lambda at=now + epochs * EPOCH_SECONDS: at)
        (project / "flow.py").write_text(f"x = {n // 2}\n")
        previous = build(scan(project), folder_store, previous=previous, memory=memory).version
        assert previous.epoch >= current_epoch() - 1
        manifest = read_manifest(folder_store, previous)
        assert all((epoch_of(where.key) or 0) >= current_epoch() - 1 for where in manifest.contents.values())
        checkout(folder_store, previous, tmp_path / f"copy-{n}")
        assert files(tmp_path / f"copy-{n}") == files(project)
