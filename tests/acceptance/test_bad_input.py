"""Bad input: one clear line, the documented exit status, nothing half-written."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shipway.prefect.api import Api
from shipway.settings import Settings
from tests.acceptance.conftest import Shell, free_port, one_line, run_python, wait_until

GOOD = "from prefect import flow\n\n@flow(name='bad-input')\ndef main(n: int, label: str = 'x'):\n    pass\n"


@pytest.fixture
def folder(project: Shell) -> Path:
    (project.folder / "work.py").write_text(GOOD)
    return project.folder


def untouched(folder: Path) -> None:
    """Check that a build that failed wrote neither of its files."""
    assert not [path.name for path in folder.iterdir() if path.name.endswith(("-deployment.yaml", "-manifest.json"))]


@pytest.mark.parametrize(
    ("source", "entrypoint", "words"),
    [
        (None, "./missing.py:main", "missing.py does not exist"),
        (None, "work.py", "does not name a flow"),
        ("def broken(:\n", "./work.py:main", "work.py:1:12: invalid syntax"),
        (GOOD, "./work.py:other", "has no 'other'; its flows are main"),
        pytest.param(
            GOOD + "value = 3\n", "./work.py:value", "'value' in work.py is a int, not a flow", marks=pytest.mark.long
        ),
        pytest.param("def main(): pass\n", "./work.py:main", "a function without @flow", marks=pytest.mark.long),
        ("x = 1\n" + GOOD + "raise ValueError('at import')\n", "./work.py:main", "work.py:7: ValueError: at import"),
        ("import surely_not_installed\n" + GOOD, "./work.py:main", "work.py:1: ModuleNotFoundError"),
        pytest.param(GOOD + "raise SystemExit(4)\n", "./work.py:main", "ends the interpreter", marks=pytest.mark.long),
        pytest.param(
            GOOD + "@flow(name='bad-input')\ndef twin(): pass\n",
            "./work.py:main",
            "are both named 'bad-input'",
            marks=pytest.mark.long,
        ),
        pytest.param(
            GOOD.replace("bad-input", "a/b"), "./work.py:main", "work.py:3: InvalidNameError", marks=pytest.mark.long
        ),
    ],
)
def test_a_flow_that_cannot_be_loaded(
    project: Shell, folder: Path, source: str | None, entrypoint: str, words: str
) -> None:
    if source is not None:
        (folder / "work.py").write_text(source)
    assert words in one_line(project.inside("build", entrypoint, "-n", "x"), 3)
    untouched(folder)


def test_a_flow_that_ends_its_process(project: Shell, folder: Path) -> None:
    (folder / "work.py").write_text(GOOD + "import os; os._exit(5)\n")
    assert "ends its process" in one_line(project("build", "./work.py:main", "-n", "x"), 3)
    untouched(folder)


def test_an_entrypoint_outside_the_folder(project: Shell, folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    assert "lies outside" in one_line(project("build", "../work.py:main", "-n", "x", folder=inner), 3)


@pytest.fixture(scope="module")
def known(stack: Shell, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A project whose flow a build has looked at, so that the next ones need not; what that build wrote is gone."""
    api_url = json.loads((stack.folder / ".shipway/stack.json").read_text())["api_url"]
    shell = Shell(tmp_path_factory.mktemp("known"), {**stack.environment, "PREFECT_API_URL": api_url})
    (shell.folder / "work.py").write_text(GOOD)
    shell.ok("build", "./work.py:main", "-n", "x")
    for path in shell.folder.glob("bad-input-*"):
        path.unlink()
    return shell


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-n", "a/b"), "may not hold '/'"),
        (("-n", " "), "may not be empty"),
        (("-n", "n" * 300), "at most 255"),
        (("-n", "x", "-t", "a/b"), "may not hold '/'"),
        (("-n", "x", "--cron", "61 * * * *"), "not a cron expression"),
        (("-n", "x", "--cron", "* * * * * *"), "of five fields"),
        (("-n", "x", "--rrule", "FREQ=SOMETIMES"), "not a recurrence rule"),
        (("-n", "x", "--interval", "soon"), "not an interval"),
        (("-n", "x", "--interval", "0"), "at least one second"),
        (("-n", "x", "--cron", "0 6 * * *", "--timezone", "Mars/Olympus"), "not a time zone"),
        (("-n", "x", "--timezone", "UTC"), "without a schedule"),
        (("-n", "x", "-p", "m=1"), "has no parameter 'm'; it takes n, label"),
        (("-n", "x", "-p", "n=one"), "parameter n does not fit"),
        (("-n", "x", "-p", "n"), "is not KEY=VALUE"),
        (("-n", "x", "-sb", "nothing"), "does not name a storage block"),
        (("-n", "x", "-sb", "gcs/x"), "does not name a storage block"),
    ],
)
def test_options_that_cannot_be(known: Shell, options: tuple[str, ...], words: str) -> None:
    assert words in one_line(known.inside("build", "./work.py:main", *options), 3)
    untouched(known.folder)


