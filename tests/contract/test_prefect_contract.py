"""What we lean on in Prefect, pinned: these fail when a version changes what our code takes for granted."""

from __future__ import annotations

import inspect
import json
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import prefect
import yaml  # type: ignore[import-untyped]
from prefect import Flow, flow
from prefect.deployments.steps import core
from prefect.engine import handle_engine_signals
from prefect.flow_engine import load_flow, load_flow_run, run_flow
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS, get_current_settings, temporary_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker
from prefect_aws.workers.ecs_worker import ECSVariables

from shipway.deployment.step import ENGINE, PULL_STEP
from shipway.prefect.block_types import S3, schema_document
from shipway.prefect.configuration import ShipwayJobConfiguration
from shipway.prefect.pool import POOL_TYPE, base_job_template
from shipway.prefect.worker import ShipwayWorker


def test_the_version_is_one_that_was_tested() -> None:
    assert prefect.__version__.startswith("3.8.")


def test_the_block_can_be_saved_without_importing_prefect() -> None:
    stored = json.loads(files("shipway.prefect").joinpath("block_schema.json").read_text())
    assert stored == json.loads(json.dumps(schema_document(), default=str))


def test_the_pool_can_be_made_without_importing_prefect() -> None:
    assert base_job_template() == ShipwayWorker.get_default_base_job_template()
    assert ShipwayWorker.type == POOL_TYPE


def test_a_pool_of_ours_takes_every_job_variable_that_a_process_pool_does() -> None:
    theirs, ours = ProcessWorker.get_default_base_job_template(), base_job_template()
    del ours["variables"]["properties"]["imports"], ours["variables"]["description"]
    del ours["job_configuration"]["imports"]
    assert ours == theirs


def test_prefect_finds_our_block_and_worker() -> None:
    [point] = [point for point in entry_points(group="prefect.collections") if point.name == "shipway"]
    module = point.load()
    assert module.ShipwayWorker is ShipwayWorker
    assert module.S3 is S3
    assert S3.get_block_type_slug() == "s3"


def test_the_pull_step_is_importable_by_its_name() -> None:
    assert core._get_function_for_step(PULL_STEP).__module__ == "shipway.prefect.pull"


def test_the_engine_finds_what_it_calls() -> None:
    assert list(inspect.signature(load_flow_run).parameters) == ["flow_run_id"]
    assert list(inspect.signature(load_flow).parameters) == ["flow_run"]
    assert {"flow", "flow_run", "error_logger"} <= inspect.signature(run_flow).parameters.keys()
    assert list(inspect.signature(handle_engine_signals).parameters) == ["flow_run_id"]


def test_a_flows_function_is_looked_up_when_it_is_called() -> None:
    """We wrap `flow.fn`: Prefect must call what stands there, and not what stood there."""

    @flow
    def answer() -> int:
        return 1

    assert isinstance(answer, Flow)
    source = inspect.getsource(inspect.getmodule(run_flow) or run_flow)
    assert "call_with_parameters(self.flow.fn, self.parameters)" in source


def test_a_command_reaches_the_process_as_it_is() -> None:
    assert issubclass(ShipwayJobConfiguration, ProcessJobConfiguration)
    assert issubclass(ShipwayWorker, ProcessWorker)
    source: Any = inspect.getsource(ProcessJobConfiguration.prepare_for_flow_run)
    assert "_command_configured = self.command is not None" in source


def test_the_poll_interval_is_a_setting_of_the_worker() -> None:
    with temporary_settings({PREFECT_WORKER_QUERY_SECONDS: 1.0}):
        assert get_current_settings().worker.query_seconds == 1.0


def test_the_job_variables_that_the_guide_shows_for_ecs_are_prefects() -> None:
    """Those for Docker and Kubernetes were held against their packages by hand: tests do not install these."""
    page = (Path(__file__).parents[2] / "docs/howto/use-stock-workers.md").read_text()
    block = page.partition("## ECS\n")[2].partition("```yaml\n")[2].partition("```")[0]
    variables = yaml.safe_load(block)["job_variables"]
    assert set(variables) <= set(ECSVariables.model_fields)
    ECSVariables.model_validate({"command": ENGINE, **variables})
