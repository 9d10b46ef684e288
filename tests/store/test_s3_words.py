"""Each way an S3 server can refuse or fail becomes one of our errors, in words that name the thing and what to do.

What the real server can produce is tested on it. What it cannot (a wrong region, a clock that is off, a full disk, an
answer that is lost, a server without conditional writes) comes from a small HTTP server that speaks AWS's XML.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shipway.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    ShipwayError,
    StoreError,
    StoreUnreachableError,
    UnsupportedStoreError,
)
from shipway.store.base import Store
from shipway.store.object_store import ObjectStore
from shipway.store.probe import probe
from shipway.store.url import StoreConfig
from shipway.testing import S3Server

SECRET = "a-secret-that-nobody-may-see"

CALLS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("k", b"x"),
    "create": lambda store: store.create("k", b"x"),
    "replace": lambda store: store.replace("k", b"x", etag='"0"'),
    "read": lambda store: store.read("k"),
    "read_tagged": lambda store: store.read_tagged("k"),
    "stream": lambda store: list(store.stream("k")),
    "head": lambda store: store.head("k"),
    "delete": lambda store: store.delete("k"),
    "list": lambda store: list(store.list()),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def impatient(config: StoreConfig) -> ObjectStore:
    return ObjectStore(config, retry_seconds=0.2)


def failure(call: Callable[[Store], object], config: StoreConfig) -> ShipwayError:
    with pytest.raises(ShipwayError) as caught:
        call(impatient(config))
    error = caught.value
    assert error.hint
    assert SECRET not in str(error)
    assert config.secret_key is None or config.secret_key not in str(error)
    assert "<" not in error.message
    return error


class FakeS3:
    """A bucket in memory that can be told how to misbehave."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refusal: tuple[int, str, dict[str, str]] | None = None
        self.ignores_conditions = False
        self.answers_to_lose = 0
        self.writes = 0
        self.hosts: set[str] = set()
        self.endpoint_url = ""

    def config(self) -> StoreConfig:
        return StoreConfig(
            "s3", bucket="bucket", endpoint_url=self.endpoint_url, region="us-east-1", access_key="K", secret_key=SECRET
        )

    def refuse(self, status: int, code: str, message: str = "", extra: str = "", **headers: str) -> None:
        xml = (
            f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{extra}</Error>"
            if code
            else ""
        )
        self.refusal = (status, xml, headers)


def handler(fake: FakeS3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the name is the base class's
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def refused(self) -> bool:
            fake.hosts.add(self.headers["host"])
            if fake.refusal is None:
                return False
            status, xml, headers = fake.refusal
            self.answer(status, xml.encode(), **headers)
            return True

        def etag(self, content: bytes) -> str:
            return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            if self.refused():
                return
            fake.writes += 1
            here = fake.objects.get(self.path)
            now = None if here is None else self.etag(here)
            wanted = self.headers["if-match"]
            taken = self.headers["if-none-match"] == "*" and here is not None
            if not fake.ignores_conditions and (taken or (wanted and wanted != now)):
                self.answer(412)
                return
            fake.objects[self.path] = content
            if fake.answers_to_lose:
                fake.answers_to_lose -= 1
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.answer(200, ETag=self.etag(content))

        def do_GET(self) -> None:
            if self.refused():
                return
            content = fake.objects.get(self.path)
            if content is None:
                self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                return
            self.answer(200, content, ETag=self.etag(content), Last_Modified=formatdate(usegmt=True))

        do_HEAD = do_GET  # noqa: N815, the base class looks for this name

        def do_DELETE(self) -> None:
            if not self.refused():
                fake.objects.pop(self.path, None)
                self.answer(204)

    return Handler


@contextmanager
def running_fake() -> Iterator[FakeS3]:
    fake = FakeS3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(fake))
    fake.endpoint_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    with running_fake() as server:
        yield server


# On the real server.


