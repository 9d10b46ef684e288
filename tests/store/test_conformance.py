"""Every promise of `shipway.store.base.Store`, kept by both stores: a folder, and a bucket of a real S3 server."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shipway.digest import sha256_bytes
from shipway.errors import ConflictError, InputError, IntegrityError, ObjectExistsError, ObjectNotFoundError
from shipway.store.base import Store
from shipway.store.folder import FolderStore
from shipway.store.object_store import WHOLE_UPLOAD, ObjectStore
from shipway.testing import S3Server

KEYS = [
    "plain",
    "a/b/c.txt",
    "with space/and  two.txt",
    "Grüße/日本語/🎈.json",
    "per%20cent+plus&amp=equals#hash?question",
    "~tilde'(quote)!*[x]{y}^`|;:@,$",
    ".hidden/.file",
    "n" * 255,
    "/".join(["d" * 60] * 4),
]
BAD_KEYS = [
    "",
    "/absolute",
    "trailing/",
    "a//b",
    "../outside",
    "a/../../outside",
    "./a",
    "a/.",
    "nul\0",
    "line\nfeed",
    "back\\slash",
    "s" * 256,
    "/".join(["d" * 200] * 6),
]


@pytest.fixture(scope="module")
def bucket(request: pytest.FixtureRequest) -> str:
    server: S3Server = request.getfixturevalue("s3_server")
    return server.new_bucket()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "a store")
    server: S3Server = request.getfixturevalue("s3_server")
    return ObjectStore(server.config(request.getfixturevalue("bucket"), f"run {secrets.token_hex(4)}/é"))


def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted(info.key for info in store.list(prefix))


def race(count: int, work: Callable[[int], str]) -> list[str | Exception]:
    """Run `work` in threads that start as one; return what each returned or raised."""
    start = threading.Barrier(count)

    def one(number: int) -> str | Exception:
        start.wait()
        try:
            return work(number)
        except Exception as error:  # noqa: BLE001, the outcome is what is looked at
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_is_a_store(store: Store) -> None:
    assert isinstance(store, Store)


def test_gives_back_what_was_put(store: Store) -> None:
    etag = store.put("k", b"content")
    assert store.read("k") == b"content"
    assert store.read_tagged("k") == (b"content", etag)
    assert b"".join(store.stream("k")) == b"content"


def test_put_replaces(store: Store) -> None:
    first = store.put("k", b"old, longer content")
    second = store.put("k", b"new")
    assert store.read("k") == b"new"
    assert first != second


@pytest.mark.parametrize("key", KEYS)
def test_keeps_any_reasonable_key(store: Store, key: str) -> None:
    store.create(key, key.encode())
    assert store.read(key) == key.encode()
    assert keys(store) == [key]
    store.delete(key)
    assert keys(store) == []


@pytest.mark.parametrize("key", BAD_KEYS)
def test_refuses_other_keys_everywhere(store: Store, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b""),
        lambda: store.create(key, b""),
        lambda: store.replace(key, b"", etag="x"),
        lambda: store.read(key),
        lambda: store.read_tagged(key),
        lambda: list(store.stream(key)),
        lambda: store.head(key),
        lambda: store.delete(key),
        lambda: store.url(key),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()
    assert keys(store) == []


def test_keeps_empty_objects(store: Store) -> None:
    etag = store.create("empty", b"")
    assert store.read("empty") == b""
    assert store.read_tagged("empty") == (b"", etag)
    assert b"".join(store.stream("empty")) == b""
    assert store.read("empty", length=10) == b""
    assert store.head("empty").size == 0


def test_head_tells_size_etag_and_time(store: Store) -> None:
    etag = store.put("k", b"12345")
    info = store.head("k")
    assert (info.key, info.size, info.etag) == ("k", 5, etag)
    assert info.modified.tzinfo is not None
    assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=1)


def test_list_tells_the_same_as_head(store: Store) -> None:
    store.put("a/1", b"x")
    store.put("b", b"yy")
    assert {info.key: info for info in store.list()} == {key: store.head(key) for key in ("a/1", "b")}


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 4, b"0123"),
        (3, 4, b"3456"),
        (3, None, b"3456789"),
        (8, 100, b"89"),
        (0, 0, b""),
        (10, None, b""),
        (10, 5, b""),
        (99, 5, b""),
    ],
)
def test_reads_ranges_like_a_slice(store: Store, start: int, length: int | None, expected: bytes) -> None:
    store.put("k", b"0123456789")
    assert store.read("k", start=start, length=length) == expected


def test_refuses_negative_ranges(store: Store) -> None:
    store.put("k", b"0123456789")
    with pytest.raises(InputError):
        store.read("k", start=-1)
    with pytest.raises(InputError):
        store.read("k", length=-1)


def test_says_what_does_not_exist(store: Store) -> None:
    store.put("folder/k", b"")
    calls: list[Callable[[], object]] = [
        lambda: store.read("no such"),
        lambda: store.read("no such", length=0),
        lambda: store.read("no such", start=2, length=3),
        lambda: store.read_tagged("no such"),
        lambda: list(store.stream("no such")),
        lambda: store.head("no such"),
        lambda: store.read("folder"),
        lambda: store.read("folder/k/below"),
    ]
    for call in calls:
        with pytest.raises(ObjectNotFoundError, match="does not exist"):
            call()


def test_deletes_and_forgives_what_is_not_there(store: Store) -> None:
    store.put("a/b", b"1")
    store.put("a/c", b"2")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert keys(store) == ["a/c"]
    with pytest.raises(ObjectNotFoundError):
        store.read("a/b")


def test_a_key_can_be_used_again_after_delete(store: Store) -> None:
    store.create("a/b/c", b"1")
    store.delete("a/b/c")
    store.create("a/b/c", b"2")
    assert store.read("a/b/c") == b"2"


def test_create_refuses_what_exists(store: Store) -> None:
    etag = store.create("k", b"first")
    with pytest.raises(ObjectExistsError, match="exists already"):
        store.create("k", b"second")
    assert store.read_tagged("k") == (b"first", etag)


def test_create_of_the_same_bytes_has_succeeded_already(store: Store) -> None:
    etag = store.create("k", b"same")
    assert store.create("k", b"same") == etag


def test_replace_needs_the_current_etag(store: Store) -> None:
    first = store.put("k", b"1")
    second = store.replace("k", b"2", etag=first)
    assert second != first
    with pytest.raises(ConflictError, match="changed"):
        store.replace("k", b"3", etag=first)
    assert store.read_tagged("k") == (b"2", second)


def test_replace_of_the_same_bytes_has_succeeded_already(store: Store) -> None:
    first = store.put("k", b"1")
    second = store.replace("k", b"2", etag=first)
    assert store.replace("k", b"2", etag=first) == second


def test_replace_of_what_is_gone_is_a_conflict(store: Store) -> None:
    etag = store.put("k", b"1")
    store.delete("k")
    with pytest.raises(ConflictError):
        store.replace("k", b"2", etag=etag)
    assert keys(store) == []


def test_etag_changes_whenever_content_does(store: Store) -> None:
    seen = {store.put("k", bytes([number])) for number in range(20)}
    assert len(seen) == 20


def test_one_creator_wins(store: Store) -> None:
    outcomes = race(8, lambda number: store.create("folder/k", b"%d" % number))
    winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    assert len(winners) == 1
    assert {type(outcome) for outcome in outcomes} == {str, ObjectExistsError}
    assert store.read_tagged("folder/k") == (b"%d" % winners[0], outcomes[winners[0]])


def test_one_replacer_wins(store: Store) -> None:
    etag = store.put("k", b"start")
    outcomes = race(8, lambda number: store.replace("k", b"%d" % number, etag=etag))
    winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    assert len(winners) == 1
    assert {type(outcome) for outcome in outcomes} == {str, ConflictError}
    assert store.read_tagged("k") == (b"%d" % winners[0], outcomes[winners[0]])


def test_replacers_in_turn_lose_no_step(store: Store) -> None:
    store.put("counter", b"0")

    def count(number: int) -> str:
        while True:
            value, etag = store.read_tagged("counter")
            try:
                # The worker's number makes each content its own, as the nonce of a pointer does.
                return store.replace("counter", b"%d:%d" % (int(value.split(b":")[0]) + 1, number), etag=etag)
            except ConflictError:
                continue

    assert all(isinstance(outcome, str) for outcome in race(4, count))
    assert store.read("counter").startswith(b"4:")


def test_a_reader_sees_old_or_new(store: Store) -> None:
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    store.put("k", contents[0])
    done = threading.Event()
    torn: list[int] = []

    def look() -> int:
        looks = 0
        while not done.is_set():
            data, _ = store.read_tagged("k")
            streamed = b"".join(store.stream("k"))
            torn.extend(len(each) for each in (data, streamed) if each not in contents)
            looks += 1
        return looks

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(look) for _ in range(2)]
        try:
            for turn in range(40):
                store.put("k", contents[turn % 2])
        finally:
            done.set()
        looks = [reader.result() for reader in readers]
    assert torn == []
    assert min(looks) > 0


def test_streams_a_large_file_up_and_down(store: Store, tmp_path: Path) -> None:
    content = secrets.token_bytes(1 << 20) * 20 + b"tail"
    assert len(content) > 2 * WHOLE_UPLOAD
    file = tmp_path / "large"
    file.write_bytes(content)
    etag = store.create("large", file)
    info = store.head("large")
    assert (info.size, info.etag) == (len(content), etag)
    pieces = list(store.stream("large"))
    assert b"".join(pieces) == content
    assert len(pieces) > 2
    assert store.create("large", file) == etag
    assert store.read("large", start=len(content) - 4) == b"tail"
    for start, length in ((0, 3), (5, 3 << 20), (len(content) - 4, None), (len(content) - 4, 99), (len(content), 1)):
        end = None if length is None else start + length
        assert b"".join(store.stream("large", start=start, length=length)) == content[start:end]
    file.write_bytes(content[::-1])
    with pytest.raises(ObjectExistsError):
        store.create("large", file)
    assert store.put("large", file) != etag
    assert b"".join(store.stream("large")) == content[::-1]


@pytest.mark.parametrize("count", [0, 1, 9])
def test_streams_what_comes_in_pieces(store: Store, count: int) -> None:
    pieces = [secrets.token_bytes(5 << 20) for _ in range(count)]
    etag = store.put("pieces", iter(pieces))

    assert store.head("pieces").etag == etag
    assert store.read("pieces") == b"".join(pieces)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_pieces_that_do_not_come_to_an_end_write_nothing(store: Store, count: int) -> None:
    class GoneError(Exception):
        """Something else than a store's error."""

    def pieces() -> Iterator[bytes]:
        for _ in range(count):
            yield bytes(5 << 20)
        raise GoneError

    store.put("kept", b"before")
    for key in ("kept", "new"):
        with pytest.raises(GoneError):
            store.put(key, pieces())
    assert {info.key: info.size for info in store.list()} == {"kept": 6}
    assert store.read("kept") == b"before"


