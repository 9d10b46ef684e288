"""What a release takes of a folder, what it leaves, what it refuses."""

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shipway.errors import FolderError
from shipway.release.scan import scan


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
        (twins, "one file where case is ignored"),
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
