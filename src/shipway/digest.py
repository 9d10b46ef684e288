"""Identity: sha256 digests and the canonical JSON they are taken of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
"""Bytes read at a time when a file is hashed."""


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the sha256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> tuple[str, int]:
    """Hash a file in pieces of `CHUNK` bytes.

    Returns:
        The sha256 as 64 lower-case hexadecimal digits, and the number of bytes read.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def canonical_json(value: Any) -> bytes:
    """Encode `value` so that equal values have equal bytes: sorted keys, UTF-8, no insignificant space.

    Raises:
        ValueError: the value holds a NaN or an infinity, which JSON cannot express.
        TypeError: the value holds something that is not JSON.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def is_sha256(text: object) -> bool:
    """Tell whether `text` is 64 lower-case hexadecimal digits."""
    return isinstance(text, str) and len(text) == 64 and not set(text) - set("0123456789abcdef")


def seal(document: Mapping[str, Any]) -> bytes:
    """Encode a document for people and programs, with its own digest under `seal`, so that any changed byte is found.

    Raises:
        ValueError, TypeError: as `canonical_json`.
    """
    return _lines({**document, "seal": sha256_bytes(canonical_json(document))})


def unseal(data: bytes) -> dict[str, Any]:
    """Return the document that `seal` encoded.

    Raises:
        ValueError: a byte of it has changed.
    """
    try:
        document = json.loads(data)
        seal_of = document.pop("seal")
        whole = seal_of == sha256_bytes(canonical_json(document)) and data == _lines({**document, "seal": seal_of})
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise ValueError("it does not match its seal")
    return dict(document)


def unsealed(data: bytes) -> dict[str, Any]:
    """Return a document that is sealed, or was written before documents were.

    Raises:
        ValueError: a byte of it has changed, or it is no document.
    """
    if b'"seal"' in data:
        return unseal(data)
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError("it is no document")  # noqa: TRY004 - what is wrong is the data
    return document


def seal_text(text: bytes) -> bytes:
    """Put its digest into the text of a JSON object, as its first key; the order of the others stays as it is.

    Args:
        text: the object with an indent of 1, as `json.dumps` writes it.
    """
    return b'{\n "seal": "%s",\n' % sha256_bytes(text).encode() + text.removeprefix(b"{\n")


def unseal_text(data: bytes) -> dict[str, Any]:
    """Return the object that `seal_text` sealed.

    Raises:
        ValueError: a byte of it has changed.
        RecursionError: it is nested too deeply.
    """
    begin, digest, rest = data[:12], data[12:76], data[76:]
    text = b"{\n" + rest.removeprefix(b'",\n')
    if begin != b'{\n "seal": "' or sha256_bytes(text).encode() != digest or not rest.startswith(b'",\n'):
        raise ValueError("it is not as it was written")
    found: dict[str, Any] = json.loads(text)
    return found


def seal_page(html: bytes) -> bytes:
    """Put its digest behind an HTML page, in a comment."""
    return html + b"<!-- sha256 of all before: %s -->\n" % sha256_bytes(html).encode()


def is_sealed_page(data: bytes) -> bool:
    """Tell whether a page is as `seal_page` left it."""
    return data == seal_page(data[: -len(seal_page(b""))])


def _lines(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
