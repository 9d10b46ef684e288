"""The flows that the parity suite runs on both workers; a copy of this file is their release."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, pause_flow_run, runtime, suspend_flow_run, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import INPUTS, RUN_ID
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.logging.loggers import flow_run_logger
from prefect.states import Failed
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from pydantic import BaseModel


def attempt() -> int:
    """Return which start of the run this is."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run.run_count


def arrive() -> Path:
    """Tell the test that the run is here; return the file with which it answers."""
    mark = marks() / os.environ["PREFECT__FLOW_RUN_ID"]
    mark.touch()
    return mark.with_suffix(".go")


def marks() -> Path:
    """Return the folder in which runs and test meet; no variable says it, as runs would no longer share a template."""
    return Path((Path(__file__).parent / "marks.txt").read_text())


def was_forked() -> bool:
    """Tell whether the run was forked from a template."""
    return "shipway.worker.child" in sys.modules


def wait_for_test() -> None:
    """Tell the test that the run is here, and go on when it says so."""
    answer = arrive()
    while not answer.exists():
        time.sleep(0.05)


def stay() -> None:
    """Tell the test that the run is here, and stay until somebody ends it."""
    arrive()
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        time.sleep(0.05)


@task
def double(n: int) -> int:
    print("doubling", n)
    return 2 * n


@flow(name="plain")
def plain(n: int = 2) -> int:
    if was_forked():
        (marks() / f"{os.environ['PREFECT__FLOW_RUN_ID']}.forked").touch()
    get_run_logger().warning("before the task")
    print("printed by the flow")
    return double(n) + double(n + 1)


@flow(name="async-flow")
async def async_flow() -> int:
    await asyncio.sleep(0)
    get_run_logger().info("in a loop")
    return double(1)


@flow(name="generator")
def generator() -> Iterator[int]:
    yield double(1)
    get_run_logger().info("between")
    yield double(2)


@flow(name="async-generator")
async def async_generator() -> AsyncIterator[int]:
    yield double(1)
    get_run_logger().info("between")
    yield double(2)


@flow
def inner(n: int) -> int:
    get_run_logger().info("in the inner flow")
    return double(n)


@flow(name="outer")
def outer() -> int:
    return inner(1) + inner(2)


@task(retries=2, retry_delay_seconds=0)
def third_time() -> None:
    context = TaskRunContext.get()
    assert context is not None
    if context.task_run.run_count < 3:
        raise ValueError(f"attempt {context.task_run.run_count}")


@flow(name="task-retries")
def task_retries() -> None:
    third_time()


@flow(name="flow-retries", retries=1, retry_delay_seconds=0)
def flow_retries() -> None:
    double(attempt())
    if attempt() == 1:
        raise ValueError("the first attempt")


def on_state(flow: Any, flow_run: Any, state: State[Any]) -> None:
    flow_run_logger(flow_run).info("hook: %s is %s", flow.name, state.name)


@flow(
    name="completes",
    on_completion=[on_state],
    on_running=[on_state],
    on_failure=[on_state],
    on_crashed=[on_state],
    on_cancellation=[on_state],
)
def completes() -> None:
    double(1)


@flow(name="fails", on_completion=[on_state], on_running=[on_state], on_failure=[on_state], on_crashed=[on_state])
def fails() -> None:
    double(1)
    raise ValueError("on purpose")


@task
def failing() -> None:
    raise RuntimeError("the task's fault")


@flow(name="fails-by-task")
def fails_by_task() -> None:
    failing()


@flow(name="returns-failed")
def returns_failed() -> State[Any]:
    return Failed(message="as it says")


def bad_hook(flow: Any, flow_run: Any, state: State[Any]) -> None:
    raise ValueError("the hook's fault")


@flow(name="bad-hook", on_completion=[bad_hook], on_crashed=[bad_hook])
def hook_fails() -> None:
    double(1)


def let_news_out() -> None:
    """Wait until what was logged and emitted so far is on its way: a process that dies takes the rest with it."""
    time.sleep(8)


@flow(name="exits", on_crashed=[on_state], on_failure=[on_state])
def exits() -> None:
    sys.exit(3)


@flow(name="exits-hard", on_crashed=[on_state])
def exits_hard() -> None:
    let_news_out()
    os._exit(3)


@flow(name="segfault", on_crashed=[on_state])
def segfault() -> None:
    let_news_out()
    ctypes.string_at(0)


@flow(name="killed", on_crashed=[on_state])
def killed() -> None:
    let_news_out()
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@flow(name="terminated", on_crashed=[on_state], on_cancellation=[on_state])
def terminated() -> None:
    let_news_out()
    os.kill(os.getpid(), signal.SIGTERM)
    stay()


@flow(name="interrupted", on_crashed=[on_state], on_cancellation=[on_state])
def interrupted() -> None:
    let_news_out()
    os.kill(os.getpid(), signal.SIGINT)
    stay()