@each_call
def test_no_such_bucket(s3_server: S3Server, call: Callable[[Store], object]) -> None:
    error = failure(call, s3_server.config("not-there"))
    assert isinstance(error, BucketNotFoundError)
    assert error.message == f"bucket 'not-there' does not exist at {s3_server.endpoint_url}"


@each_call
def test_wrong_secret(s3_server: S3Server, call: Callable[[Store], object]) -> None:
    error = failure(call, replace(s3_server.config("any-bucket"), secret_key=SECRET))
    assert isinstance(error, AccessDeniedError)
    assert "secret key does not belong to the access key" in error.message


@each_call
def test_unknown_key(s3_server: S3Server, call: Callable[[Store], object]) -> None:
    error = failure(call, replace(s3_server.config("any-bucket"), access_key="unknown"))
    assert isinstance(error, AccessDeniedError)
    assert "does not know the access key" in error.message


@each_call
def test_nothing_listens(call: Callable[[Store], object]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        error = failure(
            call, StoreConfig("s3", bucket="bucket", endpoint_url=endpoint, access_key="K", secret_key=SECRET)
        )
    assert isinstance(error, StoreUnreachableError)
    assert error.message == f"the store at {endpoint} does not answer: nothing accepts connections there"


def test_no_such_host() -> None:
    endpoint = "https://no-such-host.invalid"
    error = failure(
        CALLS["read"], StoreConfig("s3", bucket="bucket", endpoint_url=endpoint, access_key="K", secret_key=SECRET)
    )
    assert isinstance(error, StoreUnreachableError)
    assert error.message == f"the store at {endpoint} does not answer: its name cannot be resolved"


def test_https_on_a_port_that_speaks_http(s3_server: S3Server) -> None:
    endpoint = s3_server.endpoint_url.replace("http:", "https:")
    error = failure(CALLS["read"], replace(s3_server.config("bucket"), endpoint_url=endpoint))
    assert isinstance(error, StoreUnreachableError)
    assert "does not speak TLS" in error.message
    assert error.hint == "write http:// instead of https://"


# On the server that misbehaves.


@each_call
@pytest.mark.parametrize(
    ("status", "code", "message", "extra"),
    [
        (400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'", ""),
        (400, "AuthorizationHeaderMalformed", "", "<Region>eu-west-1</Region>"),
        (301, "PermanentRedirect", "", "<Endpoint>bucket.s3.eu-west-1.amazonaws.com</Endpoint>"),
        (301, "", "", ""),
    ],
)
def test_wrong_region(
    fake: FakeS3, call: Callable[[Store], object], status: int, code: str, message: str, extra: str
) -> None:
    fake.refuse(status, code, message, extra)
    error = failure(call, fake.config())
    assert type(error) is StoreError
    assert "bucket 'bucket' is not in region us-east-1" in error.message
    assert "--region" in str(error.hint)
    if code == "AuthorizationHeaderMalformed" and call is not CALLS["head"]:
        assert error.hint == "use --region eu-west-1"


@each_call
def test_clock_that_is_off(fake: FakeS3, call: Callable[[Store], object]) -> None:
    fake.refuse(
        403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."
    )
    error = failure(call, fake.config())
    assert isinstance(error, AccessDeniedError)
    assert "clock differs too much" in error.message
    assert error.hint == "set the clock of this machine"


@pytest.mark.parametrize(("status", "code"), [(507, ""), (507, "InsufficientStorage"), (403, "QuotaExceeded")])
def test_full_store(fake: FakeS3, status: int, code: str) -> None:
    fake.refuse(status, code)
    error = failure(CALLS["put"], fake.config())
    assert type(error) is StoreError
    assert "is full or over its quota: s3://bucket/k was not written" in error.message


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (400, "ExpiredToken", AccessDeniedError, "have expired"),
        (403, "AccessDenied", AccessDeniedError, "do not allow this on s3://bucket/k"),
        (403, "", AccessDeniedError, "do not allow this on s3://bucket/k"),
        (503, "SlowDown", StoreUnreachableError, "keeps answering 503 SlowDown"),
        (500, "", StoreUnreachableError, "keeps answering 500"),
        (501, "NotImplemented", UnsupportedStoreError, "lacks something"),
        (400, "KeyTooLongError", StoreError, "refused s3://bucket/k: 400 KeyTooLongError"),
    ],
)
def test_other_refusals(fake: FakeS3, status: int, code: str, kind: type[StoreError], words: str) -> None:
    fake.refuse(status, code)
    with pytest.raises(kind, match=re.escape(words)):
        impatient(fake.config()).put("k", b"x")


