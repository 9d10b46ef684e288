"""A worker makes pages of runs in the background: a server that says nothing keeps it from nothing."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path

import pytest

from shipway.prefect import endings
from shipway.prefect.endings import Endings
from shipway.settings import Settings


@pytest.mark.parametrize("waiting", [0, 10])
def test_nobody_waits_for_a_page(waiting: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(endings, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(endings, "MOST", 3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        made = Endings(Settings.load(tmp_path, {"PREFECT_API_URL": url}), logging.getLogger("test"))
        began = time.monotonic()
        made.add("11111111-1111-4111-8111-111111111111")
        asked, _ = silent.accept()
        with asked:
            said = b""
            while b"11111111" not in said:
                said += asked.recv(1 << 16)
            for _ in range(waiting):
                made.add("22222222-2222-4222-8222-222222222222")
            made.close()
            # The server has not answered, and goes on to say nothing.
            assert time.monotonic() - began < 15
            asked.setblocking(False)
            with pytest.raises(BlockingIOError):
                asked.recv(1)
