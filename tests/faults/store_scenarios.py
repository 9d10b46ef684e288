"""What the store's users do while network, server or machine misbehave; seeded, each repeatable.

Every one ends in one of two ways: it did what it was to do, or it failed with an error for people. In both the store
holds what it held before and, if it did, what was added: whole, with the digests that it should have.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.committing import order
from tests.faults.hardship import HARDSHIPS, OWN_WORDS, small_disk
from tests.faults.proxy import FAULTS, FaultyProxy, at_random, nothing

from shipway.deployment.history import move_pointer, read_pointer
from shipway.errors import ShipwayError
from shipway.manifest import Version
from shipway.release.build import build
from shipway.release.checkout import checkout
from shipway.release.scan import scan
from shipway.run.data import load
from shipway.run.fetch import download
from shipway.run.order import Order
from shipway.run.record import find_record
from shipway.run.session import Session
from shipway.run.upkeep import Collection, collect
from shipway.run.verify import verify
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig
from shipway.testing import S3Server

RETRY_SECONDS = 6.0
"""Enough for the faults that befall one request; a store that is away for long is tried elsewhere."""
SHARE = 0.3
MOST = 4
FLOW, NAME = "train", "daily"


@dataclass(frozen=True)
class Outcome:
    """How a scenario went.

    Attributes:
        name: what was done, and the kind of fault.
        failed: the error for people that it ended with, or None where it did what it was to do.
        faults: how many faults befell it.
    """

    name: str
    failed: str | None
    faults: int


@dataclass
class Play:
    """A store with something in it, reached straight and through the proxy.

    Attributes:
        straight: the store without faults.
        faulty: the same, through the proxy.
        proxy: that one.
        scratch: a folder for files.
        dice: decides what the seed decides.
        before: a release that was there before, current in its deployment.
        folder: the folder it was built from.
    """

    straight: ObjectStore
    faulty: ObjectStore
    proxy: FaultyProxy
    scratch: Path
    dice: random.Random
    before: Version
    folder: Path


def play(server: S3Server, seed: int) -> Outcome:
    """Play the scenario of a seed and check what it left; raises AssertionError where a guarantee was broken."""
    dice = random.Random(seed)  # noqa: S311
    action, fault = chosen(seed)
    config = config_of(server, f"seed-{seed}")
    with tempfile.TemporaryDirectory(prefix="shipway-faults-") as folder, ExitStack() as stack:
        scratch = Path(folder)
        if fault == "full disk":
            scratch = stack.enter_context(small_disk(scratch / "disk"))
        proxy = PROXIES[server.endpoint_url]
        proxy.befall(nothing)
        faulty = ObjectStore(
            replace(config, endpoint_url=proxy.url if fault in FAULTS else config.endpoint_url),
            retry_seconds=RETRY_SECONDS,
            outage_seconds=RETRY_SECONDS,
        )
        it = furnish(config, faulty, proxy, Path(folder) / "project", scratch, dice)
        failed = None
        try:
            with suffering(it, fault, seed):
                action(it)
        except (ShipwayError, OSError) as error:
            if not isinstance(error, ShipwayError) and error.errno not in OWN_WORDS:
                raise
            failed = f"{type(error).__name__}: {error}"
        faults = proxy.done.total() if fault in FAULTS else 1
        check(it)
    return Outcome(name(seed), failed, faults)


def config_of(server: S3Server, prefix: str) -> StoreConfig:
    """Return a store in a server: the server keeps a volume for every bucket, and has so many."""
    if server.endpoint_url not in BUCKETS:
        BUCKETS[server.endpoint_url] = server.new_bucket()
    return server.config(BUCKETS[server.endpoint_url], prefix)


def furnish(
    config: StoreConfig, faulty: ObjectStore, proxy: FaultyProxy, source: Path, scratch: Path, dice: random.Random
) -> Play:
    """Put a release and a run's data into a store, which `faulty` knows then."""
    straight = ObjectStore(config)
    release = build(scan(write_project(source, dice)), straight)
    move_pointer(straight, FLOW, NAME, release.version)
    commit(straight, scratch, 1, {"numbers": [1, 2, 3], "large": bytes(9 << 20)})
    faulty.known = True
    return Play(straight, faulty, proxy, scratch, dice, release.version, source)


@contextmanager
def suffering(it: Play, fault: str, seed: int) -> Iterator[None]:
    """Let a fault befall what is done meanwhile."""
    if fault in HARDSHIPS:
        # It has worked until now: the store has been reached, and what that needs imported.
        next(it.faulty.list(""))
        with HARDSHIPS[fault](it.scratch, it.dice):
            yield
        return
    it.proxy.befall(at_random(seed, (fault,), SHARE, MOST))
    try:
        yield
    finally:
        it.proxy.choose = nothing