def test_probe_finds_that_conditions_are_ignored(fake: FakeS3) -> None:
    fake.ignores_conditions = True
    with pytest.raises(UnsupportedStoreError, match="ignores the condition"):
        probe(impatient(fake.config()))
    assert fake.objects == {}


def test_a_create_whose_answer_was_lost_has_succeeded(fake: FakeS3) -> None:
    fake.answers_to_lose = 1
    store = ObjectStore(fake.config(), retry_seconds=5)
    etag = store.create("k", b"mine")
    assert fake.writes == 2
    assert store.read_tagged("k") == (b"mine", etag)


def test_a_replace_whose_answer_was_lost_has_succeeded(fake: FakeS3) -> None:
    store = ObjectStore(fake.config(), retry_seconds=5)
    old = store.put("k", b"old")
    fake.answers_to_lose = 1
    etag = store.replace("k", b"new", etag=old)
    assert fake.writes == 3
    assert store.read_tagged("k") == (b"new", etag)


def test_a_conflict_after_a_lost_answer_is_still_a_conflict(fake: FakeS3) -> None:
    store = ObjectStore(fake.config(), retry_seconds=5)
    store.put("k", b"somebody else's")
    with pytest.raises(ObjectExistsError):
        store.create("k", b"mine")
    with pytest.raises(ConflictError):
        store.replace("k", b"mine", etag='"stale"')
    assert store.read("k") == b"somebody else's"


def test_requests_are_sent_to_the_endpoint_given_whatever_the_environment_says(
    fake: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of other keys")
    ObjectStore(fake.config()).put("k", b"x")
    assert fake.hosts == {fake.endpoint_url.removeprefix("http://")}


def test_a_session_token_of_other_keys_is_not_sent(
    s3_store: ObjectStore, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of other keys")
    bucket = s3_store.address.removeprefix("s3://")
    ObjectStore(s3_server.config(bucket)).put("k", b"x")


def test_the_environment_gives_credentials_and_endpoint(
    s3_store: ObjectStore, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    store = ObjectStore(StoreConfig("s3", bucket=s3_store.address.removeprefix("s3://")))
    store.put("k", b"x")
    assert s3_store.read("k") == b"x"


def test_a_profile_gives_credentials(
    s3_store: ObjectStore, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[mine]\naws_access_key_id={s3_server.access_key}\naws_secret_access_key={s3_server.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    bucket = s3_store.address.removeprefix("s3://")
    config = StoreConfig("s3", bucket=bucket, endpoint_url=s3_server.endpoint_url, profile="mine")
    ObjectStore(config).put("k", b"x")
    assert s3_store.read("k") == b"x"
    with pytest.raises(AccessDeniedError, match="no AWS profile 'other'"):
        ObjectStore(replace(config, profile="other"))


def test_no_credentials_anywhere() -> None:
    with pytest.raises(AccessDeniedError, match=r"no credentials for s3://bucket; give an access key"):
        ObjectStore(StoreConfig("s3", bucket="bucket"))


def test_credentials_that_cannot_be_had(fake: FakeS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"[profile broken]\ncredential_process = sh -c 'echo {SECRET} >&2; exit 3'\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(AccessDeniedError, match="cannot be had: CredentialRetrievalError") as caught:
        impatient(replace(fake.config(), access_key=None, secret_key=None, profile="broken")).read("k")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_object_is_not_a_missing_bucket(s3_store: ObjectStore) -> None:
    for call in (s3_store.head, s3_store.read):
        with pytest.raises(ObjectNotFoundError):
            call("k")
