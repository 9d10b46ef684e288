"""A command on a machine in trouble ends with one line, and leaves what was there."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.faults.hardship import full, small_disk

from shipway import cli
from shipway.settings import Settings


@pytest.mark.parametrize("number", sorted(cli.REMEDIES))
def test_what_the_machine_lacks_is_told_in_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise OSError(number, os.strerror(number), "/some/file")

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit) as ending:
        cli.main(["ls"])
    assert ending.value.code == 1
    said = capsys.readouterr().err
    assert said == f"shipway: {os.strerror(number)} (/some/file): {cli.REMEDIES[number]}\n"


def test_what_nobody_foresaw_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError(errno.EXDEV, "odd")

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(OSError, match="odd"):
        cli.main(["ls"])


@pytest.mark.long
@pytest.mark.parametrize("words", [("up", "--detach"), ("ls",), ("doctor", "--json")], ids=" ".join)
def test_commands_on_a_full_disk(tmp_path: Path, words: tuple[str, ...]) -> None:
    try:
        with small_disk(tmp_path / "disk") as room:
            project = room / "project"
            project.mkdir()
            (project / "flow.py").write_text("from prefect import flow\n")
            environment = {**os.environ, "NO_COLOR": "1", "TMPDIR": str(room), "HOME": str(room)}
            with full(room, Full()):
                done = subprocess.run(
                    [sys.executable, "-m", "shipway", *words],
                    cwd=project,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            assert done.returncode > 0, done
            assert "Traceback" not in done.stderr
            assert done.stderr.count("\n") == (words[0] != "doctor"), done.stderr
            assert {path.name for path in room.rglob("*") if path.is_file()} <= {"flow.py", ".gitignore"}
            Settings.load(project, environment).make_state()
            assert (project / ".shipway/.gitignore").read_text() == "*\n"
    except PermissionError as error:
        pytest.skip(str(error))


class Full(random.Random):
    """Dice that leave no room at all."""

    def choice(self, seq: Any) -> Any:
        return seq[0]
