"""The difference between two releases: files by name, and texts by line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from shipway.digest import sha256_bytes
from shipway.errors import IntegrityError
from shipway.manifest import Entry, Manifest
from shipway.store.base import Store

TEXT_BYTES = 1_000_000
"""Files of more bytes than this are compared by digest alone."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One file that differs.

    Attributes:
        path: which one.
        old: the file in the older release, or None where it was added.
        new: the file in the newer release, or None where it was removed.
    """

    path: str
    old: Entry | None
    new: Entry | None

    @property
    def kind(self) -> str:
        """`added`, `removed`, `changed`, or `mode` where only its mode differs."""
        if self.old is None or self.new is None:
            return "added" if self.old is None else "removed"
        return "changed" if self.old.sha256 != self.new.sha256 else "mode"


def compare(old: Manifest, new: Manifest) -> list[Difference]:
    """Return the files that differ, by path."""
    before = {entry.path: entry for entry in old.entries}
    after = {entry.path: entry for entry in new.entries}
    paths = sorted(before.keys() | after.keys())
    found = (Difference(path, before.get(path), after.get(path)) for path in paths)
    return [difference for difference in found if difference.old != difference.new]


def text_lines(store: Store, old: Manifest, new: Manifest, difference: Difference) -> Iterator[str]:
    """Yield a unified diff of one file, or one line that says why there is none.

    Raises:
        IntegrityError: a content is damaged.
    """
    texts = []
    for manifest, entry in ((old, difference.old), (new, difference.new)):
        if entry is not None and entry.size > TEXT_BYTES:
            yield f"{difference.path} is too long to be shown"
            return
        content = read_content(store, manifest, entry) if entry else b""
        try:
            texts.append(content.decode().splitlines())
        except UnicodeDecodeError:
            yield f"{difference.path} is not text"
            return
    a, b = texts
    yield from difflib.unified_diff(a, b, f"a/{difference.path}", f"b/{difference.path}", lineterm="")


def read_content(store: Store, manifest: Manifest, entry: Entry) -> bytes:
    """Return one file's content, checked.

    Raises:
        IntegrityError: it is damaged.
    """
    where = manifest.contents[entry.sha256]
    content = store.read(where.key, start=where.offset, length=entry.size)
    if sha256_bytes(content) != entry.sha256:
        raise IntegrityError(f"{entry.path} is damaged in {store.url(where.key)}")
    return content