def chosen(seed: int) -> tuple[Callable[[Play], None], str]:
    """Return what is done under a seed, and what kind of fault befalls it."""
    return ACTIONS[seed % len(ACTIONS)], KINDS[seed // len(ACTIONS) % len(KINDS)]


def name(seed: int) -> str:
    """Return the name of a seed's scenario."""
    action, fault = chosen(seed)
    return f"{action.__name__.replace('_', ' ')}: {fault}"


KINDS = (*FAULTS, *HARDSHIPS)
"""What goes wrong: on the way to the store, or here."""
BUCKETS: dict[str, str] = {}
PROXIES: dict[str, FaultyProxy] = {}
"""The running proxy of each server, by its address."""


def check(it: Play) -> None:
    """Check that the store holds what it held, and nothing that is half there."""
    report = verify(it.straight)
    assert report.findings == (), report.findings
    pointer = read_pointer(it.straight, FLOW, NAME)
    assert pointer is not None
    assert it.before in [move.version for move in pointer.moves]
    for number, move in enumerate(pointer.moves):
        checkout(it.straight, move.version, it.scratch / f"checked-{number}")
    for number in (1, 2):
        if record := find_record(it.straight, order_of(number).folder):
            assert len({artifact.name for artifact in record.artifacts}) == len(record.artifacts) == 2
            for artifact in record.artifacts:
                download(it.straight, artifact, it.scratch / f"{number}-{artifact.name}")  # which compares digests
    assert find_record(it.straight, order_of(1).folder)


def build_and_move(it: Play) -> None:
    """Build a changed folder and make the release current."""
    for _ in range(it.dice.randint(1, 4)):
        path = it.folder / f"new-{it.dice.randrange(1000)}.py"
        path.write_bytes(it.dice.randbytes(it.dice.choice([10, 5_000, 1 << 20])))
    release = build(scan(it.folder), it.faulty, previous=it.before)
    # Done when it says so: the pointer that it leaves is read without faults.
    move_pointer(it.faulty, FLOW, NAME, release.version)
    pointer = read_pointer(it.straight, FLOW, NAME)
    assert pointer is not None
    assert pointer.current == release.version
    assert len(pointer.moves) == 2


def check_out(it: Play) -> None:
    """Check a release out."""
    target = it.scratch / "out"
    try:
        checkout(it.faulty, it.before, target)
    except ShipwayError:
        assert not target.exists()
        raise
    assert tree(target) == tree(it.folder)


def save_and_commit(it: Play) -> None:
    """Save a run's data."""
    commit(it.faulty, it.scratch, 2, {"numbers": [4, 5], "large": it.dice.randbytes(9 << 20)})
    assert find_record(it.straight, order_of(2).folder)


def load_latest(it: Play) -> None:
    """Load what a run saved."""
    assert load("numbers", flow=FLOW, store=it.faulty) == [1, 2, 3]
    assert load("large", flow=FLOW, store=it.faulty) == bytes(9 << 20)


def reclaim(it: Play) -> None:
    """Remove what nothing needs."""
    it.straight.put("runs/train/2020-01-01/orphan-00000000/attempt-1/data/left", b"left by an attempt")
    collect(Collection(it.faulty, keep_last=1, keep_days=0), grace=0)


def verify_all(it: Play) -> None:
    """Read everything: what is said to be missing or damaged would be a false alarm."""
    report = verify(it.faulty)
    seen = [finding for finding in report.findings if finding.problem == "missing"]
    assert not seen, seen


ACTIONS: tuple[Callable[[Play], None], ...] = (
    build_and_move,
    check_out,
    save_and_commit,
    load_latest,
    reclaim,
    verify_all,
)


def write_project(folder: Path, dice: random.Random) -> Path:
    """Write a folder with small and large files."""
    for number in range(dice.randint(3, 12)):
        path = folder / f"part-{number % 3}" / f"module_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(dice.choice([0, 30, 3_000, 200_000])))
    (folder / "data.bin").write_bytes(dice.randbytes(9 << 20))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Return a folder's files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def order_of(number: int) -> Order:
    """Return what a run is about."""
    return replace(order(1), run_id=f"0197a000-0000-7000-8000-00000000000{number}", run_name=f"run-{number}", flow=FLOW)


def commit(store: ObjectStore, scratch: Path, number: int, values: dict[str, object]) -> None:
    """Save and commit as a run does."""
    session = Session.begin(order_of(number), scratch, store)
    try:
        for name, value in values.items():
            session.save(name, value)
        session.commit(session.record())
    finally:
        session.close()
