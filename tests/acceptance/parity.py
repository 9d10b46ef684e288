"""Plays the same flows on a stock process worker and on ours, and says what can be seen of each run afterwards."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shipway.errors import ShipwayError
from shipway.prefect.api import Api

TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PATIENCE = 150.0
AT_ONCE = 4
"""Runs that each worker has at a time, but for those that wait for something."""

QUIET = 4.0
"""Seconds without news after which no more are expected; Prefect's clients send theirs every other second."""
LONG_AGO = (datetime.now(UTC) - timedelta(days=1)).isoformat()

STOCK, WARM = "stock", "warm"

Facts = dict[str, list[str]]
"""Lines by subject: `states`, `task runs`, `sub-flows`, `logs`, `artifacts`, `events`, `printed` by the worker."""


@dataclass(frozen=True)
class Difference:
    """What our worker does otherwise on purpose.

    Attributes:
        subject: in which of the facts.
        pattern: what the lines look like that only one of the workers has; all of the line.
        reason: why.
        side: who has them: `STOCK` or `WARM`; None where both have them, but not the same ones.
    """

    subject: str
    pattern: str
    reason: str
    side: str | None = None


_HOOKS = (
    "the hooks of a run that died get its release in a process of their own, and what that says is in the run's log"
)
_DATA = "the data of a run that completes is committed and recorded"
_PULL_LINES = (
    r"(Running 1 deployment pull step\(s\)|Executing deployment step: release"
    r"|Deployment step 'release' completed successfully|All deployment steps completed successfully)"
)

INTENDED = [
    Difference(
        "logs",
        r"prefect\.(flow|task)_runs 20: (doubling \d+|printed by the flow|to standard error|std(out|err) of run <id>)",
        "what is printed is logged, unless somebody sets PREFECT_LOGGING_LOG_PRINTS", WARM,
    ),
    Difference("logs", r"prefect\.flow_runs 20: Saved \d+ objects?, \d+ bytes, to s3://.*", _DATA, WARM),
    Difference("artifacts", r"\S+-report markdown: What came of the run, and where its page .*", _DATA, WARM),
    Difference(
        "artifacts", r"\S+-report markdown: How the run ended, and where its page is",
        "a run that did not complete keeps its page, which says how it ended", WARM,
    ),
    Difference("events", r"prefect\.artifact-collection\.(created|updated) .*-report.*", _DATA, WARM),
    Difference("logs", rf"prefect\.flow_runs 20: {_PULL_LINES}", _HOOKS, WARM),
    Difference("events", r"prefect\.flow-run\.pull-step\.executed .*", _HOOKS, WARM),
    Difference("logs", r"prefect\.flow_runs 20: (Running hook|Hook) '\w+' .*", _HOOKS, WARM),
    Difference("logs", r"prefect\.flow_runs 40: An error was encountered while running hook .*", _HOOKS, WARM),
    Difference("logs", r"prefect\.flow_runs 30: The hooks could not be run: .*", _HOOKS, WARM),
    Difference(
        "logs", r"prefect\.flow_runs 40: (The flow could not be loaded: |Unexpected exception encountered when trying "
        r"to load flow).*", "the line itself names the reason, and not its trace only",
    ),
    Difference(
        "logs", r"prefect\.flow_runs 30: Runner failed to retrieve flow to execute on_crashed hooks .*", _HOOKS, STOCK,
    ),
    Difference(
        "logs", r"prefect\.flow_runs\.worker 20: (Aborted submission of flow run|The run is not started).*",
        "the same in plainer words",
    ),
    Difference(
        "logs", r"prefect\.flow_runs 40: Crash detected! Execution was aborted by a termination signal\.",
        "what a run logs last is sent before its process ends", WARM,
    ),
    Difference(
        "logs", r"prefect\.flow_runs 10: (Changing working directory to|Importing flow code from) .*",
        "lines at level debug about how the flow is loaded", WARM,
    ),
    Difference(
        "events", r"prefect\.flow-run\.heartbeat .*",
        "the worker gives signs of life, for the processes that it started and from their start: before the flow is "
        "loaded, none for sub-flows, and without the names of pool and queue, which it would have to ask for",
    ),
]  # fmt: skip
"""All that our worker does otherwise, each for a reason; whatever else differs is a fault."""


