"""A store in an S3 bucket. Only this module and what it is made of import obstore, the S3 client."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotModifiedError, PreconditionError

from shipway.errors import (
    AccessDeniedError,
    ConflictError,
    InputError,
    ObjectExistsError,
    ObjectNotFoundError,
    ShipwayError,
    StoreError,
    UnsupportedStoreError,
)
from shipway.store import source
from shipway.store.base import ObjectInfo
from shipway.store.connect import connect
from shipway.store.patience import patient
from shipway.store.resumed import Listing, Reading
from shipway.store.url import StoreConfig, check_key
from shipway.store.words import CREDENTIALS_HINT, explain, read_refusal, read_silence

if TYPE_CHECKING:
    from obstore import PutMode

RETRY_SECONDS = 60.0
"""How long a failing request is tried again by default: long enough for a local server to be started anew."""
OUTAGE_SECONDS = 360.0
"""How long after that a store that has answered before may be away by default: five minutes in all, and some."""
WHOLE_UPLOAD = 8 << 20
"""Bytes up to which a file is sent in one request, which alone can be conditional, and of each part of a larger one."""
STREAM_PART = 16 << 20
"""Bytes of each part of what nobody knows the length of: enough for 160 GB in as many parts as S3 takes."""

_PARTS = 9_000  # S3 takes at most 10,000 of them
_PARTS_AT_ONCE = 3  # each in memory: what a build of several large files is mostly made of
_ATTEMPTS = 5
_ODD_KEY = re.compile(r'Path "(.*?)"(?::| contained)', re.DOTALL)
_PAUSE = 0.2


class ObjectStore:
    """A bucket and a prefix in it. Safe to share between threads, not across a fork.

    Attributes:
        known: whether the store is known to exist, as it has answered, so that its silence must be an outage.
        outage_seconds: how long that is waited out.
    """

    def __init__(
        self, config: StoreConfig, *, retry_seconds: float | None = None, outage_seconds: float | None = None
    ) -> None:
        """Make ready to talk to the bucket; nothing is sent yet.

        Args:
            config: where the bucket is, and with what credentials.
            retry_seconds: how long a failing request is tried again; by default `RETRY_SECONDS`.
            outage_seconds: how long after that, where the store is known; by default as long as `retry_seconds`, where
                that is given, else `OUTAGE_SECONDS`.

        Raises:
            AccessDeniedError: no credentials are given and the standard AWS chain has none.
        """
        # The environment's endpoint is what AWS's own tools use; without this a request would go there unsaid.
        endpoint = config.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = config.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._config = changed(config, endpoint_url=endpoint, region=region)
        self._store = connect(self._config, RETRY_SECONDS if retry_seconds is None else retry_seconds)
        if outage_seconds is None:
            outage_seconds = OUTAGE_SECONDS if retry_seconds is None else retry_seconds
        self.outage_seconds = outage_seconds
        self.known = False

    @property
    def address(self) -> str:
        """Where the store is, as a URL without secrets."""
        return self._config.address

    def url(self, key: str) -> str:
        """Return the address of one object, as a URL without secrets."""
        return f"s3://{self._config.bucket}/{self._full(key)}"

    @patient
    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes, or `length` of them from `start`; fewer, or none, where it ends before."""
        if start < 0 or (length is not None and length < 0):
            raise InputError(f"a range of {key!r} cannot start at {start} with length {length}")
        if length == 0:
            self.head(key)
            return b""
        path = self._full(key)
        try:
            if length is not None:
                return bytes(obstore.get_range(self._store, path, start=start, length=length))
            # A plain read has no range at all: an empty object has no byte 0 to start from.
            options: Any = {"range": {"offset": start}} if start else None
            return bytes(obstore.get(self._store, path, options=options).bytes())
        except (BaseError, OSError) as error:
            if read_refusal(str(error)).status == 416:
                return b""
            raise self._translate(error, key) from error

    @patient
    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """Return an object's bytes and the ETag they had."""
        try:
            answer = obstore.get(self._store, self._full(key))
            return bytes(answer.bytes()), self._tag(answer.meta.get("e_tag"))
        except (BaseError, OSError) as error:
            raise self._translate(error, key) from error

    @patient
    def read_changed(self, key: str, etag: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and ETag, or None when its ETag is still `etag`."""
        try:
            answer = obstore.get(self._store, self._full(key), options={"if_none_match": etag})
            return bytes(answer.bytes()), self._tag(answer.meta.get("e_tag"))
        except NotModifiedError:
            return None
        except (BaseError, OSError) as error:
            raise self._translate(error, key) from error

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes in pieces, memory bounded."""
        reading = Reading(self._store, self._full(key), start, length)
        while piece := self._piece(reading, key):
            yield piece

    @patient
    def _piece(self, reading: Reading, key: str) -> bytes:
        try:
            return reading.piece()
        except (BaseError, OSError) as error:
            if read_refusal(str(error)).status == 416:
                return b""
            raise self._translate(error, key) from error

    @patient
    def head(self, key: str) -> ObjectInfo:
        """Return what is known of an object without reading it."""
        path = self._full(key)
        try:
            return self._info(obstore.head(self._store, path))
        except (BaseError, OSError) as error:
            # The answer to a HEAD has no body, so that a missing bucket looks like a missing object. A GET says which.
            try:
                obstore.get(self._store, path)
            except (BaseError, OSError) as reason:
                raise self._translate(reason, key) from error
            raise self._translate(error, key) from error

    def put(self, key: str, data: bytes | Path | Iterator[bytes]) -> str:
        """Write an object, replacing what was there; a path or iterator is streamed, memory bounded."""
        if isinstance(data, bytes | Path):
            return self._put(key, data)
        try:
            # What it is made of comes once; it cannot be sent again.
            return self._multipart(self._full(key), data, STREAM_PART)
        except (BaseError, OSError) as error:
            raise self._translate(error, key) from error

    @patient
    def _put(self, key: str, data: bytes | Path) -> str:
        path = self._full(key)
        try:
            return self._send(path, data, "overwrite") if _fits(data) else self._upload(path, data)
        except (BaseError, OSError) as error:
            raise self._translate(error, key) from error

    @patient
    def create(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> str:
        """Write an object that must not exist yet, atomically; one that holds the same bytes already counts as written.

        The store can be asked to refuse only a write of one request: a file of more than `WHOLE_UPLOAD` bytes goes up
        in parts, after a look whether the object exists. Who starts in between is overwritten. That is safe where the
        key is the digest of the content, as two writers then write the same bytes, or where one writer alone knows it,
        which is so for every large object of ours. Readers see the object whole in any case.
        """
        path = self._full(key)
        for attempt in range(_ATTEMPTS):
            time.sleep(attempt * _PAUSE)
            try:
                if _fits(data):
                    return self._send(path, data, "create", sha256)
                if not self._exists(path):
                    return self._upload(path, data, sha256)
            except AlreadyExistsError:
                pass
            except (BaseError, OSError) as error:
                raise self._translate(error, key) from error
            # Our own write may have succeeded and its answer been lost: the retried request then meets its own object.
            try:
                found = self.head(key)
                if found.size == source.size(data) if sha256 else self._holds(found, data):
                    return found.etag
            except ObjectNotFoundError:
                continue  # gone again, or refused because another write was under way
            raise ObjectExistsError(f"{self.url(key)} exists already")
        raise ConflictError(f"{self.url(key)} is being written by somebody else", hint="try again")

    @patient
    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        """Write an object only if its ETag is still `etag`; one that holds the same bytes already counts as written."""
        path = self._full(key)
        for _ in range(_ATTEMPTS):
            try:
                return self._send(path, data, {"e_tag": etag})
            except (PreconditionError, AlreadyExistsError):
                pass
            except (BaseError, OSError) as error:
                # AWS answers 404 where the object is gone.
                translated = self._translate(error, key)
                if isinstance(translated, ObjectNotFoundError):
                    break
                raise translated from error
            # As in `create`: believe in a conflict only after looking.
            try:
                found, now = self.read_tagged(key)
            except ObjectNotFoundError:
                break
            if found == data:
                return now
            if now != etag:
                raise ConflictError(f"{self.url(key)} was changed by somebody else meanwhile")
        raise ConflictError(f"{self.url(key)} was removed or is being changed by somebody else")

    @patient
    def delete(self, key: str) -> None:
        """Remove an object; one that does not exist is no error."""
        try:
            obstore.delete(self._store, self._full(key))
        except (BaseError, OSError) as error:
            translated = self._translate(error, key)
            if not isinstance(translated, ObjectNotFoundError):
                raise translated from error

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix`, in no fixed order; cheapest when it ends with `/`."""
        # obstore lists whole folders only, and the rest of the prefix is compared here.
        folder = prefix.rpartition("/")[0]
        listing = Listing(self._store, (self._full(folder) if folder else self._config.prefix) or None)
        below = f"{self._config.prefix}/{prefix}" if self._config.prefix else prefix
        while page := self._page(listing, prefix):
            # What lies elsewhere no server has reason to name: its key would be taken for one below our prefix.
            found = map(self._info, (meta for meta in page if str(meta["path"]).startswith(below)))
            yield from (info for info in found if self._can_be(info.key))

    @patient
    def _page(self, listing: Listing, prefix: str) -> Sequence[Any]:
        try:
            return listing.page()
        except (BaseError, OSError) as error:
            if odd := _ODD_KEY.search(str(error)):
                raise StoreError(
                    f"{self.address} has an object whose key cannot be listed: {odd[1][:300]!r}",
                    hint="no key of ours is like that; remove the object with the tool that it was made with",
                ) from error
            raise self._translate(error, prefix) from error
        except ValueError as error:
            raise StoreError(f"the store at {self.address} lists an object of no time: {error}") from error

    def _full(self, key: str) -> str:
        prefix = self._config.prefix
        check_key(key, prefix)
        return f"{prefix}/{key}" if prefix else key

    def _can_be(self, key: str) -> bool:
        try:
            check_key(key, self._config.prefix)
        except InputError:
            return False
        return True

    def _info(self, meta: Any) -> ObjectInfo:
        prefix = f"{self._config.prefix}/" if self._config.prefix else ""
        key = str(meta["path"]).removeprefix(prefix)
        return ObjectInfo(key=key, size=meta["size"], etag=self._tag(meta["e_tag"]), modified=meta["last_modified"])

    def _tag(self, etag: str | None) -> str:
        if not etag:
            raise UnsupportedStoreError(f"the store {self.address} gives its objects no ETags")
        return etag

    def _send(self, path: str, data: bytes | Path, mode: PutMode, sha256: str | None = None) -> str:
        if sha256:
            content = b"".join(source.checked(data, sha256))
        else:
            with source.opened(data) as file:
                content = file.read()
        said = {"Content-Type": _kind(path)}
        result = obstore.put(self._store, path, content, mode=mode, use_multipart=False, attributes=said)
        return self._tag(result["e_tag"])

    def _upload(self, path: str, file: bytes | Path, sha256: str | None = None) -> str:
        # Opened here for the words: obstore's exception for an unreadable file is the one for a missing object.
        with source.opened(file):
            pass
        part, at_once = parts_of(source.size(file))
        return self._multipart(path, source.checked(file, sha256) if sha256 else file, part, at_once)

    def _multipart(
        self, path: str, content: bytes | Path | Iterator[bytes], part: int, at_once: int = _PARTS_AT_ONCE
    ) -> str:
        result = obstore.put(
            self._store,
            path,
            # A source that fails, as one with a wrong digest does after its last piece, ends the upload unfinished.
            content,
            use_multipart=True,
            chunk_size=part,
            max_concurrency=at_once,
            attributes={"Content-Type": _kind(path)},
        )
        return self._tag(result["e_tag"])

    def _exists(self, path: str) -> bool:
        try:
            obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def _holds(self, found: ObjectInfo, data: bytes | Path) -> bool:
        """Tell whether an object has exactly the bytes that were to be written."""
        if found.size != source.size(data):
            return False
        stored = hashlib.sha256()
        for piece in self.stream(found.key):
            stored.update(piece)
        return stored.hexdigest() == source.digest(data)

    def _translate(self, error: Exception, key: str) -> ShipwayError:
        """Turn an exception of obstore into one of ours."""
        text = str(error)
        refusal = read_refusal(text)
        thing = f"{self.address}/{key}"
        if refusal.code != "NoSuchBucket" and isinstance(error, FileNotFoundError):
            return ObjectNotFoundError(f"{thing} does not exist")
        if refusal.status or refusal.code:
            return explain(refusal, self._config, thing)
        if "credential provider" in text:
            cause = re.search(r"provider: (?:\w+\.)*(\w+)", text)
            return AccessDeniedError(
                f"the AWS credentials for {self.address} cannot be had: {cause.group(1) if cause else 'unknown error'}",
                hint=CREDENTIALS_HINT,
            )
        said_nothing = read_silence(text, self._config)
        return said_nothing or StoreError(f"the store failed at {thing}: {text.splitlines()[0][:300]}")


def parts_of(size: int) -> tuple[int, int]:
    """Return the bytes of each part in which a file of `size` bytes goes up, and how many are sent at once.

    As S3 takes so many parts and no more, they grow with a file of over 75 GB, and fewer of them are in memory then.
    """
    part = max(WHOLE_UPLOAD, -(-size // _PARTS))
    return part, max(1, _PARTS_AT_ONCE * WHOLE_UPLOAD // part)


def _kind(path: str) -> str:
    """Say what an object is, so that a browser shows a report instead of saving it."""
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


def _fits(data: bytes | Path) -> bool:
    return isinstance(data, bytes) or source.size(data) <= WHOLE_UPLOAD
