"""The folders of workers: what a dead one had, and what its folder may look like."""

from __future__ import annotations

import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from shipway.prefect.scratch import CLAIM, LOCK, PREFIX, Scratch, sweep

ID = "8f14e45f-ceea-467f-a30c-1d5a5cbd3b0a"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_of_a_living_worker_nothing_is_taken(folders: Path) -> None:
    with Scratch() as scratch:
        scratch.note_claim(str(uuid4()), str(uuid4()))
        assert sweep() == {}
        assert [*folders.iterdir()] == [scratch.folder]
    assert [*folders.iterdir()] == []


def test_what_a_dead_worker_had_is_told_once(folders: Path) -> None:
    scratch, run, ended, state = Scratch(), str(uuid4()), str(uuid4()), str(uuid4())
    scratch.note_claim(run, state)
    scratch.note_claim(ended, state)
    scratch.forget_claim(ended)
    scratch.forget_claim(ended)
    scratch._file.close()  # as the end of its process does
    assert sweep() == {run: state}
    assert sweep() == {}
    assert [*folders.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("no-id", ID.encode()),
        (ID, b""),
        (ID, b"\xff\xfe"),
        (ID, b"../admin/settings"),
        (ID, ID.encode() + b"0" * (1 << 20)),
    ],
)
def test_a_damaged_note_is_as_good_as_none(folders: Path, name: str, content: bytes) -> None:
    """Rounds are made by what this says: an id that is none would have the server refuse every one of them."""
    folder = folders / f"{PREFIX}dead"
    folder.mkdir()
    (folder / LOCK).touch()
    (folder / f"{CLAIM}{name}").write_bytes(content)
    run, state = str(uuid4()), str(uuid4())
    (folder / f"{CLAIM}{run}").write_text(state)
    assert sweep() == {run: state}
    assert not folder.exists()
