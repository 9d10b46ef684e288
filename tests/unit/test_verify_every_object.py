"""Whatever object of a store a byte flips in, `verify` finds it and names the object."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from tests.unit.models import Training, flow

import shipway
from shipway.blob import LARGE_FILE
from shipway.deployment.history import move_pointer
from shipway.model.commit import commit
from shipway.prefect.api import Api
from shipway.prefect.pages import kept_page, store_page
from shipway.release.build import build
from shipway.release.scan import scan
from shipway.run.effects import Effects
from shipway.run.results import Results, Returned
from shipway.run.values import take_apart
from shipway.run.verify import verify
from shipway.settings import Settings
from shipway.store.folder import FolderStore

FLIPS = 9
"""Places in each object, spread over it; both of its ends are among them."""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """Return a store with an object of every kind that docs/reference/object-layout.md names, all of them in use."""
    store = FolderStore(tmp_path / "store")
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "large.bin").write_bytes(bytes(range(256)) * (LARGE_FILE // 256))
    (project / "flow.py").write_text("x = 1\n")
    (project / "data" / "small.csv").write_text("a,b\n1,2\n")
    version = build(scan(project), store).version
    move_pointer(store, "train", "monthly", version)
    training = Training(store, tmp_path)
    working = tmp_path / "working"
    working.mkdir()
    with training.run(1, release=str(version)) as session:
        shipway.save("raw/table", [{"n": 1}])
        shipway.report.section("How far off", {"rmse": 41.2})
        flow(1)
        (working / "model.pkl").write_bytes(b"pickled")
        session.capture(working, {}, max_bytes=1000, max_files=10)
        record = commit(session)
        tree, parts = take_apart({"plain": [1, 2], "table": pl.DataFrame({"n": [1]})}, lambda: tmp_path / "part")
        Results(lambda: store, max_bytes=1 << 20).keep("key/0", Returned(tree, parts, Effects, "train"), needed=True)
    _, page = store_page(Api(Settings.load(tmp_path, {})), record, store, ())
    assert page
    return store


def layout() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield what the docs say lies in a store, each as a pattern of keys."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "object-layout.md"
    listed = page.read_text(encoding="utf-8").split("```")[1]
    for line in listed.strip().splitlines():
        key = line.split("  ")[0]
        # The name of an artifact may have slashes, as a path has.
        open_ended = key.replace(".", r"\.").replace("NAME\\.SUFFIX", ".+").replace("PATH", ".+")
        pattern = re.sub(r"[A-Z][A-Z0-9-]*", "[^/]+", open_ended)
        yield key, re.compile(pattern)


def test_the_store_has_an_object_of_every_kind(store: FolderStore) -> None:
    keys = [info.key for info in store.list()]
    kinds = dict(layout())
    assert len(kinds) >= 12
    for kind, pattern in kinds.items():
        assert any(pattern.fullmatch(key) for key in keys), f"none of {kind}"
    for key in keys:
        assert any(pattern.fullmatch(key) for pattern in kinds.values()), f"{key} is in no list"


def test_a_flipped_byte_of_any_object_is_found_and_the_object_named(store: FolderStore) -> None:
    report = verify(store)
    assert report.findings == ()
    assert report.pages == 1
    for info in list(store.list()):
        whole = store.read(info.key)
        for place in {*range(0, len(whole), max(len(whole) // FLIPS, 1)), len(whole) - 1}:
            store.put(info.key, whole[:place] + bytes([whole[place] ^ 0b100]) + whole[place + 1 :])
            named = {finding.key for finding in verify(store).findings}
            assert info.key in named, f"byte {place} of {info.key}: {named}"
        store.put(info.key, whole)
    assert verify(store).findings == ()


def test_a_page_that_is_cut_or_not_sealed_is_found(store: FolderStore) -> None:
    [info] = store.list("reports/")
    whole = store.read(info.key)
    for data in (b"", whole[:-1], whole[: whole.rindex(b"<!--")], whole + b"<p>more</p>", whole[:20]):
        store.put(info.key, data)
        [finding] = verify(store).findings
        assert (finding.kind, finding.problem, finding.key) == ("page", "damaged", info.key)
        assert kept_page(store, info.key) is None  # so that it is made again and not shown
    store.put(info.key, whole)
    assert kept_page(store, info.key) == whole
