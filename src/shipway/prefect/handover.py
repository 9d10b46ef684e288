"""What a worker has at hand when it forks a run, so that the run need not ask for it: its code, checked out; its store.

It travels in memory only, from the worker through the template to the run, as it holds the store's keys.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from shipway.deployment.step import PULL_STEP
from shipway.manifest import Version
from shipway.prefect.labels import release_of
from shipway.prefect.spares import Make, Spares
from shipway.prefect.stores import store_config
from shipway.release.cache import Cache
from shipway.run.capture import snapshot
from shipway.run.workspace import Workspace, open_workspace
from shipway.settings import Settings
from shipway.store.opening import open_store
from shipway.store.url import StoreConfig

FRESH_SECONDS = 5.0
"""How long what a block says is taken for true: a burst of runs asks once, changed keys take effect soon."""

Related = tuple[str, str, str, str, list[str] | None]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Code:
    """A run's code, in its workspace.

    Attributes:
        root: the workspace's private folder; the code is in `work` below it.
        release: the release it was copied from.
        block: the block of the store that it came from.
        store: what the block says.
        entrypoint: where the flow is in it.
        deployment: name of the deployment.
    """

    root: str
    release: str
    block: str
    store: StoreConfig
    entrypoint: str
    deployment: str

    def workspace(self) -> Workspace:
        """Return the workspace, in the process that is to run in it."""
        folder = Path(self.root) / "work"
        return Workspace(Path(self.root), folder, snapshot(folder), Version.parse(self.release), self.block)


@dataclass(frozen=True)
class Handover:
    """What a forked run is told.

    Attributes:
        flow_run: the run as the server described it to the worker, in the state that it was claimed in.
        code: its code, where the worker has got it ready.
        results: id of the server's default block for results.
        worker: process id of the worker.
        related: what events of the run name beside it: kind, id by which it is looked for, id, name, and tags or None.
    """

    flow_run: FlowRun
    code: Code | None = None
    results: UUID | None = None
    worker: int = field(default_factory=os.getpid)
    related: tuple[Related, ...] = ()

    def to_json(self) -> str:
        """Return it as text."""
        code = asdict(self.code) if self.code else None
        document: dict[str, Any] = {"flow_run": self.flow_run.model_dump(mode="json"), "code": code}
        document |= {"results": self.results, "worker": self.worker, "related": self.related}
        return json.dumps(document, default=str)

    @classmethod
    def from_json(cls, text: str) -> Handover:
        """Read what `to_json` wrote."""
        document: dict[str, Any] = json.loads(text)
        code = document["code"]
        if code:
            store = code.pop("store")
            path = store.pop("path")
            code = Code(store=StoreConfig(**store, path=Path(path) if path else None), **code)
        results = UUID(document["results"]) if document["results"] else None
        related = tuple(tuple(item) for item in document["related"])
        return cls(FlowRun.model_validate(document["flow_run"]), code, results, document["worker"], related)


class Preparations:
    """The code of the runs that a worker is about to start, got ready while the server is told of them.

    Args:
        settings: whose server and cache.
        client: connected to that server.
        folder: where the workspaces are made.
    """

    def __init__(self, settings: Settings, client: PrefectClient, folder: Path) -> None:
        self._settings = settings
        self._client = client
        self._folder = folder
        self._going_on: dict[UUID, tuple[asyncio.Task[Code | None], ExitStack]] = {}
        self._known: dict[str, tuple[float, asyncio.Task[Any]]] = {}
        self._spares = Spares()
        self._makers: dict[UUID, tuple[Version, Make]] = {}

    def begin(self, flow_run: FlowRun) -> None:
        """Begin to get a run's code ready."""
        hold = ExitStack()
        self._going_on[flow_run.id] = asyncio.create_task(self._prepare(flow_run, hold)), hold

    async def code(self, run: UUID) -> Code | None:
        """Return a run's code, once it is ready; None where the run is to get it itself.

        Raises:
            ShipwayError: it could not be got ready; the run meets the same and reports it.
        """
        return await self._going_on[run][0] if run in self._going_on else None

    async def results(self) -> UUID | None:
        """Return the id of the server's default block for results, or None where it has none."""
        found = await self._recent("", self._client.read_server_default_result_storage)
        block: UUID | None = found.default_result_storage_block_id
        return block

    async def end(self, run: UUID) -> None:
        """Remove what there is of a run's code; nothing where that was done before."""
        if found := self._going_on.pop(run, None):
            task, hold = found
            await asyncio.wait([task])
            task.exception()  # it was raised to, or is met by, whoever needs the code
            await asyncio.to_thread(hold.close)
        if made := self._makers.pop(run, None):
            # Now, as nobody waits: while a run begins there is other work to do.
            self._spares.make(*made)

    def close(self) -> None:
        """Remove what was got ready for runs that have not come."""
        self._spares.close()

    async def _prepare(self, flow_run: FlowRun, hold: ExitStack) -> Code | None:
        release = release_of({"labels": flow_run.labels, "deployment_version": flow_run.deployment_version})
        if flow_run.deployment_id is None or not release:
            return None
        deployment = await self._client.read_deployment(flow_run.deployment_id)
        step = our_step(deployment.pull_steps)
        if step is None or not deployment.entrypoint:
            return None
        block = str(step["store"])
        config = await self._recent(block, lambda: asyncio.to_thread(store_config, self._settings, block))
        version = Version.parse(release)
        make = partial(self._check_out, version, block, config)
        self._makers[flow_run.id] = version, make
        workspace = await self._spares.take(version, make)
        hold.callback(workspace.remove)
        return Code(str(workspace.root), str(version), block, config, deployment.entrypoint, deployment.name)

    async def _recent(self, name: str, ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Return an answer of the last seconds, else a new one."""
        since, task = self._known.get(name, (float("-inf"), None))
        if task is None or time.monotonic() - since > FRESH_SECONDS or (task.done() and task.exception()):
            task = asyncio.create_task(ask())
            self._known[name] = time.monotonic(), task
        answer: _T = await asyncio.shield(task)
        return answer

    def _check_out(self, version: Version, block: str, config: StoreConfig) -> Workspace:
        cache = Cache.open(self._settings.cache_folder, self._settings.cache_max_bytes)
        # The release was built into it.
        store = open_store(config, known=True, outage_seconds=self._settings.outage_seconds)
        return open_workspace(store, version, parent=self._folder, block=block, cache=cache)


def our_step(pull_steps: list[dict[str, Any]] | None) -> Mapping[str, Any] | None:
    """Return the inputs of our pull step where it is the only one, else None."""
    steps = pull_steps or []
    return steps[0].get(PULL_STEP) if len(steps) == 1 else None