def test_small_files_are_written_like_bytes(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "small"
    file.write_bytes(b"small")
    store.create("created", file)
    store.put("put", file)
    assert store.read("created") == store.read("put") == b"small"


@pytest.mark.parametrize("name", ["no such file", "folder"])
def test_an_unreadable_source_writes_nothing(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for write in (store.put, store.create):
        with pytest.raises(InputError, match=name):
            write("k", tmp_path / name)
    assert keys(store) == []


def test_lists_by_prefix(store: Store) -> None:
    for key in ("a", "ab/1", "ab/2/3", "abc/4", "b/1"):
        store.put(key, b"")
    assert keys(store, "ab/") == ["ab/1", "ab/2/3"]
    assert keys(store, "ab") == ["ab/1", "ab/2/3", "abc/4"]
    assert keys(store, "ab/2") == ["ab/2/3"]
    assert keys(store, "ab/2/3") == ["ab/2/3"]
    assert keys(store, "none/") == []
    assert keys(store) == ["a", "ab/1", "ab/2/3", "abc/4", "b/1"]


def test_lists_more_than_one_page(store: Store) -> None:
    expected = [f"many/{number:04}" for number in range(1_050)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.create(key, key.encode()), expected))
    assert keys(store, "many/") == expected


def test_an_empty_store_is_empty(store: Store) -> None:
    assert keys(store) == []
    assert keys(store, "any/") == []


def test_addresses_are_urls_without_secrets(store: Store) -> None:
    assert store.address.startswith(("s3://", "file:///"))
    assert store.url("a/b").startswith(store.address.split(" ")[0])
    assert store.url("a/b").endswith("/a/b")
    assert "key-" not in store.url("a/b")
    assert "secret" not in repr(store).lower()


@pytest.mark.parametrize("size", [0, 1000, 20_000_000])
def test_create_checks_the_digest_on_the_way(store: Store, tmp_path: Path, size: int) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"x" * size)
    with pytest.raises(IntegrityError, match="is not what it was"):
        store.create("wrong", path, sha256="0" * 64)
    assert list(store.list()) == []
    right = sha256_bytes(b"x" * size)
    etag = store.create("right", path, sha256=right)
    assert store.head("right").etag == etag
    assert store.create("right", path, sha256=right) == etag
    with pytest.raises(IntegrityError):
        store.create("bytes", b"x", sha256="0" * 64)


def test_an_object_of_another_size_is_not_believed_to_be_the_same(store: Store) -> None:
    store.create("key", b"one")
    with pytest.raises(ObjectExistsError):
        store.create("key", b"three", sha256=sha256_bytes(b"three"))


def test_read_changed_answers_only_what_is_new(store: Store) -> None:
    etag = store.put("pointer", b"1")
    assert store.read_changed("pointer", etag) is None
    new = store.put("pointer", b"2")
    assert store.read_changed("pointer", etag) == (b"2", new)
    store.delete("pointer")
    with pytest.raises(ObjectNotFoundError):
        store.read_changed("pointer", new)
