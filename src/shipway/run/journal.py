"""The journal of a session: one JSON line per thing that happened, written by all threads and processes of a run."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Journal:
    """A file that lines are added to, and that is read on from where it was read last.

    Args:
        path: the file; it comes to be with its first line.
        whose: says which task runs the present code is part of, none where it is the flow's own; None where nobody
            knows. A line has it under `task`.
    """

    def __init__(self, path: Path, whose: Callable[[], Sequence[str] | None] = lambda: None) -> None:
        self._path = path
        self._whose = whose
        self._lines: list[dict[str, Any]] = []
        self._read = 0
        self._lock = threading.Lock()

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        tasks = self._whose()
        whole = dict(line) if tasks is None else {**line, "task": list(tasks)}
        data = (json.dumps(whole, ensure_ascii=False) + "\n").encode()
        # One write to a file opened for appending: lines of several processes never mix.
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines that there are by now, whoever wrote them, in the order in which they were written."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._read)
                    # What ends without a line break is still being written.
                    whole = file.read().rpartition(b"\n")[0]
            except FileNotFoundError:
                whole = b""
            if whole:
                self._lines += [json.loads(line) for line in whole.split(b"\n")]
                self._read += len(whole) + 1
            return list(self._lines)
