"""An artifact: one thing a run saved, as its record and its readers know it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass
from typing import Any

from shipway.digest import is_sha256, sha256_bytes
from shipway.errors import InputError, IntegrityError

MAX_NAME = 300


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
            raise IntegrityError(f"the run record holds a malformed artifact: {error}") from None
        texts = (artifact.name, artifact.key, artifact.codec)
        if not all(isinstance(text, str) for text in texts) or not is_sha256(artifact.sha256):
            raise IntegrityError(f"the run record holds a malformed artifact, {str(artifact.name)[:100]!r}")
        return artifact


def check_name(name: str) -> str:
    """Return `name` if an artifact may have it.

    Raises:
        InputError: it is empty, too long, absolute, or not normalised.
    """
    parts = name.split("/")
    if not name or len(name) > MAX_NAME or any(part in ("", ".", "..") for part in parts):
        raise InputError(
            f"{name[:80]!r} cannot name an artifact",
            hint=f"use 1 to {MAX_NAME} characters, with `/` between segments and no empty segment, `.` or `..`",
        )
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise InputError(f"{name[:80]!r} cannot name an artifact: it holds a control character")
    return name


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
