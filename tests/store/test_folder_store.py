"""What only the folder store has to care for: links, modes, full disks, leftovers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shipway.errors import AccessDeniedError, InputError, ObjectExistsError, StoreError
from shipway.store.folder import HASHED, PRIVATE, FolderStore

WITH_A_LIMIT = """
import resource, sys
from pathlib import Path
from shipway.errors import StoreError
from shipway.store.folder import FolderStore

store = FolderStore(Path(sys.argv[1]))
store.put("pointer", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for write in (store.put, store.create):
    try:
        write("big", b"x" * 200_000)
    except StoreError as error:
        print(error)
try:
    store.put("pointer", b"x" * 200_000)
except StoreError as error:
    print(error)
"""
WITHOUT_RIGHTS = """
import os, sys
from pathlib import Path
from shipway.errors import StoreError
from shipway.store.folder import FolderStore

if os.geteuid() == 0:
    os.seteuid(65534)
try:
    FolderStore(Path(sys.argv[1])).put("k", b"")
except StoreError as error:
    print(type(error).__name__, error)
"""
WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from shipway.store.folder import FolderStore

store = FolderStore(Path(sys.argv[1]))
store.put("small", b"x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.create("large", Path(sys.argv[2]))
for piece in store.stream("large"):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def temporaries(store_folder: Path) -> list[Path]:
    return list((store_folder / PRIVATE / "tmp").iterdir())


def test_objects_are_plain_files(tmp_path: Path) -> None:
    FolderStore(tmp_path).put("runs/one.json", b"{}")
    assert (tmp_path / "runs/one.json").read_bytes() == b"{}"


def test_objects_have_the_mode_that_new_files_have(tmp_path: Path) -> None:
    (tmp_path / "compare").touch()
    FolderStore(tmp_path).put("k", b"")
    assert (tmp_path / "k").stat().st_mode == (tmp_path / "compare").stat().st_mode


def test_nothing_is_made_before_the_first_write(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "new")
    store.delete("k")
    assert list(store.list()) == []
    assert not (tmp_path / "new").exists()


def test_writes_leave_no_temporary_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("k", b"1")
    store.create("l", b"1")
    with pytest.raises(ObjectExistsError):
        store.create("l", b"2")
    assert temporaries(tmp_path) == []


def test_listing_shows_neither_temporary_files_nor_locks(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("k", b"1")
    (tmp_path / PRIVATE / "tmp" / "half-written").write_bytes(b"half")
    assert [info.key for info in store.list()] == ["k"]
    with pytest.raises(InputError, match="private"):
        store.read(f"{PRIVATE}/tmp/half-written")


def test_what_a_killed_writer_left_is_removed_a_day_later(tmp_path: Path) -> None:
    FolderStore(tmp_path).put("k", b"1")
    old, new = (tmp_path / PRIVATE / "tmp" / name for name in ("old", "new"))
    for each in (old, new):
        each.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    FolderStore(tmp_path).put("k", b"2")
    assert temporaries(tmp_path) == [new]


def test_delete_removes_empty_folders_up_to_the_store(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put("a/b/c/k", b"")
    store.put("a/other", b"")
    store.delete("a/b/c/k")
    assert not (tmp_path / "store/a/b").exists()
    store.delete("a/other")
    assert (tmp_path / "store").is_dir()
    assert not (tmp_path / "store/a").exists()


def test_removing_empty_folders_never_hurts_a_creator(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    done = threading.Event()

    def remove() -> None:
        while not done.is_set():
            store.create("a/b/c/other", b"")
            store.delete("a/b/c/other")

    with ThreadPoolExecutor(2) as pool:
        removers = [pool.submit(remove) for _ in range(1)]
        try:
            for number in range(150):
                store.create(f"a/b/c/{number}", b"x")
                assert store.read(f"a/b/c/{number}") == b"x"
                store.delete(f"a/b/c/{number}")
        finally:
            done.set()
        for each in removers:
            each.result()


def test_folders_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    store = FolderStore(tmp_path / "store")
    store.put("k", b"")
    (tmp_path / "store/link").symlink_to(tmp_path / "outside")
    calls: list[Callable[[], object]] = [
        lambda: store.read("link/secret"),
        lambda: store.head("link/secret"),
        lambda: store.put("link/secret", b"mine"),
        lambda: store.create("link/new", b"mine"),
        lambda: store.delete("link/secret"),
        lambda: list(store.list("link/")),
    ]
    for call in calls[:5]:
        with pytest.raises(StoreError, match="link"):
            call()
    assert (tmp_path / "outside/secret").read_bytes() == b"secret"
    assert not (tmp_path / "outside/new").exists()
    assert [info.key for info in store.list()] == ["k"]


def test_links_in_place_of_an_object_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store = FolderStore(tmp_path / "store")
    store.put("k", b"")
    (tmp_path / "store/link").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="link"):
        store.read("link")
    store.put("link", b"mine")
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert store.read("link") == b"mine"


def test_a_link_loop_ends(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("k", b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StoreError, match="link"):
        store.read("loop/k")
    assert [info.key for info in store.list()] == ["k"]


def test_the_store_itself_may_be_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = FolderStore(tmp_path / "link")
    store.put("k", b"1")
    assert store.read("k") == b"1"


def test_pipes_and_folders_are_not_objects(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("k", b"")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError):
        store.read("pipe")
    assert [info.key for info in store.list()] == ["k"]


@pytest.mark.parametrize("write", ["put", "create"])
def test_an_object_and_a_folder_of_one_name_exclude_each_other(tmp_path: Path, write: str) -> None:
    store = FolderStore(tmp_path)
    store.put("a", b"")
    store.put("b/c", b"")
    with pytest.raises(StoreError, match="name of a folder"):
        getattr(store, write)("a/below", b"")
    with pytest.raises(StoreError, match="folder has this name"):
        getattr(store, write)("b", b"")


def test_a_large_object_has_a_new_etag_at_each_write(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    content = b"x" * (HASHED + 1)
    assert len({store.put("k", content[:-1] + bytes([number])) for number in range(10)}) == 10


def test_says_that_the_folder_is_not_writable() -> None:
    # In a process of its own, which gives up being root, who may write anywhere.
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        store.mkdir()
        store.chmod(0o555)
        Path(folder).chmod(0o755)
        output = subprocess.run(
            [sys.executable, "-c", WITHOUT_RIGHTS, str(store)], check=True, capture_output=True, text=True
        ).stdout
    assert re.fullmatch(
        r"AccessDeniedError .*store may not be used for 'k': Permission denied; check its owner.*\n", output
    )


def test_says_that_the_file_system_is_read_only() -> None:
    # /proc refuses new files to everybody, root included.
    if not Path("/proc/self").is_dir():
        pytest.skip("there is no /proc")
    with pytest.raises(AccessDeniedError, match="no folder can be made"):
        FolderStore(Path("/proc/store")).put("k", b"")


def test_a_disk_without_room_leaves_nothing_half_written(tmp_path: Path) -> None:
    output = subprocess.run(
        [sys.executable, "-c", WITH_A_LIMIT, str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(output) == 3
    assert all("larger than the system allows" in line for line in output)
    store = FolderStore(tmp_path)
    assert [info.key for info in store.list()] == ["pointer"]
    assert store.read("pointer") == b"old"
    assert temporaries(tmp_path) == []


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    full = tmp_path / "disk"
    full.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(full)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system of a chosen size can be mounted here")
    try:
        store = FolderStore(full)
        store.put("pointer", b"old")
        with pytest.raises(StoreError, match="the disk is full"):
            store.put("pointer", b"x" * (4 << 20))
        assert store.read("pointer") == b"old"
        assert temporaries(full) == []
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_large_files_pass_through_in_pieces(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(200 << 20)
    output = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY, str(tmp_path / "store"), str(large)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(output) * unit < 30 << 20


def test_processes_exclude_each_other_too(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from shipway.errors import ConflictError\n"
        "from shipway.store.folder import FolderStore\n"
        "store, mine = FolderStore(Path(sys.argv[1])), sys.argv[2]\n"
        "for _ in range(25):\n"
        "    while True:\n"
        "        value, etag = store.read_tagged('counter')\n"
        "        try:\n"
        "            store.replace('counter', b'%d:%s' % (int(value.split(b':')[0]) + 1, mine.encode()), etag=etag)\n"
        "            break\n"
        "        except ConflictError:\n"
        "            pass\n"
    )
    store = FolderStore(tmp_path)
    store.put("counter", b"0")
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)]) for number in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert store.read("counter").startswith(b"75:")
