"""What a worker finds out once so that none of its runs has to, and what it does not ask twice."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import certifi
from httpx import HTTPStatusError
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from shipway.errors import ServerUnreachableError, ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.patience import TRIES
from shipway.settings import Settings

LATER_SECONDS = 1.0
FLOW_SECONDS = 60.0
"""How long a flow's name is taken for true; it is shown beside events and changes nothing."""


def shortcuts(settings: Settings, folder: Path) -> dict[str, str | None]:
    """Return environment variables of runs: they spare requests and work whose outcome the worker knows.

    Args:
        settings: whose server it is.
        folder: for a file that lasts as long as the worker.
    """
    # The worker has compared the versions when it connected.
    found: dict[str, str | None] = {"PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false"}
    found["PREFECT_CLIENT_MAX_RETRIES"] = str(TRIES)
    if not _asks_for_tokens(settings):
        found["PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"] = "false"
    chosen = get_current_settings().api.ssl_cert_file
    if settings.api_url.startswith("http://") and chosen in (None, os.environ.get("SSL_CERT_FILE")):
        # Every client reads the certificates that it might trust, 20 ms for all the world's, even where none is asked
        # for one. A file with a single one takes a fiftieth of that.
        path = folder / "certificates.pem"
        mark = "-----END CERTIFICATE-----\n"
        path.write_text(Path(certifi.where()).read_text().partition(mark)[0] + mark)
        found["PREFECT_API_SSL_CERT_FILE"] = str(path)
    return found


def _asks_for_tokens(settings: Settings) -> bool:
    """Tell whether the server wants a token with each request that changes something (CSRF protection)."""
    try:
        Api(settings).request("GET", f"/csrf-token?client={uuid4()}")
    except ServerUnreachableError:
        return True
    except ShipwayError:
        return False  # 422: it is switched off
    return True


class Later:
    """Tells the server of a run's process when nothing waits for the server.

    Args:
        client: its method is replaced.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._update_flow_run = client.update_flow_run
        self._tasks: set[asyncio.Task[None]] = set()
        client.update_flow_run = self.flow_run  # type: ignore[method-assign,assignment]

    async def flow_run(self, flow_run_id: UUID, **changes: Any) -> Any:
        """Change a run: later, where it is its process that is told."""
        if changes.keys() != {"infrastructure_pid"}:
            return await self._update_flow_run(flow_run_id, **changes)
        task = asyncio.create_task(self._tell(flow_run_id, **changes))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _tell(self, flow_run_id: UUID, **changes: Any) -> None:
        await asyncio.sleep(LATER_SECONDS)
        with suppress(Exception):
            await self._update_flow_run(flow_run_id, **changes)


DUE: Final = "/work_pools/{name}/get_scheduled_flow_runs"


class Due:
    """Asks for as many runs that are due as a worker has room for: each of hundreds costs the server a millisecond.

    Args:
        client: its method is replaced.
        room: returns how many runs may begin now; None where there is no limit.
    """

    MORE = 10
    """So many beyond: some may have a process here, or may not begin."""

    def __init__(self, client: PrefectClient, room: Callable[[], int | None]) -> None:
        self._client = client
        self._room = room
        self._get = client.get_scheduled_flow_runs_for_work_pool
        client.get_scheduled_flow_runs_for_work_pool = self.runs  # type: ignore[method-assign]

    async def runs(
        self, work_pool_name: str, work_queue_names: list[str] | None = None, scheduled_before: datetime | None = None
    ) -> list[WorkerFlowRunResponse]:
        """Return the runs of a pool that are due."""
        room = self._room()
        if room is None:
            return await self._get(work_pool_name, work_queue_names, scheduled_before)
        body = {
            "work_queue_names": work_queue_names,
            "scheduled_before": scheduled_before and str(scheduled_before),
            "limit": room + self.MORE,
        }
        try:
            response = await self._client.request("POST", DUE, path_params={"name": work_pool_name}, json=body)
        except HTTPStatusError as error:
            if error.response.status_code == HTTPStatus.NOT_FOUND:
                raise ObjectNotFound(http_exc=error) from error
            raise
        return WorkerFlowRunResponse.model_validate_list(response.json())


class Reads:
    """Answers a client's questions for a deployment once for each run that is submitted, and for a flow once a minute.

    Args:
        client: its methods are replaced.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._read_deployment = client.read_deployment
        self._read_flow = client.read_flow
        self._deployments: ContextVar[dict[UUID, asyncio.Task[Any]] | None] = ContextVar("deployments", default=None)
        self._flows: dict[UUID, tuple[float, asyncio.Task[Any]]] = {}
        client.read_deployment = self.deployment  # type: ignore[method-assign,assignment]
        client.read_flow = self.flow  # type: ignore[method-assign]

    def begin(self) -> None:
        """Forget, in what follows in this task, which deployments were read."""
        self._deployments.set({})

    async def deployment(self, deployment_id: UUID) -> Any:
        """Return a deployment."""
        known = self._deployments.get()
        if known is None:
            return await self._read_deployment(deployment_id)
        if deployment_id not in known:
            known[deployment_id] = asyncio.create_task(self._read_deployment(deployment_id))
        # Prefect changes what it gets.
        return copy.deepcopy(await asyncio.shield(known[deployment_id]))

    async def flow(self, flow_id: UUID) -> Any:
        """Return a flow."""
        since, task = self._flows.get(flow_id, (float("-inf"), None))
        if task is None or time.monotonic() - since > FLOW_SECONDS or (task.done() and task.exception()):
            task = asyncio.create_task(self._read_flow(flow_id))
            self._flows[flow_id] = time.monotonic(), task
        return copy.deepcopy(await asyncio.shield(task))
