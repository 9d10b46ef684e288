"""How a run of pool type `shipway` is started: its command and its environment."""

from __future__ import annotations

import os
from typing import Annotated, Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.utilities.processutils import command_to_string, get_sys_executable
from prefect.workers.process import ProcessJobConfiguration, ProcessVariables
from pydantic import Field, StringConstraints

from shipway.prefect.results import unasked
from shipway.prefect.starter import settings_environment

Module = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")]
"""Name of a module, with those of its packages."""


class ShipwayJobConfiguration(ProcessJobConfiguration):
    """How one run is started: as Prefect's process worker does, with our engine unless a command is given."""

    imports: list[Module] = Field(default_factory=list)

    @classmethod
    def _base_environment(cls) -> dict[str, str]:
        return settings_environment()

    def prepare_for_flow_run(self, *args: Any, **kwargs: Any) -> None:
        """Fill in what depends on the run; the command is this interpreter's, whatever `python` on the path is."""
        own_command = self.command is not None
        if self.command is None:
            self.command = command_to_string([get_sys_executable(), "-m", "shipway.prefect.engine"])
        # What a script prints is for whoever watches it run, and that is the UI and `run --watch` now.
        self.env.setdefault("PREFECT_LOGGING_LOG_PRINTS", "true")
        # People watch runs: lines that wait two seconds for company, Prefect's default, look like a run that hangs.
        self.env.setdefault("PREFECT_LOGGING_TO_API_BATCH_INTERVAL", "0.5")
        if not own_command:
            self.env |= unasked({**os.environ, **settings_environment(), **self.env})
        super().prepare_for_flow_run(*args, **kwargs)
        # A command that somebody gave is started as it stands; only ours can be forked instead.
        self._command_configured = own_command


class ShipwayVariables(ProcessVariables):
    """What can be said about a run: all that Prefect's process worker takes, and the modules that it will import."""

    imports: list[Module] = Field(
        default_factory=list,
        title="Imports",
        description=(
            "Names of installed modules that runs find imported when they start, beside those that earlier runs have "
            "shown to need."
        ),
    )


def common_environment() -> dict[str, str | None]:
    """Return the environment of a run of which nothing is known yet."""
    configuration = ShipwayJobConfiguration.model_validate({})
    configuration.env = {}
    ShipwayJobConfiguration.prepare_for_flow_run(configuration, _nobody())
    return {**configuration.env}


def _nobody() -> FlowRun:
    return FlowRun(flow_id=UUID(int=0), name="nobody")
