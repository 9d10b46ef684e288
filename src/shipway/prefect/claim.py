"""Claiming a run: telling the server that this worker has it, so that no other takes it."""

from __future__ import annotations

import logging

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Abort
from prefect.states import Pending
from prefect.utilities.engine import propose_state


async def claim(
    client: PrefectClient, flow_run: FlowRun, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
) -> bool:
    """Claim a run, and note the state that it is claimed in: it holds what the run has been lent.

    Returns:
        Whether this worker is to start it.
    """
    try:
        state = await propose_state(client, Pending(), flow_run_id=flow_run.id)
    except Abort as reason:
        logger.info("The run is not started, the server has called it off: %s", reason)
        return False
    except Exception:
        logger.exception("The run is not started, its state could not be changed")
        return False
    flow_run.state, flow_run.state_type, flow_run.state_name = state, state.type, state.name
    if not state.is_pending():
        logger.info("The run is not started, the server has put it into state %s", state.name)
    return state.is_pending()
