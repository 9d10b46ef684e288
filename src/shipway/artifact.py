"""An artifact: one thing a run saved, as its record and its readers know it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass
from typing import Any

from shipway.digest import is_sha256, sha256_bytes
from shipway.errors import InputError, IntegrityError

MAX_NAME = 300
MAX_SEGMENT = 255
"""Bytes of the longest name of a file that systems allow."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One thing a run saved.

    Attributes:
        name: what the flow called it, segments separated by `/`; for a captured file, its path in the working folder.
        key: its object in the store.
        sha256: digest of the object's bytes.
        bytes: length of the object in bytes.
        codec: how the value became bytes (`shipway.codec`); `file` for what was taken as it is.
        rows: number of rows, for what has rows.
        captured: whether it was found in the working folder rather than saved by name.
    """

    name: str
    key: str
    sha256: str
    bytes: int
    codec: str
    rows: int | None = None
    captured: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the artifact as it stands in a run record."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Artifact:
        """Read an artifact out of a run record.

        Raises:
            IntegrityError: the record is malformed there.
        """
        try:
            artifact = cls(**value)
        except TypeError as error:
            raise IntegrityError(f"a malformed artifact is recorded: {error}") from None
        texts = (artifact.name, artifact.key, artifact.codec)
        counts = (artifact.bytes, 0 if artifact.rows is None else artifact.rows)
        sound = all(isinstance(text, str) for text in texts) and is_sha256(artifact.sha256)
        sound = sound and all(type(count) is int and 0 <= count < 1 << 63 for count in counts)  # more no file has
        # Names and keys become paths when an artifact is fetched.
        sound = sound and type(artifact.captured) is bool and not (_unfit(artifact.name) or _unfit(artifact.key, 1024))
        # The end of a key becomes the name of a file, whatever the artifact is called.
        sound = sound and all(len(part.encode()) <= MAX_SEGMENT for part in artifact.key.split("/"))
        if not sound:
            raise IntegrityError(f"a malformed artifact is recorded, {str(artifact.name)[:100]!r}")
        return artifact


def check_name(name: str) -> str:
    """Return `name` if an artifact may have it.

    Raises:
        InputError: it is empty, too long, absolute, or not normalised.
    """
    if not name or len(name) > MAX_NAME or any(part in ("", ".", "..") for part in name.split("/")):
        raise InputError(
            f"{name[:80]!r} cannot name an artifact",
            hint=f"use 1 to {MAX_NAME} characters, with `/` between segments and no empty segment, `.` or `..`",
        )
    if _unfit(name):
        raise InputError(f"{name[:80]!r} cannot name an artifact: it holds a control or a broken character")
    return name


def _unfit(path: str, longest: int = MAX_NAME) -> bool:
    """Tell whether a text is no plain relative path."""
    if not path or len(path) > longest or any(part in ("", ".", "..") for part in path.split("/")):
        return True
    return any(ord(char) < 32 or ord(char) == 127 or "\ud800" <= char <= "\udfff" for char in path)


def segment(name: str) -> str:
    """Turn any name into one readable, portable segment of a key; different names give different segments.

    Letters, digits, `.`, `_`, `-` of ASCII stay. A name that loses something by that gets eight digits of its digest.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", plain)[:100].strip("-.")
    if plain == name:
        return name
    # The digest stands before the ending, by which people and programs tell what a file is.
    stem, dot, ending = plain.rpartition(".") if re.search(r"[^.]\.[A-Za-z0-9]{1,10}$", plain) else (plain, "", "")
    return f"{stem or 'x'}-{sha256_bytes(name.encode())[:8]}{dot}{ending}"


def key_path(name: str) -> str:
    """Turn an artifact's name into the path of its object, segment by segment."""
    return "/".join(segment(part) for part in name.split("/"))
