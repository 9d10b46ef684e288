"""Where a store is, in the words people write it in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from shipway.errors import InputError
from shipway.settings import THIS_MACHINE

MAX_KEY = 1024
"""Bytes that S3 allows a key to have, the store's prefix included."""
MAX_SEGMENT = 255
"""Bytes that file systems allow between two slashes."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_UNKEPT = re.compile(r"[\x00-\x1f\\\x7f\ud800-\udfff]")
_IP_ADDRESS = re.compile(r"\d+(\.\d+){3}")
_RESERVED_STARTS = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Everything needed to open a store. Secrets are left out of its `repr`.

    Attributes:
        kind: `s3` for a bucket, `folder` for a folder of this machine.
        bucket: name of the bucket.
        prefix: what every key is put behind, without slashes at its ends; in a folder store a folder below `path`.
        endpoint_url: address of an S3 server other than AWS.
        region: region of the bucket; by default the one of the environment or profile, else `us-east-1`.
        profile: profile of `~/.aws/config` to take credentials from when none are given here.
        access_key: access key; without one the standard AWS chain is asked.
        secret_key: its secret.
        session_token: the third part of temporary credentials.
        path: folder of a folder store.

    Raises:
        InputError: the bucket's name, the prefix or the endpoint cannot be, or the credentials are incomplete.
    """

    kind: Literal["s3", "folder"]
    bucket: str = ""
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    path: Path | None = None

    def __post_init__(self) -> None:
        check_prefix(self.prefix)
        if self.kind == "folder":
            if self.path is None:
                raise InputError("a folder store needs a folder")
            return
        check_bucket(self.bucket)
        if self.endpoint_url is not None:
            _check_endpoint(self.endpoint_url)
        if bool(self.access_key) != bool(self.secret_key):
            raise InputError("an access key and its secret key go together", hint="give both or neither")
        if self.session_token and not self.access_key:
            raise InputError("a session token needs its access key and secret key")

    @property
    def address(self) -> str:
        """The store as a URL without secrets: `s3://bucket/prefix` or `file:///folder`."""
        if self.kind == "folder":
            return self.folder.as_uri()
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def folder(self) -> Path:
        """The folder that a folder store keeps its objects in, as an absolute path."""
        if self.path is None:
            raise InputError(f"{self.address} is not a folder")
        return (self.path.expanduser() / self.prefix).absolute()


def parse_folder(text: str) -> Path:
    """Read the path of a folder, in which `~` is somebody's home.

    Raises:
        InputError: nothing can lie there.
    """
    try:
        if "\0" not in text:
            return Path(text).expanduser()
        reason = "it holds a NUL"
    except RuntimeError:
        reason = f"there is no home of {text.partition('/')[0][:80]}"
    raise InputError(f"{text[:200]!r} is not a folder: {reason}", hint="write an absolute path")


def parse_bucket_path(text: str) -> tuple[str, str]:
    """Split `BUCKET[/PREFIX]` into the two.

    Raises:
        InputError: the bucket's name or the prefix cannot be.
    """
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    check_bucket(bucket)
    check_prefix(prefix)
    return bucket, prefix


def parse_address(text: str) -> StoreConfig:
    """Read the address of a store: `s3://bucket/prefix`, `file:///folder`, or a plain path.

    Raises:
        InputError: the address is of another kind, or its bucket or prefix cannot be.
    """
    scheme, separator, rest = text.partition("://")
    if not text or "\0" in text:
        raise InputError(f"{text[:200]!r} is not the address of a store", hint="write s3://BUCKET/PREFIX or a folder")
    if not separator:
        return StoreConfig("folder", path=parse_folder(text).absolute())
    if scheme == "s3":
        bucket, prefix = parse_bucket_path(rest)
        return StoreConfig("s3", bucket=bucket, prefix=prefix)
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if host not in {"", "localhost"} or not slash:
            raise InputError(f"{text[:200]!r} is not a folder of this machine", hint="write file:///folder")
        return StoreConfig("folder", path=Path("/" + unquote(path)))
    raise InputError(f"{text[:200]!r} is not the address of a store", hint="write s3://BUCKET/PREFIX or a folder")


def local_host(endpoint: str | None) -> str | None:
    """Return the host of an S3 server that runs on this machine, or None: no proxy is asked for such a one."""
    host = urlsplit(endpoint or "").hostname
    return host if host in THIS_MACHINE else None


def check_bucket(name: str) -> None:
    """Check a bucket's name against the rules of S3.

    Raises:
        InputError: the name breaks one.
    """
    if "@" in name:
        # The name itself is not repeated: it holds a secret.
        raise InputError("the address of a store may not hold a user or keys", hint="keys go into its block")
    rule = None
    if not 3 <= len(name) <= 63:
        rule = "it must have 3 to 63 characters"
    elif not _BUCKET.fullmatch(name):
        rule = "only lower-case letters, digits, dots and hyphens, with a letter or digit at both ends"
    elif ".." in name:
        rule = "two dots may not follow each other"
    elif _IP_ADDRESS.fullmatch(name):
        rule = "it may not look like an IP address"
    elif name.startswith(_RESERVED_STARTS) or name.endswith(_RESERVED_ENDS):
        rule = "S3 keeps this beginning or ending for itself"
    if rule:
        raise InputError(f"{name[:80]!r} cannot be the name of a bucket: {rule}")


def check_prefix(prefix: str) -> None:
    """Check what a store puts before every key; empty is fine.

    Raises:
        InputError: the prefix could not be the beginning of a key.
    """
    if prefix:
        _check_path(prefix, "prefix")
    if len(prefix.encode()) > MAX_KEY // 2:
        raise InputError(f"the prefix {prefix[:40]!r}... has over {MAX_KEY // 2} bytes")


def check_key(key: str, prefix: str = "") -> None:
    """Check that every store can keep an object under `key`.

    Raises:
        InputError: the key is absolute, not normalised, holds characters that a store cannot keep, or is too long.
    """
    _check_path(key, "key")
    if len(prefix.encode()) + 1 + len(key.encode()) > MAX_KEY:
        raise InputError(f"the key {key[:40]!r}... has too many bytes: with its prefix over {MAX_KEY}")


def _check_path(path: str, noun: str) -> None:
    if fault := _fault(path):
        shown = repr(path if len(path) <= 80 else path[:77] + "...")
        raise InputError(f"the {noun} {shown} {fault}")


def _fault(path: str) -> str | None:
    if _UNKEPT.search(path):
        return "holds a control character, a backslash or a broken character"
    for segment in path.split("/"):
        if segment in {"", ".", ".."}:
            return "is not a plain relative path: no empty part, '.' or '..'"
        if len(segment.encode()) > MAX_SEGMENT:
            return f"has a part of over {MAX_SEGMENT} bytes between two slashes"
    return None


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if parts.username is not None:
        # The address itself is not repeated: it holds a secret.
        raise InputError("an endpoint's address may not hold a user or password")
    if not usable or parts.query or parts.fragment or parts.path.strip("/"):
        raise InputError(
            f"{endpoint[:200]!r} is not the address of an S3 server", hint="write http://HOST:PORT or https://HOST"
        )
