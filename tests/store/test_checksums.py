"""What is sent to S3 carries its SHA-256, and other bytes are not taken: a real server behind a proxy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.parser import BytesHeaderParser
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from tests.faults.proxy import FaultyProxy, Request, faulty_proxy

from shipway.errors import StoreUnreachableError
from shipway.store.object_store import WHOLE_UPLOAD, ObjectStore
from shipway.store.url import StoreConfig
from shipway.testing import S3Server

PARTS = 3

PUT, CREATE = "put", "create"
IN_PARTS = ("put of a file", "create of a file")

WRITES: dict[str, tuple[int, Callable[[ObjectStore, Path], str]]] = {
    PUT: (0, lambda store, _file: store.put("put", b"put")),
    "put of nothing": (0, lambda store, _file: store.put("nothing", b"")),
    CREATE: (0, lambda store, _file: store.create("create", b"create")),
    "replace": (0, lambda store, _file: store.replace("old", b"new", etag=store.head("old").etag)),
    "put of a stream": (1, lambda store, _file: store.put("stream", iter([b"piece", b"by piece"]))),
    "put of a file": (PARTS, lambda store, file: store.put("file", file)),
    "create of a file": (PARTS, lambda store, file: store.create("content", file, sha256=digest(file))),
}
"""Every way of writing, and of how many parts it is; none where it is one request."""


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hex()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def is_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber=" in request.target


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is sent in three parts."""
    path = tmp_path_factory.mktemp("checksums") / "file"
    path.write_bytes(b"".join(bytes([n]) * WHOLE_UPLOAD for n in range(PARTS - 1)) + b"the rest")
    return path


@pytest.fixture
def config(s3_server: S3Server) -> StoreConfig:
    return s3_server.config(s3_server.new_bucket())


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3_server.endpoint_url) as running:
        yield running


@pytest.fixture
def store(config: StoreConfig, proxy: FaultyProxy) -> ObjectStore:
    store = ObjectStore(replace(config, endpoint_url=proxy.url), retry_seconds=0.3)
    assert list(store.list()) == []  # only a store that has answered is asked again
    return store


@pytest.mark.parametrize("way", WRITES)
def test_every_write_and_every_part_carries_its_sha256(
    store: ObjectStore, proxy: FaultyProxy, file: Path, way: str
) -> None:
    parts, write = WRITES[way]
    store.put("old", b"old")
    sent: list[Request] = []
    proxy.befall(sent.append)
    write(store, file)
    written = [request for request in sent if request.method == "PUT"]
    for request in written:
        fields = BytesHeaderParser().parsebytes(request.head.partition(b"\r\n")[2])
        assert fields["x-amz-checksum-sha256"] == base64.b64encode(sha256(request.body)).decode()
        # The request is signed for these very bytes too.
        assert fields["x-amz-content-sha256"] == sha256(request.body).hex()
        assert len(request.body) <= WHOLE_UPLOAD
    assert (len(written), sum(map(is_part, written))) == (parts or 1, parts)


@pytest.mark.parametrize("way", [PUT, CREATE, *IN_PARTS])
def test_other_bytes_are_refused_and_leave_nothing(
    store: ObjectStore, config: StoreConfig, proxy: FaultyProxy, file: Path, way: str
) -> None:
    proxy.befall(lambda request: "garble" if request.method == "PUT" else None)
    with pytest.raises(StoreUnreachableError, match="arrived damaged"):
        WRITES[way][1](store, file)
    assert proxy.done["garble"] > 1, "what arrived damaged is sent again"
    assert list(ObjectStore(config).list()) == []


def test_a_part_that_arrived_damaged_once_is_sent_again(
    store: ObjectStore, config: StoreConfig, proxy: FaultyProxy, file: Path
) -> None:
    proxy.befall(lambda request: "garble" if is_part(request) and not proxy.done["garble"] else None)
    store.outage_seconds = 60
    store.create("content", file, sha256=digest(file))
    assert proxy.done["garble"] == 1
    assert ObjectStore(config).read("content") == file.read_bytes()


def test_the_server_compares_the_checksum_itself(s3_server: S3Server, config: StoreConfig) -> None:
    """Of bytes that are signed for, so that it is the checksum alone that they do not fit."""
    client = boto3.client(
        "s3",
        endpoint_url=config.endpoint_url,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name=config.region,
    )
    where = {"Bucket": config.bucket, "Key": "key"}
    upload = client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")["UploadId"]
    for other, data in ((True, b"other bytes"), (False, b"bytes")):
        said = {**where, "Body": b"bytes", "ChecksumSHA256": base64.b64encode(sha256(data)).decode()}
        for send, more in ((client.put_object, {}), (client.upload_part, {"UploadId": upload, "PartNumber": 1})):
            if not other:
                send(**said, **more)
                continue
            with pytest.raises(ClientError, match="BadDigest"):
                send(**said, **more)
            assert list(ObjectStore(config).list()) == []
