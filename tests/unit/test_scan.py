"""What a release takes of a folder, what it leaves, what it refuses."""

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shipway.digest import sha256_file
from shipway.errors import FolderError
from shipway.manifest import tree_digest
from shipway.release.scan import TRIES, scan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flow.py").write_text("x = 1\n")
    return folder


def paths(folder: Path) -> list[str]:
    return [entry.path for entry in scan(folder).entries]


def test_caches_and_environments_are_left_out(folder: Path) -> None:
    for path in (
        "__pycache__/flow.cpython-311.pyc",
        ".git/HEAD",
        ".shipway/stack.json",
        "env/pyvenv.cfg",
        "env/lib/x.py",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("")
    assert paths(folder) == ["flow.py"]


def test_the_first_ignore_file_counts_with_negation(folder: Path) -> None:
    (folder / ".gitignore").write_text("flow.py\n")
    (folder / ".shipwayignore").write_text("*.csv\n!keep.csv\n")
    for name in ("drop.csv", "keep.csv"):
        (folder / name).write_text("1\n")
    found = scan(folder)
    assert [entry.path for entry in found.entries] == [".gitignore", ".shipwayignore", "flow.py", "keep.csv"]
    assert found.skipped == ("drop.csv",)


def write(folder: Path, files: dict[str, str]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)


def visible(folder: Path) -> list[str]:
    return [path for path in paths(folder) if not path.endswith("ignore")]


def test_an_ignore_file_in_a_subfolder_counts_there_and_the_nearest_decides(folder: Path) -> None:
    write(folder, {".gitignore": "*.csv\n", "a/.gitignore": "!*.csv\n/x\n", "a/b/.gitignore": "no.csv\n"})
    write(folder, dict.fromkeys(["1.csv", "a/1.csv", "a/x", "a/b/x", "a/b/1.csv", "a/b/no.csv", "c/x"], ""))
    assert visible(folder) == ["a/1.csv", "a/b/1.csv", "a/b/x", "c/x", "flow.py"]
    assert scan(folder).skipped == ("1.csv", "a/b/no.csv", "a/x")


def test_what_lies_in_a_folder_that_is_left_out_cannot_be_taken(folder: Path) -> None:
    write(folder, {".gitignore": "data/\n!data/keep\nlogs/**\n!logs/keep\n", "data/.gitignore": "!keep\n"})
    write(folder, dict.fromkeys(["data/keep", "logs/keep", "logs/a"], ""))
    found = scan(folder)
    assert [entry.path for entry in found.entries] == [".gitignore", "flow.py", "logs/keep"]
    assert found.skipped == ("data/", "logs/a")


def test_the_first_kind_met_on_the_way_down_is_the_kind_below(folder: Path) -> None:
    write(
        folder, {"a/.gitignore": "x\n", "a/b/.shipwayignore": "y\n", "c/.shipwayignore": "y\n", "c/.gitignore": "x\n"}
    )
    write(folder, {f"{place}/{name}": "" for place in ("a", "a/b", "c") for name in "xy"})
    assert visible(folder) == ["a/b/y", "a/y", "c/x", "flow.py"]
    write(folder, {".prefectignore": ""})
    assert visible(folder) == ["a/b/x", "a/b/y", "a/x", "a/y", "c/x", "c/y", "flow.py"]


@pytest.mark.parametrize("text", ["\ufeffx\ny \n", "x\r\ny\r\n", "# c\n\n/x\n/y"])
def test_ignore_files_of_other_editors(folder: Path, text: str) -> None:
    (folder / ".gitignore").write_bytes(text.encode())
    write(folder, dict.fromkeys("xyz", ""))
    assert visible(folder) == ["flow.py", "z"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfex\0", "is not UTF-8"),
        (b"x\\", "not understood"),
        (b"[z-a]", "not understood"),
        (b"[[:alpha:]]", "not understood"),
        (b"[\\]]", "not understood"),
    ],
)
def test_an_ignore_file_that_cannot_be_read_is_named(folder: Path, content: bytes, words: str) -> None:
    (folder / "a").mkdir()
    (folder / "a/.gitignore").write_bytes(content)
    with pytest.raises(FolderError, match=words) as caught:
        scan(folder)
    assert caught.value.message.startswith("a/.gitignore ")
    assert caught.value.hint


def test_a_folder_with_the_name_of_an_ignore_file_is_none(folder: Path) -> None:
    write(folder, {".gitignore/x": ""})
    assert paths(folder) == [".gitignore/x", "flow.py"]


def test_what_build_writes_is_no_part_of_the_release(folder: Path) -> None:
    (folder / "main-deployment.yaml").write_text("# Shipway deployment main/x, written by ...\n")
    (folder / "main-manifest.json").write_text('{\n  "shipway_manifest": 1\n}\n')
    (folder / "k8s-deployment.yaml").write_text("kind: Deployment\n")
    assert paths(folder) == ["flow.py", "k8s-deployment.yaml"]


def test_big_files_are_said(folder: Path) -> None:
    with (folder / "data.bin").open("wb") as file:
        file.truncate(20_000_001)
    assert scan(folder).big == ("data.bin",)


def secret(folder: Path) -> None:
    (folder / ".env").write_text("PASSWORD=x\n")


