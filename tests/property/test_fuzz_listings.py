"""What is listed where others may write, or by another server: keys that can be used, or errors of ours."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.answering import Answer, Asked, answering
from tests.property.fuzzing import budget, damaged, only, texts

from shipway.errors import StoreError
from shipway.store.base import ObjectInfo, Store
from shipway.store.folder import FolderStore
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig, check_key

MODIFIED = "2024-01-01T00:00:00.000Z"
GOOD = ("p/a", "3", '"x"', MODIFIED)

keys = st.one_of(
    texts,
    st.text("ab/.\\ %\x1b\n", max_size=6).map("p/{}".format),
    st.sampled_from(["p/a", "p", "p/", "pq/a", "other/a", "p/" + "x" * 300, "p/%2e%2e/x", "p/é", "p/\u202e"]),
)
sizes = st.sampled_from(["3", "0", "-1", "", "1e3", str(1 << 63), str(1 << 70)])
tags = st.sampled_from(['"x"', "", "\x7f", "e" * 5000])
times = st.sampled_from(
    [MODIFIED, "", "yesterday", "9999-12-31T23:59:59Z", "+12345-01-01T00:00:00Z", "-9999-01-01T00:00:00Z"]
)


def entry(key: str, size: str = "3", tag: str = '"x"', modified: str = MODIFIED) -> str:
    fields = {"Key": key, "LastModified": modified, "ETag": tag, "Size": size}
    return f"<Contents>{''.join(f'<{name}>{escape(text)}</{name}>' for name, text in fields.items())}</Contents>"


def page(*entries: str) -> bytes:
    text = f'<?xml version="1.0"?><ListBucketResult><Name>b</Name>{"".join(entries)}</ListBucketResult>'
    return text.encode(errors="surrogatepass")


class Bucket:
    """A server that has one list of objects, whatever it is asked for."""

    def __init__(self) -> None:
        self.body = b""

    def __call__(self, _asked: Asked) -> Answer:
        return Answer(200, self.body)


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[Bucket, ObjectStore]]:
    told = Bucket()
    with answering(told) as address:
        config = StoreConfig("s3", "bucket", "p", address, access_key="a" * 20, secret_key="of-mine")
        yield told, ObjectStore(config, retry_seconds=0.1)


def listed(store: Store, prefix: str = "") -> list[ObjectInfo]:
    """Return what a store lists, each key one that the store takes."""
    found = only(StoreError, lambda: list(store.list(prefix)))
    infos = found if isinstance(found, list) else []
    for info in infos:
        check_key(info.key, "p")
        assert info.key.startswith(prefix)
        assert info.size >= 0
        assert info.modified <= datetime.max.replace(tzinfo=UTC)
    return infos


@budget
@given(st.lists(st.builds(entry, keys, sizes, tags, times), max_size=4), st.sampled_from(["", "a", "a/", "runs/"]))
@example([entry("p/a//b")], "")
@example([entry("p/../../x")], "")
@example([entry("other/a")], "")
@example([entry("p/a\\b")], "")
@example([entry("p/" + "x" * 2000)], "")
@example([entry(*GOOD[:3], "+12345-01-01T00:00:00Z")], "")
def test_list_of_a_bucket(bucket: tuple[Bucket, ObjectStore], entries: list[str], prefix: str) -> None:
    told, store = bucket
    told.body = page(*entries)
    listed(store, prefix)


@budget
@given(damaged(page(entry(*GOOD))) | st.binary(max_size=40))
@example(b"<a>" * 30_000)
@example(b'<!DOCTYPE l [<!ENTITY a "xx"><!ENTITY b "&a;&a;">]>' + page("<Contents><Key>&b;</Key></Contents>"))
def test_what_is_no_list(bucket: tuple[Bucket, ObjectStore], body: bytes) -> None:
    told, store = bucket
    told.body = body
    listed(store)


def test_what_is_right_is_listed_beside_what_is_not(bucket: tuple[Bucket, ObjectStore]) -> None:
    told, store = bucket
    told.body = page(entry("p/a"), entry("p/back\\slash"), entry("other/b"), entry("p/c/d", "7"))
    assert [(info.key, info.size) for info in listed(store)] == [("a", 3), ("c/d", 7)]
    told.body = page(entry("p/a"), entry("p/runs//b"))
    with pytest.raises(StoreError, match=r"'p/runs//b'; .* remove the object"):
        list(store.list())


file_names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & {0, 47} and name not in (b".", b"..")
)


@budget
@given(st.dictionaries(file_names, st.sampled_from([0, -(10**9), 10**9, 1 << 33, 1 << 40]), max_size=3))
@example({b"a\xff": 0, b"a\nb": 0, b"a\\b": 0})
@example({b"a": 1 << 40})
def test_list_of_a_folder(files: dict[bytes, int]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        store = FolderStore(Path(folder))
        store.put("good", b"x")
        for name, when in files.items():
            path = os.path.join(os.fsencode(folder), name)  # noqa: PTH118 - of bytes
            with open(path, "wb"):  # noqa: PTH123 - of bytes
                os.utime(path, (when, when))
        assert "good" in {info.key for info in listed(store)}
