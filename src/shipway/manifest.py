"""The manifest of a release: its tree, of which the release id is the digest, and where each content lies."""

from __future__ import annotations

import json
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shipway.blob import Location, release_key
from shipway.digest import canonical_json, is_sha256, sha256_bytes
from shipway.errors import IntegrityError, ObjectNotFoundError
from shipway.store.base import Store

FORMAT = 1
MAX_BYTES = 32 * 1024 * 1024
"""A manifest longer than this is refused unread: 100,000 files need about 20 MB."""

MODES = ("100644", "100755", "120000")
"""Git's modes for a file, an executable file and a symbolic link (whose content is its target)."""

LINK = "120000"
MAX_LINK = 4096

MAX_FOLDERS = 200_000
"""A tree has no more folders. Without a limit a manifest of 32 MiB could name 15 million, and fill the memory."""

_SEAL = b'{"seal":"'
_CODE = re.compile(r"code/[0-9]{1,9}/(blobs|packs)/[0-9a-f]{64}")
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[1-9¹²³]) *(\..*)?", re.IGNORECASE)
_PLAIN = re.compile(
    r"(?!/)(/?(?!(con|prn|aux|nul|com\d|lpt\d)\b)\.?[\w-]+(\.[\w-]+)*(?=/|$))+", re.ASCII | re.IGNORECASE
)
"""Paths that are safe at first sight."""

HINT = "build and apply the deployment again"
"""What mends a release that is not as it was built."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a release.

    Attributes:
        path: where it lies in the folder, relative, segments separated by `/`.
        mode: one of `MODES`.
        size: length of the content in bytes.
        sha256: digest of the content.
    """

    path: str
    mode: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """An immutable snapshot of a folder.

    Attributes:
        entries: the tree, sorted by path.
        contents: where each content lies, by sha256.
    """

    entries: tuple[Entry, ...]
    contents: Mapping[str, Location]

    @property
    def release_id(self) -> str:
        """Digest of the tree alone: the same folder has the same id everywhere and at any time."""
        return tree_digest(self.entries)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def to_bytes(self) -> bytes:
        """Encode as canonical JSON."""
        contents = {sha: [where.key, where.offset] for sha, where in self.contents.items()}
        return canonical_json({"version": FORMAT, "tree": _rows(self.entries), "contents": contents})

    def sealed(self) -> bytes:
        """Encode with a digest of it all, as it is stored: the release id is that of the tree alone."""
        data = self.to_bytes()
        return _SEAL + sha256_bytes(data).encode() + b'",' + data[1:]


@dataclass(frozen=True, slots=True)
class Version:
    """What `deployment.version` carries: `<epoch>.<release-id>`, enough to find the manifest.

    Attributes:
        epoch: the epoch under which the manifest was written.
        release_id: the release's id, a sha256.
    """

    epoch: int
    release_id: str

    def __str__(self) -> str:
        return f"{self.epoch}.{self.release_id}"

    @property
    def short(self) -> str:
        """The first twelve digits of the release id, for people."""
        return self.release_id[:12]

    @classmethod
    def parse(cls, text: object) -> Version:
        """Read `<epoch>.<release-id>`.

        Raises:
            IntegrityError: the text is not of that form.
        """
        if isinstance(text, str):
            epoch, dot, release_id = text.partition(".")
            if dot and re.fullmatch(r"[0-9]{1,9}", epoch) and is_sha256(release_id):
                return cls(int(epoch), release_id)
        raise IntegrityError(f"{str(text)[:100]!r} is not a Shipway release", hint=HINT)


def tree_digest(entries: Iterable[Entry]) -> str:
    """Return the release id of a tree."""
    return sha256_bytes(tree_bytes(entries))


def tree_bytes(entries: Iterable[Entry]) -> bytes:
    """Encode a tree as what its release id is the digest of."""
    return canonical_json({"version": FORMAT, "tree": _rows(entries)})


def read_tree(data: bytes) -> tuple[Entry, ...]:
    """Return the entries of `tree_bytes`, which must be known to be that."""
    return tuple(Entry(*row) for row in json.loads(data)["tree"])