def own_socket(folder: Path) -> None:
    os.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.sock")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def broken_link(folder: Path) -> None:
    (folder / "link").symlink_to("nothing")


def loop(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")


def link_out(folder: Path) -> None:
    (folder.parent / "secret.txt").write_text("x")
    (folder / "link").symlink_to("../secret.txt")


def absolute_link(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "flow.py")


def twins(folder: Path) -> None:
    (folder / "FLOW.py").write_text("")


def device_name(folder: Path) -> None:
    (folder / "aux.py").write_text("")


def newline(folder: Path) -> None:
    (folder / "a\nb").write_text("")


def nothing(folder: Path) -> None:
    (folder / "flow.py").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (secret, "looks like a secret"),
        (own_socket, "is a socket"),
        (pipe, "is a named pipe"),
        (broken_link, "does not exist"),
        (loop, "in a loop"),
        (link_out, "leaves the folder"),
        (absolute_link, "leaves the folder"),
        (twins, "one where case is ignored"),
        (device_name, "names a device"),
        (newline, "control character"),
        (nothing, "holds no file"),
    ],
)
def test_what_cannot_be_released_is_named(
    folder: Path, spoil: Callable[[Path], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    spoil(folder)
    with pytest.raises(FolderError, match=words) as caught:
        scan(folder)
    assert caught.value.hint


def test_a_secret_may_be_decided_about(folder: Path) -> None:
    secret(folder)
    (folder / ".shipwayignore").write_text(".env\n")
    assert ".env" not in paths(folder)
    (folder / ".shipwayignore").write_text("!.env\n")
    assert ".env" in paths(folder)


def test_a_secret_below_is_decided_about_in_the_file_that_counts_there(folder: Path) -> None:
    write(folder, {".gitignore": "!a\n", "a/.env": "", "b/.gitignore": "!.env\n", "b/.env": ""})
    with pytest.raises(FolderError, match=r"a/\.env looks like a secret") as caught:
        scan(folder)
    assert str(caught.value.hint).startswith("write a/.env into .gitignore to leave it out, or !a/.env")
    write(folder, {".gitignore": "!a/.env\n"})
    assert visible(folder) == ["a/.env", "b/.env", "flow.py"]


def test_a_hint_names_a_file_that_counts(folder: Path) -> None:
    """A new file of another kind would make all those that are there count no longer."""
    write(folder, {"a/.gitignore": "", "a/b/.env": ""})
    with pytest.raises(FolderError) as caught:
        scan(folder)
    assert str(caught.value.hint).startswith("write b/.env into a/.gitignore ")
    write(folder, {"a/.gitignore": "b/.env\n", ".prefectignore": "a/b\n", "aux": ""})
    with pytest.raises(FolderError) as caught:
        scan(folder)
    assert caught.value.hint == "rename it, or add it to .prefectignore"


def test_an_unreadable_file_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "flow.py").write_text("")
        (Path(name) / "flow.py").chmod(0)
        root = os.geteuid() == 0
        # Root reads everything, so for the length of the scan we are nobody.
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(FolderError, match=r"flow\.py cannot be read"):
                scan(Path(name))
        finally:
            if root:
                os.seteuid(0)


def test_a_file_that_changes_while_read_is_given_up(folder: Path) -> None:
    busy = folder / "busy.log"
    busy.write_bytes(b"x" * 50_000_000)
    stop = threading.Event()

    def write() -> None:
        with busy.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"y")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(FolderError, match="changes while it is read"):
            scan(folder)
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("changes", [1, TRIES - 1, TRIES])
def test_a_file_that_changes_while_read_is_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    reads = 0

    def hash_and_change(path: Path) -> tuple[str, int]:
        nonlocal reads
        reads += 1
        found = sha256_file(path)
        if reads <= changes:
            path.write_text(f"x = {reads + 1}\n")
        return found

    monkeypatch.setattr("shipway.release.scan.sha256_file", hash_and_change)
    if changes < TRIES:
        (entry,) = scan(folder).entries
        assert entry.sha256 == sha256_file(folder / "flow.py")[0]
        assert reads == changes + 1
    else:
        with pytest.raises(FolderError, match=r"flow\.py changes while it is read") as caught:
            scan(folder)
        assert caught.value.hint == "stop what writes it, or add it to .shipwayignore"
        assert reads == TRIES


def test_the_id_is_the_same_on_any_machine_in_any_order_at_any_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id itself stands here: a change of what it is the digest of would make every release a new one."""
    write(folder, {"a/run.sh": "#!/bin/sh\n", "a/ü.txt": "", "b.txt": "b"})
    (folder / "a/run.sh").chmod(0o755)
    (folder / "link").symlink_to("a/run.sh")
    ids = {tree_digest(scan(folder).entries)}
    real = os.scandir
    for turn in (reversed, lambda found: sorted(found, key=lambda item: str(item.name)[::-1])):
        monkeypatch.setattr("os.scandir", lambda path, turn=turn: iter(list(turn(list(real(path))))))
        for path in ("flow.py", "a/run.sh", "a", "b.txt"):
            os.utime(folder / path, (1e9, 1e9))
            (folder / path).chmod(0o700 if path.startswith("a") else 0o600)
        ids.add(tree_digest(scan(folder).entries))
    assert ids == {"00f5d478137cddb7408edad242c67aac6093b50431242f1ae9234b5066744f61"}
