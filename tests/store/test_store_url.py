"""Addresses, names and prefixes of stores, as people write them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shipway.errors import InputError
from shipway.store.base import Store
from shipway.store.opening import open_store
from shipway.store.url import StoreConfig, parse_address, parse_bucket_path
from shipway.testing import S3Server


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bucket", ("bucket", "")),
        ("my-bucket/some/prefix", ("my-bucket", "some/prefix")),
        ("bucket/prefix/", ("bucket", "prefix")),
        ("bucket/", ("bucket", "")),
        ("s3://bucket/prefix", ("bucket", "prefix")),
        ("my.bucket.1/with space/é", ("my.bucket.1", "with space/é")),
    ],
)
def test_bucket_paths(text: str, expected: tuple[str, str]) -> None:
    assert parse_bucket_path(text) == expected


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "3 to 63"),
        ("ab", "3 to 63"),
        ("a" * 64, "3 to 63"),
        ("Bucket", "lower-case"),
        ("under_score", "lower-case"),
        ("-bucket", "at both ends"),
        ("bucket-", "at both ends"),
        ("bück", "lower-case"),
        ("two..dots", "two dots"),
        ("192.168.5.4", "IP address"),
        ("xn--bucket", "for itself"),
        ("bucket-s3alias", "for itself"),
        ("bucket\n", "lower-case"),
    ],
)
def test_names_that_no_bucket_can_have(name: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        parse_bucket_path(name)
    with pytest.raises(InputError, match=rule):
        StoreConfig("s3", bucket=name)


@pytest.mark.parametrize(
    "prefix", ["a//b", "../up", "a/./b", "back\\slash", "nul\0", "p" * 256, "/".join(["p" * 200] * 3)]
)
def test_prefixes_that_cannot_be(prefix: str) -> None:
    with pytest.raises(InputError, match="prefix"):
        parse_bucket_path(f"bucket/{prefix}")
    with pytest.raises(InputError, match="prefix"):
        StoreConfig("folder", path=Path("/x"), prefix=prefix)


def test_addresses() -> None:
    assert parse_address("s3://bucket/some/prefix") == StoreConfig("s3", bucket="bucket", prefix="some/prefix")
    assert parse_address("file:///some/folder") == StoreConfig("folder", path=Path("/some/folder"))
    assert parse_address("file:///with%20space") == StoreConfig("folder", path=Path("/with space"))
    assert parse_address("/some/folder") == StoreConfig("folder", path=Path("/some/folder"))
    assert parse_address("some/folder") == StoreConfig("folder", path=Path.cwd() / "some/folder")
    assert parse_address("~/store") == StoreConfig("folder", path=Path.home() / "store")


@pytest.mark.parametrize(
    "text", ["", "gs://bucket", "http://host/bucket", "file://host/share", "s3://", "s3:///x", "nul\0"]
)
def test_addresses_of_nothing_we_know(text: str) -> None:
    with pytest.raises(InputError):
        parse_address(text)


@pytest.mark.parametrize("address", ["s3://bucket/some/prefix", "s3://bucket", "file:///some/folder"])
def test_addresses_survive_a_round_trip(address: str) -> None:
    assert parse_address(address).address == address


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "ftp://host", "http://", "http://host/path", "http://host:port", "http://[::"]
)
def test_endpoints_that_cannot_be(endpoint: str) -> None:
    with pytest.raises(InputError, match="not the address of an S3 server"):
        StoreConfig("s3", bucket="bucket", endpoint_url=endpoint)


def test_an_endpoint_holds_no_password() -> None:
    with pytest.raises(InputError, match="may not hold") as caught:
        StoreConfig("s3", bucket="bucket", endpoint_url="http://user:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_credentials_are_complete_and_never_shown() -> None:
    with pytest.raises(InputError, match="go together"):
        StoreConfig("s3", bucket="bucket", access_key="AK")
    with pytest.raises(InputError, match="go together"):
        StoreConfig("s3", bucket="bucket", secret_key="SK")
    with pytest.raises(InputError, match="session token needs"):
        StoreConfig("s3", bucket="bucket", session_token="ST")
    config = StoreConfig("s3", bucket="bucket", access_key="AK", secret_key="hunter2", session_token="hunter3")
    assert "hunter" not in repr(config) + config.address


def test_a_folder_store_needs_a_folder() -> None:
    with pytest.raises(InputError, match="needs a folder"):
        StoreConfig("folder")


def test_opens_a_folder(tmp_path: Path) -> None:
    store = open_store(StoreConfig("folder", path=tmp_path, prefix="below"))
    assert isinstance(store, Store)
    store.put("k", b"x")
    assert (tmp_path / "below/k").read_bytes() == b"x"


def test_opens_a_bucket(s3_server: S3Server) -> None:
    store = open_store(s3_server.config(s3_server.new_bucket(), "p"), retry_seconds=1)
    assert isinstance(store, Store)
    store.put("k", b"x")
    assert store.read("k") == b"x"


def test_importing_this_imports_no_s3_client() -> None:
    code = (
        "import sys, shipway.store.url, shipway.store.base\n"
        "print([name for name in sys.modules if name in ('obstore', 'boto3', 'botocore')])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