@flow(name="crashing-hook", on_crashed=[bad_hook, on_state])
def crashing_hook() -> None:
    let_news_out()
    os._exit(4)


@flow(name="cancelled", on_cancellation=[on_state], on_crashed=[on_state])
def cancelled() -> None:
    stay()


@flow(name="cancelled-async", on_cancellation=[on_state], on_crashed=[on_state])
async def cancelled_async() -> None:
    arrive()
    await asyncio.sleep(100)


@flow(name="pauses")
def pauses() -> None:
    double(1)
    pause_flow_run(timeout=90, poll_interval=1)
    double(2)


@flow(name="suspends")
def suspends() -> None:
    double(1)
    if attempt() == 1:
        suspend_flow_run(timeout=90)
    double(2)


@flow(name="suspends-and-fails", on_running=[on_state], on_failure=[on_state], on_crashed=[on_state])
def suspends_and_fails() -> None:
    double(1)
    if attempt() == 1:
        suspend_flow_run(timeout=90)
    raise ValueError("on purpose")


@flow(name="suspended")
def suspended() -> None:
    if not arrive().exists():
        wait_for_test()
        time.sleep(5)  # until the news has arrived; the next task is not begun then
        double(1)
    get_run_logger().info("goes on")


@flow(name="threads", task_runner=ThreadPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]
def threads() -> int:
    return sum(double.map([1, 2, 3]).result())


@flow(name="processes", task_runner=ProcessPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]
def processes() -> int:
    return sum(double.map([1, 2]).result())


@flow(name="environment")
def environment() -> None:
    get_run_logger().info("the run was given %s", os.environ.get("PARITY_GIVEN"))
    get_run_logger().debug("a line of level debug")


@flow(name="says")
def says() -> None:
    """Say in each way whose run this is; the worker's output has it, or not."""
    run = os.environ["PREFECT__FLOW_RUN_ID"]
    print(f"stdout of run {run}")
    print(f"stderr of run {run}", file=sys.stderr)
    subprocess.run([sys.executable, "-c", f"print('child of run {run}')"], check=True)
    get_run_logger().info("logger of run %s, which was given %s", run, os.environ.get("PARITY_GIVEN"))


@flow(name="folder")
def folder() -> None:
    get_run_logger().info("the release is the current folder: %s", Path("parity_flows.py").is_file())


@flow(name="times-out", timeout_seconds=1)
def times_out() -> None:
    double(1)
    time.sleep(30)


@task(timeout_seconds=1)
def slow() -> None:
    time.sleep(30)


@flow(name="task-times-out")
def task_times_out() -> None:
    slow()


@flow(name="cancelled-inside", on_cancellation=[on_state])
def cancelled_inside() -> None:
    inner_stay()


@flow
def inner_stay() -> None:
    double(1)
    stay()


@flow(name="cancelled-bad-hook", on_cancellation=[bad_hook, on_state])
def cancelled_bad_hook() -> None:
    stay()


@task(persist_result=True, cache_policy=INPUTS + RUN_ID)
def remembered(n: int) -> int:
    return n


@flow(name="remembers", persist_result=True)
def remembers() -> int:
    return remembered(1) + remembered(1) + remembered(2)


@flow(name="named", flow_run_name="of {n}")
def named(n: int = 3) -> int:
    return double.with_options(task_run_name="doubling-{n}")(n)


@flow(name="makes-artifacts")
def makes_artifacts() -> None:
    # Keys of this run alone: whether an artifact is the first of its key shows in its event.
    run = os.environ["PREFECT__FLOW_RUN_ID"]
    create_markdown_artifact("# Found", key=f"found-{run}", description="a text")
    create_table_artifact([{"n": 1}], key=f"rows-{run}", description="a table")
    create_link_artifact("http://127.0.0.1/", "there", key=f"place-{run}", description="a link")
    emit_event("parity.said", {"prefect.resource.id": f"prefect.flow-run.{run}"})


@flow(name="calls-deployment")
def calls_deployment() -> None:
    name = runtime.deployment.name
    run: Any = run_deployment(f"plain/{name}", parameters={"n": 5}, timeout=100, poll_interval=1)
    get_run_logger().info("it is %s", run.state.name if run.state else None)


@task
async def waits(n: int) -> int:
    await asyncio.sleep(0.1)
    return n


@flow(name="submits")
async def submits() -> list[int]:
    futures: Any = waits.map([1, 2, 3])
    return [future.result() for future in futures]


class Order(BaseModel):
    item: str
    count: int = 1


@flow(name="order")
def order(order: Order, factor: float = 1.5) -> float:
    get_run_logger().info("%r %r", order, factor)
    return order.count * factor


@flow(name="limited")
def limited() -> None:
    wait_for_test()


@flow(name="late")
def late() -> None:
    double(1)


@flow(name="logs")
def logs() -> None:
    logging.getLogger("parity").warning("a logger that Prefect does not know")
    get_run_logger().error("with a trace", exc_info=ValueError("logged"))
    print("to standard error", file=sys.stderr)