def parse(data: bytes, *, expected: str) -> Manifest:
    """Read a manifest back, trusting nothing in it.

    Args:
        data: the stored bytes.
        expected: the release id it must have.

    Raises:
        IntegrityError: the manifest is too long, malformed, unsafe, or not the release it should be.
    """
    what = f"the manifest of release {expected[:12]}"
    if len(data) > MAX_BYTES:
        raise IntegrityError(f"{what} is longer than {MAX_BYTES} bytes", hint=HINT)
    if data.startswith(_SEAL):
        data = _unsealed(data, what)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise IntegrityError(f"{what} is not JSON", hint=HINT) from None
    try:
        if document["version"] != FORMAT:
            version = reprlib.repr(document["version"])
            raise IntegrityError(f"{what} has version {version}, not {FORMAT}", hint="upgrade Shipway on this machine")
        manifest = _read(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{what} is malformed: {error}", hint=HINT) from None
    if manifest.release_id != expected:
        raise IntegrityError(f"{what} describes another tree, {manifest.release_id[:12]}", hint=HINT)
    return manifest


def read_manifest(store: Store, version: Version) -> Manifest:
    """Read and check a release's manifest.

    Raises:
        ObjectNotFoundError: there is no such release.
        IntegrityError: the manifest is damaged or unsafe.
    """
    try:
        data = store.read(release_key(version.epoch, version.release_id), length=MAX_BYTES + 1)
    except ObjectNotFoundError as error:
        raise ObjectNotFoundError(f"release {version.short} is missing: {error.message}", hint=HINT) from None
    return parse(data, expected=version.release_id)


def unsafe(path: str) -> str | None:
    """Say why `path` may not stand in a release, or None when it may.

    A path is relative, normalised, at most 1,024 bytes, and means the same on every system.
    """
    if len(path) <= 255 and _PLAIN.fullmatch(path):
        return None
    parts = path.split("/")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    checks = (
        (not path or path.startswith("/"), "it is not relative"),
        (any(part in ("", ".", "..") for part in parts), "it is not normalised"),
        (any(ord(char) < 32 or ord(char) == 127 for char in path), "it holds a control character"),
        (not {"\\", ":"}.isdisjoint(path), "it means something else on Windows"),
        (any(part.endswith((".", " ")) for part in parts), "it means something else on Windows"),
        (not set('*?"<>|').isdisjoint(path), "it cannot be on Windows"),
        (any(_DEVICES.fullmatch(part) for part in parts), "it names a device on Windows"),
        (len(encoded) > 1024 or any(len(part.encode()) > 255 for part in parts), "it is too long"),
    )
    return next((reason for bad, reason in checks if bad), None)


def collision(paths: Iterable[str]) -> str | None:
    """Say which two files or folders of a tree are one on some file systems, or None where each is its own.

    The reason may also be that there are too many folders to tell.
    """
    files = list(paths)
    folders: set[str] = set()
    for path in files:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
        if len(folders) > MAX_FOLDERS:
            return f"it has over {MAX_FOLDERS:,} folders"
    seen: dict[str, str] = {}
    for path in (*sorted(folders), *files):
        other = seen.setdefault(folded(path), path)
        if other != path:
            return f"{other!r} and {path!r} are one where case is ignored"
    clash = folders.intersection(files)
    return f"{min(clash)!r} is both a file and a folder" if clash else None


def folded(path: str) -> str:
    """Return the form under which two paths collide on file systems that ignore case or normalise Unicode."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def _rows(entries: Iterable[Entry]) -> list[list[Any]]:
    return [[e.path, e.mode, e.size, e.sha256] for e in sorted(entries, key=lambda e: e.path.encode())]


def _unsealed(data: bytes, what: str) -> bytes:
    digest, rest = data[len(_SEAL) :][:64], data[len(_SEAL) + 64 :]
    text = b"{" + rest.removeprefix(b'",')
    if sha256_bytes(text).encode() != digest or not rest.startswith(b'",'):
        raise IntegrityError(f"{what} does not match its seal", hint=HINT)
    return text


def _read(document: Any) -> Manifest:
    if unknown := document.keys() - {"version", "tree", "contents"}:
        raise ValueError(f"{str(min(unknown))[:100]!r} is unknown")
    entries = tuple(_entry(*row) for row in document["tree"])
    paths = {entry.path for entry in entries}
    if len(paths) != len(entries):
        raise ValueError("a path appears twice")
    if clash := collision(paths):
        raise ValueError(clash)
    contents = {sha: _location(sha, *where) for sha, where in document["contents"].items()}
    if missing := {entry.sha256 for entry in entries} - contents.keys():
        raise ValueError(f"content {min(missing)[:12]} lies nowhere")
    return Manifest(entries, contents)


def _entry(path: Any, mode: Any, size: Any, sha256: Any) -> Entry:
    if not isinstance(path, str) or (reason := unsafe(path)):
        raise ValueError(
            f"path {str(path)[:100]!r} is refused: {reason if isinstance(path, str) else 'it is not text'}"
        )
    if mode not in MODES:
        raise ValueError(f"mode {reprlib.repr(mode)} of {path!r} is unknown")
    if type(size) is not int or size < 0 or (mode == LINK and size > MAX_LINK):
        raise ValueError(f"size {reprlib.repr(size)} of {path!r} is impossible")
    if not is_sha256(sha256):
        raise ValueError(f"digest of {path!r} is not a sha256")
    return Entry(path, mode, size, sha256)


def _location(sha256: str, key: Any, offset: Any) -> Location:
    if not isinstance(key, str) or not _CODE.fullmatch(key) or type(offset) is not int or offset < 0:
        raise ValueError(f"location {str(key)[:100]!r} is refused")
    # A blob is one content: two that claim the same one would have it read twice for nothing.
    if "/blobs/" in key and (not key.endswith(sha256) or offset):
        raise ValueError(f"location {key!r} is not that of content {sha256[:12]}")
    return Location(key, offset)