@dataclass(frozen=True)
class Case:
    """One flow, and what happens to its run.

    Attributes:
        flow: name of the flow.
        entrypoint: function, or file and function, of the release.
        act: what the test does to the run, once it was created.
        parameters: of the run.
        variables: job variables of the run.
        delay: seconds from its creation until the run is due.
        deployment: more fields of the deployment.
        must: what both workers have a line of, by subject; all of the line. Without it both could have nothing.
    """

    flow: str
    entrypoint: str
    act: Callable[[Play], None] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    delay: float | None = None
    deployment: dict[str, Any] = field(default_factory=dict)
    must: dict[str, str] = field(default_factory=dict)


class Watch:
    """Looks at all runs that somebody waits for, with one request at a time."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._runs: dict[str, dict[str, Any]] = {}
        self._wanted: set[str] = set()
        self._changed = threading.Condition()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join()

    def wait(self, run: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until something is true of a run, and return the run."""
        with self._changed:
            self._wanted.add(run)
            there = self._changed.wait_for(lambda: run in self._runs and true(self._runs[run]), PATIENCE)
            self._wanted.discard(run)
            found = self._runs.get(run, {})
        assert there, f"it did not come about: {found.get('name')} {found.get('state_name')}"
        return found

    def _look(self) -> None:
        while not self._done.wait(0.3):
            with self._changed:
                wanted = sorted(self._wanted)
            if not wanted:
                continue
            with suppress(ShipwayError):
                rows = self._api.request("POST", "/flow_runs/filter", {"flow_runs": {"id": {"any_": wanted}}})
                with self._changed:
                    self._runs |= {row["id"]: row for row in rows}
                    self._changed.notify_all()


class Play:
    """One case on one of the workers."""

    def __init__(self, api: Api, watch: Watch, case: Case, side: str, deployment: str, folder: Path) -> None:
        self.api = api
        self.watch = watch
        self.case = case
        self.side = side
        self.deployment = deployment
        self.folder = folder
        self.runs: list[str] = []

    def play(self) -> list[str]:
        """Play the case to its end; return the runs that came of it."""
        self.create()
        if self.case.act:
            self.case.act(self)
        self.end()
        return self.runs

    def create(self) -> str:
        """Create a run."""
        text = json.dumps(self.case.variables).replace("FOLDER/SIDE", str(self.folder / self.side))
        body: dict[str, Any] = {
            "name": f"{self.case.flow}-{len(self.runs)}",
            "parameters": self.case.parameters,
            "job_variables": json.loads(text),
            "tags": ["parity"],
        }
        if self.case.delay is not None:
            due = datetime.now(UTC) + timedelta(seconds=self.case.delay)
            body["state"] = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
        run: str = self.api.request("POST", f"/deployments/{self.deployment}/create_flow_run", body)["id"]
        self.runs.append(run)
        return run

    def arrive(self) -> None:
        """Wait until the run's code says that it is there."""
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / self.runs[0]).exists():
            assert time.monotonic() < deadline, f"{self.case.flow} did not begin on the {self.side} worker"
            time.sleep(0.1)

    def go(self) -> None:
        """Let the run's code go on."""
        (self.folder / f"{self.runs[0]}.go").touch()

    def state(self, name: str) -> None:
        """Wait until the first run is in a state of that name."""
        self.watch.wait(self.runs[0], lambda run: run["state_name"] == name)

    def set_state(self, kind: str, name: str, **details: object) -> None:
        """Give the first run a state, as the UI does."""
        body = {"state": {"type": kind, "name": name, "message": "by the test", "state_details": details}}
        self.api.request("POST", f"/flow_runs/{self.runs[0]}/set_state", body)

    def resume(self) -> None:
        """Resume the first run, as the UI does."""
        self.api.request("POST", f"/flow_runs/{self.runs[0]}/resume", {})

    def end(self, run: str | None = None) -> None:
        """Wait until a run has ended."""
        self.watch.wait(run or self.runs[0], lambda each: each["state_type"] in TERMINAL)


