"""`shipway worker start` as somebody starts it: on a terminal and elsewhere, watched, and told to stop."""

from __future__ import annotations

import fcntl
import http.client
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shipway.errors import ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.pool import base_job_template
from shipway.settings import Settings
from shipway.worker.cores import cores
from shipway.worker.pool import AVAILABLE
from tests.acceptance.conftest import Shell, one_line, wait_until
from tests.faults.proxy import faulty_proxy

POOL = "programs"
FLOW = """
import os
import time
from pathlib import Path
from prefect import flow

@flow(name="waiting", retries=1)
def main(until: str = "", seconds: float = 0):
    stumbled = Path(f"{until}.stumbled")
    if until and not stumbled.exists():
        stumbled.touch()
        raise ValueError("a retry within the process, by which Prefect marks a run as no worker's")
    print("it begins [red]here[/nothing]")
    while until and not Path(until).exists():
        time.sleep(0.05)
    time.sleep(seconds)
    print("it is done")

@flow(name="failing")
def fail():
    raise ValueError("on purpose")

@flow(name="threads")
def threads():
    print("OpenMP:", os.environ.get("OMP_WAIT_POLICY"), os.environ.get("OMP_NUM_THREADS"))
"""


@pytest.fixture(scope="module")
def here(stack: Shell, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A project with a pool of its own, which no worker serves yet, and deployments in it."""
    shell = Shell(tmp_path_factory.mktemp("worker"), stack.environment)
    api_url = Settings.load(stack.folder, {}).api_url
    (shell.folder / "shipway.toml").write_text(f'api_url = "{api_url}"\nwork_pool = "{POOL}"\n')
    (shell.folder / "work.py").write_text(FLOW)
    for flow in ("main", "fail"):
        shell.ok("deploy", f"./work.py:{flow}", "-n", "d")
    return shell


OURS = (sys.executable, "-m", "shipway", "worker", "start")
PREFECTS = (sys.executable, "-m", "prefect", "worker", "start", "--type", "shipway")


class Worker:
    """A worker in a process of its own, and all that it said."""

    def __init__(
        self,
        here: Shell,
        *options: str,
        program: Sequence[str] = OURS,
        terminal: bool = False,
        **variables: str,
    ) -> None:
        ours, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 160, 0, 0))
        self.process = subprocess.Popen(
            [*program, *options],
            cwd=here.folder,
            env={**os.environ, **here.environment, "TERM": "xterm", **variables},
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._said = b""
        self._reader = threading.Thread(target=self._read, args=(ours,))
        self._reader.start()

    def _read(self, source: int) -> None:
        try:
            while data := os.read(source, 65536):
                self._said += data
        except OSError:
            # How Linux says that nobody is left at the other end of a terminal.
            pass
        finally:
            os.close(source)

    @property
    def said(self) -> str:
        return self._said.decode()

    def wait_for(self, words: str, times: int = 1) -> None:
        def there() -> bool:
            assert self.process.poll() is None or self.said.count(words) >= times, self.said
            return self.said.count(words) >= times

        wait_until(there)

    def port(self) -> int:
        """Return where it answers about itself."""
        [port] = re.findall(r"http://127\.0\.0\.1:(\d+)/metrics", self.said)
        return int(port)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()


@contextmanager
def worker(here: Shell, *options: str, ready: str = "worker ready", **more: Any) -> Iterator[Worker]:
    one = Worker(here, *options, **more)
    try:
        one.wait_for(ready)
        yield one
    finally:
        one.end()


def start(here: Shell, **parameters: object) -> str:
    """Start a run of the waiting flow and return its id."""
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
    return str(here.json("run", "waiting/d", *given)["id"])


def state(here: Shell, run: str) -> str:
    run_facts = Api(Settings.load(here.folder)).request("GET", f"/flow_runs/{run}")
    return str(run_facts["state_name"])


def get(port: int, path: str) -> tuple[int, str]:
    """Ask the worker something; return status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def figures(port: int) -> dict[tuple[str, str], float]:
    """Return what /metrics says, by name and the value of its label."""
    status, text = get(port, "/metrics")
    assert status == 200, text
    families = text_string_to_metric_families(text)
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_on_a_terminal_a_table_stands_below_what_runs_print(here: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with worker(here, terminal=True) as one:
        one.wait_for("waiting for runs")
        run = start(here, until=gate)
        one.wait_for("it begins")
        one.wait_for("1 run\x1b[0m")
        one.wait_for(" MB")
        gate.touch()
        one.wait_for("it is done")
        wait_until(lambda: state(here, run) == "Completed")
        one.wait_for("waiting for runs", one.said.count("waiting for runs") + 1)
        assert one.stop() == 0
        end = one.said
    rows = re.findall(r"default +([\w-]+…?) +waiting +\d\d:\d\d:\d\d +(\d+) % +(\d+) MB +(\d+\.\d\d) s +(\w+)", end)
    assert rows, end
    # A process that was just forked has next to nothing of its own.
    assert any(int(memory) > 0 for _name, _cpu, memory, _began, _kind in rows), rows
    assert all(int(memory) < 500 and float(began) < 120 for _name, _cpu, memory, began, _kind in rows), rows
    lines = [re.sub(r"\x1b\[[0-?]*[A-Za-z]", "", line).strip() for line in end.replace("\r", "\n").split("\n")]
    assert any(line.endswith("it begins [red]here[/nothing]") for line in lines), end
    assert "\x1b[?25h" in end.rpartition("\x1b[?25l")[2], "the cursor is hidden"


def test_it_tells_its_health_and_its_figures_where_nobody_else_listens(here: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with worker(here, "--metrics-port", "0") as one:
        port = one.port()
        assert figures(port)["shipway_runs", ""] == 0
        run = start(here, until=gate)
        one.wait_for("it begins")
        during = figures(port)
        assert during["shipway_runs", ""] == 1
        assert during["shipway_runs_started_total", "forked"] + during["shipway_runs_started_total", "own"] == 1
        assert get(port, "/health") == (200, "OK\n")
        assert get(port, "/other")[0] == 404
        taken = one_line(here("worker", "start", "--metrics-port", str(port)), 3)
        gate.touch()
        wait_until(lambda: state(here, run) == "Completed")
        assert here("run", "failing/d", "--watch").returncode == 1
        cancelled = start(here, seconds=600)
        one.wait_for("it begins", 2)
        wish = {"state": {"type": "CANCELLING"}}
        Api(Settings.load(here.folder)).request("POST", f"/flow_runs/{cancelled}/set_state", wish)
        wait_until(lambda: state(here, cancelled) == "Cancelled")
        wait_until(lambda: figures(port)["shipway_runs", ""] == 0)
        after = figures(port)
        assert one.stop() == 0
    assert f"127.0.0.1:{port}" in taken
    assert "--metrics-port" in taken
    assert after["shipway_runs_ended_total", "completed"] == 1
    assert after["shipway_runs_ended_total", "failed"] == 1
    assert after["shipway_runs_ended_total", "cancelled"] == 1
    assert sum(after["shipway_run_start_seconds_count", kind] for kind in ("forked", "own")) == 3
    forked = 3 if AVAILABLE else 0
    assert after["shipway_runs_started_total", "forked"] == forked
    assert after["shipway_run_cpu_seconds_count", ""] == after["shipway_run_peak_bytes_count", ""] == forked
    if AVAILABLE:
        assert after["shipway_templates", ""] >= 1
        assert 0 < after["shipway_run_cpu_seconds_sum", ""] < 60
        assert after["shipway_run_peak_bytes_sum", ""] > 10_000_000


def test_names_that_cannot_be_are_refused(here: Shell) -> None:
    for options in (("-q", "a/b"), ("-t", ""), ("--pool", "a%b")):
        line = one_line(here("worker", "start", *options), 3)
        assert "name" in line or "may not hold" in line


def test_told_to_stop_it_lets_a_short_run_finish_and_hands_back_a_long_one(here: Shell, tmp_path: Path) -> None:
    """It takes up no other, and says so in plain lines, where there is no terminal."""
    gate = tmp_path / "gate"
    with worker(here, SHIPWAY_DRAIN_SECONDS="120") as one:
        run = start(here, until=gate)
        one.wait_for("it begins")
        one.process.send_signal(signal.SIGTERM)
        one.wait_for("may go on")
        other = start(here)
        gate.touch()
        assert one.process.wait(120) == 0
    assert state(here, run) == "Completed"
    assert state(here, other) in ("Scheduled", "Late")
    assert "it is done" in one.said
    assert "worker ready" in one.said.splitlines()
    assert "\x1b[" not in one.said
    assert "waiting for runs" not in one.said

    later = tmp_path / "later"
    with worker(here, SHIPWAY_DRAIN_SECONDS="1") as one:
        wait_until(lambda: state(here, other) == "Completed")
        run = start(here, until=later)
        one.wait_for("it begins", 2)
        assert one.stop() == 0
        assert "Handed back 1" in one.said
    assert state(here, run) in ("AwaitingRetry", "Scheduled", "Late")
    later.touch()
    with worker(here):
        wait_until(lambda: state(here, run) == "Completed")


@pytest.mark.long
def test_told_twice_it_ends_at_once(here: Shell) -> None:
    with worker(here, SHIPWAY_DRAIN_SECONDS="600") as one:
        run = start(here, seconds=600)
        one.wait_for("it begins")
        one.process.send_signal(signal.SIGTERM)
        one.wait_for("may go on")
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(60) == 0
    assert state(here, run) == "Crashed"


@pytest.mark.long
def test_what_a_run_is_told_of_threads_is_what_somebody_set_or_its_share(here: Shell) -> None:
    """By the job, by who started the worker, and by the worker itself; the same number for each of its runs."""
    here.ok("deploy", "./work.py:threads", "-n", "d")
    share = max(cores() // 2, 1)
    api = Api(Settings.load(here.folder))
    deployment = api.deployment("threads/d")["id"]
    with worker(here, "--limit", "2", OMP_WAIT_POLICY="ACTIVE") as one:
        for variables, said in (
            ({}, f"ACTIVE {share}"),
            ({}, f"ACTIVE {share}"),
            ({"OMP_NUM_THREADS": "7"}, "ACTIVE 7"),
        ):
            before = one.said.count(f"OpenMP: {said}")
            body = {"job_variables": {"env": variables}}
            api.request("POST", f"/deployments/{deployment}/create_flow_run", body)
            one.wait_for(f"OpenMP: {said}", before + 1)
        assert one.stop() == 0


def test_limit_and_priorities_are_kept_and_it_is_woken_by_events(here: Shell, tmp_path: Path) -> None:
    """A worker that asks by itself once an hour hears of each run all the same, and of one that fell due before."""
    api = Api(Settings.load(here.folder))
    for queue, priority in (("urgent", 1), ("patient", 2)):
        here.ok("deploy", "./work.py:main", "-n", queue, "-q", queue)
        api.request("PATCH", f"/work_pools/{POOL}/queues/{queue}", {"priority": priority})
    gate = tmp_path / "gate"
    patient, urgent = (
        str(here.json("run", f"waiting/{queue}", "-p", f"until={gate}")["id"]) for queue in ("patient", "urgent")
    )
    # The second one is found because the first has ended: there is no other time to ask.
    settings = {"SHIPWAY_WORKER_LIMIT": "1", "PREFECT_WORKER_QUERY_SECONDS": "3600"}
    with worker(here, "-q", "patient", "-q", "urgent", **settings) as one:
        one.wait_for("it begins")
        assert state(here, urgent) == "Running"
        assert state(here, patient) in ("Scheduled", "Late")
        gate.touch()
        wait_until(lambda: state(here, patient) == "Completed")
        assert state(here, urgent) == "Completed"
        for count in (3, 4):
            run = str(here.json("run", "waiting/patient", "-p", f"until={gate}")["id"])
            wait_until(lambda run=run: state(here, run) == "Completed")  # type: ignore[misc]
            one.wait_for("it is done", count)
        assert one.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("limited", [f"/work_pools/{POOL}", f"/work_pools/{POOL}/queues/default"])
def test_the_limits_of_pool_and_queue_are_kept(here: Shell, tmp_path: Path, limited: str) -> None:
    api = Api(Settings.load(here.folder))
    gate = tmp_path / "gate"
    (tmp_path / "gate.stumbled").touch()
    api.request("PATCH", limited, {"concurrency_limit": 1})
    try:
        with worker(here) as one:
            runs = [start(here, until=gate) for _ in range(2)]
            one.wait_for("it begins")
            wait_until(lambda: "Late" in [state(here, run) for run in runs])
            assert one.said.count("it begins") == 1
            gate.touch()
            wait_until(lambda: [state(here, run) for run in runs] == ["Completed"] * 2)
            assert one.stop() == 0
    finally:
        api.request("PATCH", limited, {"concurrency_limit": None})


@pytest.mark.long
def test_without_events_runs_are_found_by_polling(here: Shell, tmp_path: Path) -> None:
    """A server, or a proxy before it, that lets nobody subscribe; the worker says so once, and goes on trying."""
    gate = tmp_path / "gate"
    gate.touch()
    address = urlsplit(Settings.load(here.folder).api_url)
    with faulty_proxy(f"{address.scheme}://{address.netloc}") as proxy:
        proxy.refused = ("/events/out",)
        with worker(here, PREFECT_API_URL=f"{proxy.url}/api", PREFECT_WORKER_QUERY_SECONDS="1") as one:
            one.wait_for("Runs are found by polling only")
            run = start(here, until=gate)
            wait_until(lambda: state(here, run) == "Completed")
            before = proxy.done["refused"]
            wait_until(lambda: proxy.done["refused"] > before)
            assert one.stop() == 0
        assert one.said.count("Runs are found by polling only") == 1


IMPORTING = """
import sys
import time
ready = [name for name in {looked_for} if name in sys.modules]
import {imported}
time.sleep(0.1)  # as long as a large library takes
from prefect import flow

@flow(name="importing")
def main():
    print("imported before:", ready)
"""


@pytest.mark.long
@pytest.mark.skipif(not AVAILABLE, reason="runs are forked on Linux only")
def test_what_runs_import_was_imported_before_the_third(here: Shell, tmp_path: Path) -> None:
    """Learnt from the first, or declared; a release that imports something else runs all the same."""

    def deploy(imported: str) -> None:
        code = IMPORTING.format(looked_for=("mailbox", "wave", "pyclbr"), imported=imported)
        (here.folder / "importing.py").write_text(code)
        here.ok("deploy", "./importing.py:main", "-n", "d")

    def says(words: str) -> None:
        before = one.said.count(f"imported before: {words}")
        assert here("run", "importing/d", "--watch").returncode == 0, one.said
        assert one.said.count(f"imported before: {words}") == before + 1, one.said

    def templates(count: int) -> None:
        wait_until(lambda: figures(port)["shipway_templates", ""] == count)

    api = Api(Settings.load(here.folder))
    deploy("mailbox")
    with worker(here, "--metrics-port", "0", SHIPWAY_CACHE=str(tmp_path)) as one:
        port = one.port()
        says("[]")
        says("[]")
        templates(2)
        says("['mailbox']")
        deploy("wave")
        says("['mailbox']")
        says("[]")  # as the template that is wanted now is being made
        templates(3)
        says("['mailbox', 'wave']")
        deployment = f"/deployments/{api.deployment('importing/d')['id']}"
        with pytest.raises(ShipwayError, match="imports"):
            api.request("POST", f"{deployment}/create_flow_run", {"job_variables": {"imports": ["os; evil"]}})
        api.request("PATCH", deployment, {"job_variables": {"imports": ["pyclbr", "a_module_that_nobody_has"]}})
        says("[]")
        templates(4)
        says("['mailbox', 'wave', 'pyclbr']")
        assert one.stop() == 0


@pytest.mark.long
def test_prefects_own_command_starts_it_too(here: Shell) -> None:
    """`prefect worker start --type shipway`: the pool, its job template and the warm start are the same."""
    variables = Settings.load(here.folder).prefect_environment()
    with worker(here, "--pool", "made-by-prefect", program=PREFECTS, ready="started!", **variables) as one:
        here.ok("deploy", "./work.py:main", "-n", "theirs", "--pool", "made-by-prefect")
        run = str(here.json("run", "waiting/theirs")["id"])
        wait_until(lambda: state(here, run) == "Completed")
        one.wait_for("it is done")
        assert one.stop() == 0
    pool = Api(Settings.load(here.folder)).pool("made-by-prefect") or {}
    assert (pool["type"], pool["base_job_template"]) == ("shipway", base_job_template())
