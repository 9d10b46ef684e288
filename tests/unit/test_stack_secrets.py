"""The stack's secrets are made once, and trusted only while nobody else can read them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from shipway.errors import StackError
from shipway.stack.secrets import load_or_make_secrets, read_secrets


def test_they_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    made = load_or_make_secrets(path)

    assert load_or_make_secrets(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["secrets.json"]
    assert made != load_or_make_secrets(tmp_path / "other.json")


def test_each_is_what_its_reader_expects(tmp_path: Path) -> None:
    made = load_or_make_secrets(tmp_path / "secrets.json")

    assert Fernet(made.encryption_key.encode()).decrypt(Fernet(made.encryption_key.encode()).encrypt(b"x")) == b"x"
    assert made.auth_string.startswith("shipway:")
    assert len(made.auth_string) > 30


def test_they_do_not_show_in_a_representation(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    made = load_or_make_secrets(path)

    assert not [value for value in json.loads(path.read_text()).values() if value in repr(made)]


def test_there_are_none_before_they_are_made(tmp_path: Path) -> None:
    assert read_secrets(tmp_path / "secrets.json") is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_reach_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secrets.json"
    load_or_make_secrets(path)
    path.chmod(mode)

    with pytest.raises(StackError, match=f"chmod 600 {path}"):
        load_or_make_secrets(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    load_or_make_secrets(path)
    os.chown(path, 65534, 65534)

    with pytest.raises(StackError, match="another user"):
        load_or_make_secrets(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"encryption_key": "x"}'])
def test_a_damaged_file_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets.json"
    path.touch(mode=0o600)
    path.write_text(text)

    with pytest.raises(StackError, match="damaged"):
        load_or_make_secrets(path)
    assert path.read_text() == text