def play_all(api: Api, plays: Iterable[Play]) -> dict[tuple[str, str], list[str] | BaseException]:
    """Play everything, a few runs at once on each worker; return the runs of each case, or why there are none."""
    plays = list(plays)
    turns = {STOCK: threading.Semaphore(AT_ONCE), WARM: threading.Semaphore(AT_ONCE)}

    def one(play: Play) -> list[str] | BaseException:
        with turns[play.side]:
            try:
                return play.play()
            except (AssertionError, ShipwayError) as error:
                return error

    with ThreadPoolExecutor(len(plays)) as threads:
        return dict(zip([(play.case.flow, play.side) for play in plays], threads.map(one, plays), strict=True))


def settle(api: Api, runs: list[str]) -> None:
    """Wait until nothing more is heard of runs that have ended: logs and events arrive some time after the states."""
    before, since = -1, time.monotonic()
    deadline = since + PATIENCE
    while time.monotonic() - since < QUIET:
        assert time.monotonic() < deadline, "there is no end to what is heard of the runs"
        time.sleep(0.5)
        resources = {
            "any_resource": {"id": [f"prefect.flow-run.{run}" for run in runs]},
            "occurred": {"since": LONG_AGO},
        }
        events = sum(row["count"] for row in api.request("POST", "/events/count-by/event", {"filter": resources}))
        logs = sum(1 for _ in api.pages("/logs/filter", {"logs": {"flow_run_id": {"any_": runs}}}))
        if events + logs != before:
            before, since = events + logs, time.monotonic()


