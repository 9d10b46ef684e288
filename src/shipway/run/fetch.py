"""Fetching an artifact's bytes, checked; what they mean is for `run.data` to say."""

from __future__ import annotations

from pathlib import Path

from shipway.artifact import Artifact
from shipway.digest import sha256_file
from shipway.errors import IntegrityError
from shipway.store.base import Store


def download(store: Store, artifact: Artifact, path: Path) -> Path:
    """Write an artifact's bytes to `path`, which appears only when they are right.

    Raises:
        IntegrityError: the stored bytes are not those that were saved, or are gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name[:100]}.part")
    try:
        with scratch.open("wb") as file:
            for piece in store.stream(artifact.key):
                file.write(piece)
        if sha256_file(scratch) != (artifact.sha256, artifact.bytes):
            raise IntegrityError(f"{artifact.name} is damaged in {store.url(artifact.key)}")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path
