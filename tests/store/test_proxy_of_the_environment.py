"""A proxy named in the environment is for the network: what runs on this machine is never asked for through it."""

from __future__ import annotations

import os

import pytest

from shipway.cli import main
from shipway.store.object_store import ObjectStore
from shipway.testing import S3Server

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(params=["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        # Set first, so that what is set by what is tested is taken back too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv(request.param, NOBODY)


@pytest.mark.usefixtures("proxy")
def test_a_bucket_on_this_machine_is_asked_directly(s3_server: S3Server) -> None:
    config = s3_server.config(s3_server.new_bucket())
    store = ObjectStore(config, retry_seconds=1, outage_seconds=0)
    store.create("a/b", b"here")
    assert store.read("a/b") == b"here"
    assert [info.key for info in store.list("a/")] == ["a/b"]


@pytest.mark.usefixtures("proxy")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "127.0.0.1,localhost,::1"),
        ("example.com, localhost", "example.com, localhost,127.0.0.1,::1"),
        ("127.0.0.1,localhost,::1", "127.0.0.1,localhost,::1"),
    ],
)
def test_what_commands_start_asks_this_machine_directly(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    if before is not None:
        monkeypatch.setenv("NO_PROXY", before)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == after


def test_without_a_proxy_the_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert "NO_PROXY" not in os.environ