class Seen:
    """What can be seen of runs, in words that are the same for two runs in which the same happened."""

    def __init__(self, api: Api, runs: list[str], said: str) -> None:
        self._api = api
        self._said = said
        self._names: dict[str, str] = {}
        self._runs = runs

    def facts(self) -> Facts:
        """Return it."""
        inner = self._rows("flow_runs", {"flow_runs": {"parent_flow_run_id": {"any_": self._runs}}})
        runs = self._runs + [row["id"] for row in inner]
        tasks = self._rows("task_runs", {"flow_runs": {"id": {"any_": runs}}})
        self._names |= {row["name"]: "<sub-flow run>" for row in inner}
        self._names |= {row["name"]: re.sub(r"-[0-9a-f]{3}$", "-<key>", row["name"]) for row in tasks}
        # A task run that stands for the run of another deployment has a name made up of two words.
        # One of another task ends in three digits of its key, all of which may be letters.
        self._names |= {
            row["name"]: "<made up>"
            for row in tasks
            if re.fullmatch(r"[a-z]+-[a-z]+", row["name"]) and row["name"].split("-")[0] not in row["task_key"]
        }
        mine = {"artifacts": {"flow_run_id": {"any_": runs}}}
        return {
            "states": [line for run in self._runs for line in self._states("flow", run)],
            "task runs": sorted(
                self.plain(f"{row['name']}: {'; '.join(self._states('task', row['id']))}") for row in tasks
            ),
            "sub-flows": sorted("; ".join(self._states("flow", row["id"])) for row in inner),
            "logs": sorted(
                self.plain(f"{row['name']} {row['level']}: {row['message']}")
                for row in self._rows("logs", {"logs": {"flow_run_id": {"any_": runs}}})
            ),
            "artifacts": sorted(
                self.plain(f"{row['key']} {row['type']}: {row['description']}") for row in self._rows("artifacts", mine)
            ),
            "events": sorted(self._events(runs)),
            "printed": sorted(re.findall(rf"\w+ of run (?={'|'.join(self._runs)})", self._said)),
        }

    def plain(self, text: str) -> str:
        """Take out of a text what differs between any two runs."""
        for name in sorted(self._names, key=len, reverse=True):
            text = text.replace(name, self._names[name])
        text = re.sub(r"(?s)Traceback \(most recent call last\):\n.*?\n(?=\S)", "<trace>\n", text)
        text = re.sub(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", "<id>", text)
        text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(\+00:00|Z)?( UTC)?", "<time>", text)
        text = re.sub(r"/(?:tmp|private|var)/[^\s'\"]*/(?=[^/\s])", "<folder>/", text)
        text = re.sub(r"\d+\.\d+ seconds", "<n> seconds", text)
        text = re.sub(r"0x[0-9a-f]{6,}", "<address>", text)
        text = re.sub(r"127\.0\.0\.1:\d+", "<server>", text)
        # What a task run was called before it got the name that its flow gives it.
        text = re.sub(r"(resource\.name=\w+)-[0-9a-f]{3}(?= )", r"\1-<key>", text)
        text = re.sub(r"Worker '[^']*' submitting", "Worker <worker> submitting", text)
        return re.sub(r"(?i)\b(pid|process) '?\d+'?", r"\1 <pid>", text)

    def _states(self, kind: str, run: str) -> list[str]:
        rows = self._api.request("GET", f"/{kind}_run_states/?{kind}_run_id={run}")
        rows.sort(key=lambda row: row["timestamp"])
        return [self.plain(f"{row['type']} {row['name']}: {row['message']}") for row in rows]

    def _rows(self, kind: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self._api.pages(f"/{kind}/filter", body))

    def _events(self, runs: list[str]) -> Iterable[str]:
        resources = [f"prefect.flow-run.{run}" for run in runs]
        wanted = {"any_resource": {"id": resources}, "occurred": {"since": LONG_AGO}}
        page = self._api.request("POST", "/events/filter", {"filter": wanted, "limit": 50})
        rows = page["events"]
        while page.get("next_page"):
            page = self._api.request("GET", "/events/filter/next?" + page["next_page"].partition("?")[2])
            rows += page["events"]
        lines = self._event_lines(rows)
        beats = {line for line in lines if line.startswith("prefect.flow-run.heartbeat")}
        # How many there are tells how long a run took, and no more.
        return [line for line in lines if line not in beats] + sorted(beats)

    def _event_lines(self, rows: list[dict[str, Any]]) -> list[str]:
        lines = []
        for row in rows:
            related = sorted(_resource(each) for each in row["related"])
            lines.append(self.plain(f"{row['event']} of {_resource(row['resource'])} with {', '.join(related)}"))
        return lines


def _resource(labels: dict[str, str]) -> str:
    """Name a resource by its labels; what tells the two workers, their pools and deployments apart is left out."""
    role = labels.get("prefect.resource.role") or labels["prefect.resource.id"].split(".")[1]
    shown = [
        f"{key.removeprefix('prefect.')}={value}"
        for key, value in sorted(labels.items())
        if key not in VARYING and not (key == "prefect.resource.name" and role in ("worker", "deployment", "work-pool"))
    ]
    return f"{role} ({' '.join(shown)})"


VARYING = {
    "prefect.resource.id",
    "prefect.resource.role",
    "prefect.state-timestamp",
    "prefect.worker-type",
    "prefect.work-pool.type",
    "prefect.infrastructure.identifier",
}


def compare(case: Case, stock: Facts, warm: Facts) -> list[str]:
    """Return what runs must have and lack, and how they differ but for what is intended; empty when all is well."""
    found = [
        f"{subject}, {side} lacks: {pattern}"
        for subject, pattern in case.must.items()
        for side, facts in ((STOCK, stock), (WARM, warm))
        if not any(re.fullmatch(pattern, line, re.DOTALL) for line in facts[subject])
    ]
    for subject, before in stock.items():
        after = warm[subject]
        only = {STOCK: _without(before, after), WARM: _without(after, before)}
        for side, lines in only.items():
            found += [f"{subject}, {side} only: {line}" for line in lines if not _intended(subject, side, line)]
        if subject == "states" and not found and before != after:
            found.append(f"states, in another order: {before} and {after}")
    return found


def _without(lines: list[str], others: list[str]) -> list[str]:
    left = list(others)
    only = []
    for line in lines:
        if line in left:
            left.remove(line)
        else:
            only.append(line)
    return only


def _intended(subject: str, side: str, line: str) -> bool:
    return any(
        each.subject == subject and each.side in (None, side) and re.fullmatch(each.pattern, line, re.DOTALL)
        for each in INTENDED
    )
