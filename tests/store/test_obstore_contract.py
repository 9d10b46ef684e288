"""What we lean on in obstore. When one of these fails after an upgrade, read `object_store.py` and `words.py` again."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PermissionDeniedError, PreconditionError
from obstore.store import S3Store

from shipway.store.object_store import WHOLE_UPLOAD, parts_of
from shipway.testing import S3Server

MIB = 1 << 20

FORKED = """
import os, sys
import obstore  # as the template process does, before it forks
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig

config = StoreConfig("s3", bucket=sys.argv[1], endpoint_url=sys.argv[2], access_key=sys.argv[3],
                     secret_key=os.environ["SECRET"])
if os.fork() == 0:
    store = ObjectStore(config)
    store.put("from-child", b"x")
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
LEAVES_AT_ONCE = """
import os, sys, threading
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig

config = StoreConfig("s3", bucket=sys.argv[1], endpoint_url=sys.argv[2], access_key=sys.argv[3],
                     secret_key=os.environ["SECRET"])
store = ObjectStore(config)
for number in range(8):
    threading.Thread(target=store.put, args=(f"exit/{number}", b"x" * (4 << 20)), daemon=True).start()
"""
WITH_BOUNDED_MEMORY = """
import os, re, resource, sys
from pathlib import Path
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig

config = StoreConfig("s3", bucket=sys.argv[1], endpoint_url=sys.argv[2], access_key=sys.argv[3],
                     secret_key=os.environ["SECRET"])
def most():
    if sys.platform == "linux":  # where the usage of a process begins with that of the one which started it
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

store = ObjectStore(config)
store.put("small", b"x")
before = most()
store.create("large", Path(sys.argv[4]))
assert sum(len(piece) for piece in store.stream("large")) == 200 << 20
print(most() - before)
"""


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


@pytest.fixture
def raw(s3_server: S3Server, bucket: str) -> S3Store:
    return _raw(s3_server, bucket)


def _raw(server: S3Server, bucket: str, secret: str | None = None) -> S3Store:
    return S3Store(
        bucket,
        endpoint=server.endpoint_url,
        region="us-east-1",
        access_key_id=server.access_key,
        secret_access_key=secret or server.secret_key,
        disable_bulk_delete=True,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
    )


def test_conditional_writes_raise_these(raw: S3Store) -> None:
    etag = obstore.put(raw, "k", b"1", mode="create", use_multipart=False)["e_tag"]
    with pytest.raises(AlreadyExistsError):
        obstore.put(raw, "k", b"2", mode="create", use_multipart=False)
    obstore.put(raw, "k", b"2", mode={"e_tag": etag}, use_multipart=False)
    with pytest.raises(PreconditionError):
        obstore.put(raw, "k", b"3", mode={"e_tag": etag}, use_multipart=False)


def test_a_missing_object_is_a_file_not_found_error_without_errno(raw: S3Store) -> None:
    for call in (obstore.get, obstore.head):
        with pytest.raises(FileNotFoundError) as caught:
            call(raw, "missing")
        assert "status: 404" in str(caught.value)


def test_deleting_a_missing_object_is_no_error(raw: S3Store) -> None:
    obstore.delete(raw, "missing")


def test_texts_hold_the_status_and_the_servers_xml(s3_server: S3Server, bucket: str) -> None:
    with pytest.raises(PermissionDeniedError, match=r"status: 403") as caught:
        obstore.get(_raw(s3_server, bucket, "wrong"), "k")
    assert "<Code>SignatureDoesNotMatch</Code>" in str(caught.value)
    with pytest.raises(FileNotFoundError) as missing:
        obstore.get(_raw(s3_server, "no-such-bucket"), "k")
    assert "<Code>NoSuchBucket</Code>" in str(missing.value)
    with pytest.raises(GenericError, match="<Code>NoSuchBucket</Code>"):
        list(obstore.list(_raw(s3_server, "no-such-bucket")))


def test_a_range_past_the_end_is_a_416(raw: S3Store) -> None:
    obstore.put(raw, "range", b"0123456789")
    with pytest.raises(BaseError, match="status: 416"):
        obstore.get_range(raw, "range", start=10, length=1)
    assert bytes(obstore.get_range(raw, "range", start=8, length=99)) == b"89"


def test_lists_whole_folders_only(raw: S3Store) -> None:
    for key in ("ab/1", "abc/2"):
        obstore.put(raw, key, b"")
    assert [info["path"] for page in obstore.list(raw, "ab") for info in page] == ["ab/1"]


def test_the_environment_would_win_without_our_care(
    s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(GenericError, match=r"127\.0\.0\.1:9"):
        obstore.get(_raw(s3_server, bucket), "k")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of other keys")
    with pytest.raises(PermissionDeniedError):
        obstore.get(_raw(s3_server, bucket), "k")


def run(code: str, server: S3Server, bucket: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, bucket, server.endpoint_url, server.access_key, *arguments],
        env=os.environ | {"SECRET": server.secret_key},
        check=True,
        timeout=120,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


@pytest.mark.parametrize("code", [FORKED, LEAVES_AT_ONCE], ids=["works in a forked child", "lets a process end"])
def test_processes(s3_server: S3Server, bucket: str, code: str) -> None:
    run(code, s3_server, bucket)


def test_a_large_file_is_sent_with_bounded_memory(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(200 << 20)
    grown = int(run(WITH_BOUNDED_MEMORY, s3_server, bucket, str(large)))
    assert 0 < grown < 120 << 20


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (WHOLE_UPLOAD + 1, (8 * MIB, 3)),
        (9_000 * 8 * MIB, (8 * MIB, 3)),
        (9_000 * 8 * MIB + 1, (8 * MIB + 1, 2)),
        (9_000 * 12 * MIB, (12 * MIB, 2)),
        (9_000 * 12 * MIB + 1, (12 * MIB + 1, 1)),
        (10**12, (111_111_112, 1)),
    ],
)
def test_larger_parts_are_fewer_at_once(size: int, parts: tuple[int, int]) -> None:
    assert parts_of(size) == parts


@pytest.mark.parametrize("size", [WHOLE_UPLOAD + 1, 10**11, 226 * 10**9, 10**12, 5 * 1024**4])
def test_s3_takes_so_many_parts_and_memory_holds_them(size: int) -> None:
    part, at_once = parts_of(size)
    assert -(-size // part) <= 9_000
    assert 5 * MIB <= part <= 5 * 1024 * MIB
    assert part * at_once <= max(24 * MIB, part)
    assert at_once == 1 or size < 226 * 10**9
