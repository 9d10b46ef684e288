"""Shipway's pieces of work: what `shipway build` and a worker do, without the interpreter's start and the imports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.alone import Job
from benchmarks.folders import check_copy
from shipway.store.url import StoreConfig

FLOW, NAME = "bench", "release"
CACHE_BYTES = 10 << 30


def build(job: Job) -> Iterator[None]:
    """Build a release of the folder; then make it the deployment's current one, as `apply` does."""
    from shipway.deployment.history import move_pointer, read_pointer
    from shipway.release.build import build as build_release
    from shipway.release.index import Index
    from shipway.release.memory import Memory
    from shipway.release.scan import scan
    from shipway.store.object_store import ObjectStore

    state, folder = Path(job.state), Path(job.folder)
    yield
    store = ObjectStore(_config(job, job.endpoint_url))
    index = Index.open(state, folder)
    found = scan(folder, index)
    pointer = read_pointer(store, FLOW, NAME, cache=state / "builds")
    previous = pointer.current if pointer else None
    release = build_release(found, store, previous=previous, memory=Memory(state, store.address))
    index.save()
    yield
    move_pointer(ObjectStore(_config(job, job.server)), FLOW, NAME, release.version)
    _version(job).write_text(str(release.version))


def workspace(job: Job) -> Iterator[None]:
    """Open a run's workspace, as a worker does; cold where there is no cache yet beside the target."""
    from shipway.manifest import Version
    from shipway.release.cache import Cache
    from shipway.run.workspace import open_workspace
    from shipway.store.object_store import ObjectStore

    version = Version.parse(_version(job).read_text())
    parent = Path(job.target)
    parent.mkdir(parents=True)
    yield
    store = ObjectStore(_config(job, job.endpoint_url))
    cache = Cache.open(parent.parent / "cache", CACHE_BYTES)
    made = open_workspace(store, version, parent=parent, block="s3/bench", cache=cache)
    yield
    check_copy(Path(job.folder), made.folder)


def checkout(job: Job) -> Iterator[None]:
    """Check a release out without a cache."""
    from shipway.manifest import Version
    from shipway.release.checkout import checkout as checkout_release
    from shipway.store.object_store import ObjectStore

    version = Version.parse(_version(job).read_text())
    yield
    checkout_release(ObjectStore(_config(job, job.endpoint_url)), version, Path(job.target))
    yield
    check_copy(Path(job.folder), Path(job.target))


def _config(job: Job, endpoint_url: str) -> StoreConfig:
    return StoreConfig(
        "s3",
        bucket=job.bucket,
        prefix=job.prefix,
        endpoint_url=endpoint_url,
        region=os.environ["AWS_DEFAULT_REGION"],
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    )


def _version(job: Job) -> Path:
    return Path(job.state) / "version"