def test_unusual_names_work(project: Shell, folder: Path) -> None:
    names = ["with spaces", "ünïcödé-☂", "n" * 255]
    for name in names:
        project.ok("deploy", "./work.py:main", "-n", name, "-t", name)
        project.ok("inspect", f"bad-input/{name}")
    assert {f"bad-input/{name}" for name in names} <= {row["deployment"] for row in project.json("ls")}


def test_half_a_character_does_not_get_into_the_server(project: Shell, folder: Path) -> None:
    """It would keep one, and answer 500 to every worker that asks for its runs."""
    project.ok("deploy", "./work.py:main", "-n", "half", "-p", "n=1")
    # What is no UTF-8 on a command line becomes one.
    for command in (("run", "bad-input/half"), ("deploy", "./work.py:main", "-n", "other", "-p", "n=1")):
        assert "half a character" in one_line(project(*command, "-p", "label=\udcff"), 3)
    api = Api(Settings.load(folder, project.environment))
    deployment = api.deployment("bad-input/half")
    path = f"/deployments/{deployment['id']}/create_flow_run"
    request = urllib.request.Request(  # noqa: S310 - the stack's address
        f"{api.url}{path}",
        json.dumps({"parameters": {"label": "\ud800"}, "state": {"type": "PENDING"}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError, match="422"):
        urllib.request.urlopen(request, timeout=30)  # noqa: S310
    whole = {"n": 1, "label": "\U0001f600"}
    run = api.request("POST", path, {"parameters": whole, "state": {"type": "PENDING"}})
    assert run["parameters"] == whole
    project.ok("runs")
    api.request("DELETE", f"/flow_runs/{run['id']}")


def test_a_block_that_does_not_exist(project: Shell, folder: Path) -> None:
    line = one_line(project("build", "./work.py:main", "-n", "x", "-sb", "s3/nowhere"), 4)
    assert "there is no block s3/nowhere; there are " in line
    untouched(folder)


def test_a_server_that_does_not_run(project: Shell, folder: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    for command in (("ls",), ("build", "./work.py:main", "-n", "x"), ("run", "a/b"), ("runs",), ("worker", "start")):
        assert f"no Prefect API answers at {url}" in one_line(project(*command, PREFECT_API_URL=url), 5)
    untouched(folder)


def test_something_else_on_the_servers_port(project: Shell) -> None:
    ui = project.environment["PREFECT_API_URL"].removesuffix("/api")
    assert "check PREFECT_API_URL" in one_line(project("ls", PREFECT_API_URL=f"{ui}/nothing"), 5)


def own_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)
        listener.bind("s.sock")


def broken_link(folder: Path) -> None:
    (folder / "link").symlink_to("nothing")


def loop(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")


def secret(folder: Path) -> None:
    (folder / ".env").write_text("TOKEN=x\n")


def ignored_flow(folder: Path) -> None:
    (folder / ".shipwayignore").write_text("work.py\n*ignore\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (own_socket, "s.sock is a socket"),
        (broken_link, "link is a link to nothing, which does not exist"),
        (loop, "is a link in a loop"),
        (secret, ".env looks like a secret"),
        (ignored_flow, "holds no file to release"),
    ],
)
def test_folders_that_cannot_be_released(
    project: Shell, folder: Path, spoil: Callable[[Path], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    spoil(folder)
    assert words in one_line(project.inside("build", "./work.py:main", "-n", "x"), 3)
    untouched(folder)


def test_a_deployment_file_with_a_mistake_changes_nothing(project: Shell, folder: Path) -> None:
    project.ok("build", "./work.py:main", "-n", "x", "--cron", "0 6 * * *", "-p", "n=1")
    path = folder / "bad-input-deployment.yaml"
    text = path.read_text()
    for old, new, words, status in (
        ("work_queue:", "work_kueue:", ":15:1: unknown key 'work_kueue'", 3),
        ("store: s3/stack", "store: s3/gone", "there is no block s3/gone", 4),
        ("release: ", "release: 9.", "is not a Shipway release", 3),
    ):
        path.write_text(text.replace(old, new, 1))
        assert words in one_line(project("apply", path.name), status)
    assert "bad-input/x" not in {row["deployment"] for row in project.json("ls")}


def test_a_deployment_file_that_is_not_there(project: Shell) -> None:
    assert "nothing.yaml does not exist" in one_line(project("apply", "nothing.yaml"), 3)


def test_runs_and_artifacts_that_are_not_there(project: Shell, folder: Path) -> None:
    assert "there is no run 'nobody'" in one_line(project("show", "nobody"), 4)
    assert "there is no deployment 'a/b'" in one_line(project("run", "a/b"), 4)
    project.ok("deploy", "./work.py:main", "-n", "params")
    assert "needs a value for parameter 'n'" in one_line(project("run", "bad-input/params"), 3)
    assert "does not fit" in one_line(project("run", "bad-input/params", "-p", "n=x"), 3)


def test_a_store_that_refuses(project: Shell, stack: Shell, folder: Path) -> None:
    endpoint = json.loads((stack.folder / ".shipway/stack.json").read_text())["store"]["endpoint_url"]
    block = ("block", "s3", "refused", "--bucket-path", "refused", "--endpoint-url")
    keys = {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong-secret-value"}
    wrong = replace(project, environment={**project.environment, **keys})
    done = wrong(*block, endpoint)
    assert "wrong-secret-value" not in done.stdout + done.stderr
    assert "key" in one_line(done, 6)
    nobody = f"http://127.0.0.1:{free_port()}"
    assert nobody in one_line(wrong(*block, nobody), 6)
    one_line(wrong("block", "s3", "x", "--bucket-path", "Not_A_Bucket", "--endpoint-url", endpoint), 3)
    assert "there is no block s3/refused" in one_line(
        project("build", "./work.py:main", "-n", "x", "-sb", "s3/refused"), 4
    )


def test_a_store_folder_that_cannot_be_written(project: Shell, folder: Path) -> None:
    code = f"""
from prefect.filesystems import LocalFileSystem
LocalFileSystem(basepath={str(folder / "work.py")!r}).save("unwritable")
"""
    run_python(code, project)
    one_line(project("build", "./work.py:main", "-n", "x", "-sb", "local-file-system/unwritable"), 6)
    untouched(folder)


@pytest.mark.parametrize("name", ["a/b", "with space", "Ünïcode", "n" * 300, ""])
def test_block_names_that_cannot_be(project: Shell, name: str) -> None:
    """Refused before anything is made: there is no bucket of that name afterwards."""
    bucket = f"never-{uuid.uuid4().hex[:8]}"
    assert "a block cannot be named" in one_line(
        project.inside("block", "s3", name, "--bucket-path", bucket, "--stack"), 3
    )


@pytest.mark.long
def test_a_run_that_nobody_takes_says_why(project: Shell, folder: Path) -> None:
    pool = f"empty-{uuid.uuid4().hex[:8]}"
    project.ok("deploy", "./work.py:main", "-n", "waits", "-p", "n=1", "--pool", pool, "-t", "lonely")
    output = folder / "output"
    watching = project.start("run", "bad-input/waits", "--watch", output=output)
    try:
        wait_until(lambda: "start one with `shipway worker start -q lonely`" in output.read_text())
    finally:
        watching.terminate()
        watching.wait(timeout=30)
