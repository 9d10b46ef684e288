"""The look at a store before it is used: is there a bucket, and can it do what is needed."""

from __future__ import annotations

import secrets
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

from shipway.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ConflictError,
    InputError,
    StoreError,
    StoreUnreachableError,
    UnsupportedStoreError,
)
from shipway.store.bucket import ensure_bucket
from shipway.store.folder import FolderStore
from shipway.store.object_store import ObjectStore
from shipway.store.probe import probe
from shipway.store.url import StoreConfig
from shipway.testing import S3Server

STEPS = ["write", "read", "conditional create", "conditional replace", "list", "delete"]


def test_probe_of_a_bucket(s3_store: ObjectStore) -> None:
    report = probe(s3_store)
    assert [step for step, _ in report.steps] == STEPS
    assert report.address == s3_store.address
    assert 0 < report.seconds < 30
    assert list(s3_store.list()) == []


def test_probe_of_a_folder(folder_store: FolderStore) -> None:
    assert [step for step, _ in probe(folder_store).steps] == STEPS
    assert list(folder_store.list()) == []


def test_probe_says_what_is_wrong(s3_server: S3Server) -> None:
    with pytest.raises(BucketNotFoundError, match="'no-such-bucket' does not exist"):
        probe(ObjectStore(s3_server.config("no-such-bucket"), retry_seconds=1))


class ForgetfulStore(FolderStore):
    """A store that ignores `If-Match`."""

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        return self.put(key, data)


class StubbornStore(FolderStore):
    """A store that fails where it should not, and has by then written something."""

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        raise ConflictError


@pytest.mark.parametrize(("kind", "error"), [(ForgetfulStore, UnsupportedStoreError), (StubbornStore, ConflictError)])
def test_a_probe_that_fails_cleans_up(tmp_path: Path, kind: type[FolderStore], error: type[StoreError]) -> None:
    store = kind(tmp_path)
    with pytest.raises(error):
        probe(store)
    assert list(store.list()) == []


def test_a_bucket_is_made_once(s3_server: S3Server) -> None:
    config = s3_server.config(f"new-{secrets.token_hex(4)}")
    assert ensure_bucket(config) is True
    assert ensure_bucket(config) is False
    ObjectStore(config).put("k", b"x")


def test_a_bucket_can_be_made_in_another_region(s3_server: S3Server) -> None:
    config = replace(s3_server.config(f"new-{secrets.token_hex(4)}"), region="eu-west-1")
    assert ensure_bucket(config) is True
    ObjectStore(config).put("k", b"x")


def test_who_may_not_make_a_bucket_is_told(s3_server: S3Server) -> None:
    config = s3_server.config("some-bucket")
    with pytest.raises(AccessDeniedError, match="secret key does not belong"):
        ensure_bucket(replace(config, secret_key="wrong"))
    with pytest.raises(AccessDeniedError, match="does not know the access key"):
        ensure_bucket(replace(config, access_key="wrong"))
    with pytest.raises(AccessDeniedError, match="no credentials for s3://some-bucket"):
        ensure_bucket(replace(config, access_key=None, secret_key=None))
    with pytest.raises(AccessDeniedError, match="no AWS profile 'nobody'"):
        ensure_bucket(replace(config, access_key=None, secret_key=None, profile="nobody"))
    with pytest.raises(StoreUnreachableError, match="does not answer"):
        ensure_bucket(replace(config, endpoint_url="http://no-such-host.invalid"))


@pytest.mark.parametrize(
    "proxy",
    [
        "http://me:of-mine@127.0.0.1:9",
        "http://me:of-mine@127.0.0.1:99999",
        "http://me:of-mine/x@127.0.0.1:9",
        "socks5://me:of-mine@127.0.0.1:9",
        "http://me:of-mine\n@127.0.0.1:9",
    ],
)
def test_the_password_of_a_proxy_is_not_repeated(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
        monkeypatch.setenv(name.lower(), proxy)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("no_proxy", raising=False)
    config = StoreConfig("s3", bucket="bucket", endpoint_url="http://s3.invalid", access_key="k", secret_key="s")
    for call in (lambda: ensure_bucket(config), lambda: ObjectStore(config, retry_seconds=0.1).read("key")):
        with pytest.raises(StoreUnreachableError) as caught:
            call()
        assert "of-mine" not in "".join(traceback.format_exception(caught.value))


def test_a_folder_is_no_bucket(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a bucket"):
        ensure_bucket(StoreConfig("folder", path=tmp_path))
