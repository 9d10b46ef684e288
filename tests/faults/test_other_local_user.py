"""What another user of the same machine gets at: nothing. Tried by a process that is one; only root can start that."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipway.errors import InputError
from shipway.prefect.imports import Learnt
from shipway.prefect.scratch import Scratch, sweep
from shipway.settings import Settings
from shipway.stack.manager import acquire
from shipway.stack.process import Child
from shipway.stack.seaweed import SeaweedPorts
from shipway.stack.secrets import Secrets
from shipway.stack.service import Service, store_service

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

TRY = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
got = []
for path in json.load(sys.stdin):
    try:
        if path.endswith(".sock"):
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(path)
        elif os.path.isdir(path):
            os.listdir(path)
        else:
            open(path, "rb").close()
        got.append(path)
    except OSError:
        pass
    try:
        fd = os.open(path + ("/planted" if os.path.isdir(path) else ".planted"), os.O_CREAT | os.O_WRONLY)
        if not path.endswith(".sock"):
            got.append(path + " (written)")
        os.unlink(path + ("/planted" if os.path.isdir(path) else ".planted"))
    except OSError:
        pass
print(json.dumps(got))
"""


def reached(*paths: Path) -> list[str]:
    """Return which of these another user could open, connect to, or write beside."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", TRY],
        input=json.dumps([str(path) for path in paths]),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.fixture
def commons(tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody can enter, as a project folder may be; pytest's own cannot be."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="shipway-commons-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_try_is_a_real_one(commons: Path) -> None:
    open_to_all = commons / "open"
    open_to_all.write_text("x")
    (commons / "shut").touch(mode=0o600)
    assert reached(open_to_all, commons / "shut") == [str(open_to_all)]


def test_sockets_and_files_of_the_object_store(commons: Path) -> None:
    """Even where the person's umask lets everybody in."""
    settings = Settings(project=commons)
    state = settings.make_state()
    (state / "logs").mkdir(mode=0o700)
    ports = SeaweedPorts.free()
    before = os.umask(0)
    try:
        service = store_service(settings, Secrets.random(), state / "store", ports)
        child = Child(service, state / "logs/store.log")
    finally:
        os.umask(before)
    grpc = {"master": ports.master_grpc, "volume": ports.volume_grpc, "filer": ports.filer_grpc, "s3": ports.s3_grpc}
    sockets = [Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock") for part, port in grpc.items()]
    try:
        _wait_for(sockets, child)
        assert all(stat.S_ISSOCK(path.stat().st_mode) and not path.stat().st_mode & 0o077 for path in sockets)
        assert reached(*sockets, state, state / "store", state / "store/s3.json", state / "logs/store.log") == []
        # Root gets in where nobody does not, so that it is the mode which keeps others out.
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(sockets[0]))
    finally:
        child.kill()
        child._process.wait()
        for path in sockets:
            path.unlink(missing_ok=True)


def _wait_for(paths: list[Path], child: Child) -> None:
    import time

    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, child.output()
        time.sleep(0.05)


def test_a_service_makes_its_files_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        argv = (sys.executable, "-c", "open('made', 'w').close()")
        service = Service("x", argv, dict(os.environ), tmp_path, lambda _said: True, umask=0o077)
        child = Child(service, tmp_path / "log")
        child._process.wait()
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600


def test_the_folders_of_a_worker(commons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(commons))
    with Scratch() as scratch:
        (scratch.folder / "code.py").write_text("x")
        assert reached(scratch.folder, scratch.folder / "lock", scratch.folder / "code.py") == []


def test_what_somebody_plants_as_a_workers_folder_is_left_alone(commons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link named like one must not lead the removal of dead workers' folders anywhere."""
    monkeypatch.setattr("tempfile.tempdir", str(commons))
    victim = commons / "victim"
    victim.mkdir()
    (victim / "lock").touch()
    (commons / "shipway-worker-planted").symlink_to(victim)
    foreign = commons / "shipway-worker-foreign"
    foreign.mkdir()
    (foreign / "lock").touch()
    os.chown(foreign, NOBODY, NOBODY)
    sweep()
    assert (victim / "lock").exists()
    assert (foreign / "lock").exists()


@pytest.mark.parametrize("name", ["shipway.toml", ".shipway"])
def test_configuration_planted_above_a_project_is_refused(commons: Path, name: str) -> None:
    """Whoever may say which server to talk to gets what is sent to it, and chooses the code that runs."""
    mine = commons / "mine"
    mine.mkdir()
    planted = commons / name
    if name == ".shipway":
        planted.mkdir(mode=0o777)
        (planted / "stack.json").write_text(json.dumps({"api_url": "http://evil.example/api", "auth": False}))
    else:
        planted.write_text('api_url = "http://evil.example/api"\n')
    os.chown(planted, NOBODY, NOBODY)
    with pytest.raises(InputError, match="belongs to another user") as caught:
        Settings.load(mine, {"PREFECT_HOME": str(commons)})
    assert str(planted) in str(caught.value)
    # A link is judged by who made it, not by what it leads to.
    if name == "shipway.toml":
        planted.unlink()
        planted.symlink_to("/etc/hostname")
        os.chown(planted, NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(InputError, match="belongs to another user"):
            Settings.load(mine, {"PREFECT_HOME": str(commons)})
    # A project of one's own below it needs no other.
    (mine / "shipway.toml").write_text("keep_days = 3\n")
    assert Settings.load(mine, {"PREFECT_HOME": str(commons)}).keep_days == 3


def test_a_folder_one_has_chosen_to_work_in_is_trusted(commons: Path) -> None:
    """As in a container, where root works in a mounted folder of somebody else."""
    (commons / "shipway.toml").write_text("keep_days = 3\n")
    for path in (commons, commons / "shipway.toml"):
        os.chown(path, NOBODY, NOBODY)
    assert Settings.load(commons, {"PREFECT_HOME": str(commons)}).keep_days == 3


@pytest.mark.parametrize("harm", ["owner", "mode"])
def test_a_state_folder_that_others_can_use_is_refused(tmp_path: Path, harm: str) -> None:
    state = tmp_path / ".shipway"
    state.mkdir(mode=0o700)
    if harm == "owner":
        os.chown(state, NOBODY, NOBODY)
    else:
        state.chmod(0o770)
    with pytest.raises(InputError, match="others may write to it"):
        Settings(project=tmp_path).make_state()


@pytest.mark.parametrize("harm", ["owner", "mode"])
@pytest.mark.parametrize("name", ["", "stack.json", "secrets.json"])
def test_no_command_uses_what_others_may_have_written_as_the_stack(tmp_path: Path, name: str, harm: str) -> None:
    state = Settings(project=tmp_path).make_state()
    (state / "stack.json").write_text('{"api_url": "http://127.0.0.1:1/api", "auth": true}')
    (state / "secrets.json").write_text('{"auth_string": "me:theirs"}')
    for path in state.glob("*.json"):
        path.chmod(0o600)
    environ = {"PREFECT_HOME": str(tmp_path)}
    assert Settings.load(tmp_path, environ).auth_string == "me:theirs"
    if harm == "owner":
        os.chown(state / name, NOBODY, NOBODY)
    else:
        (state / name).chmod(0o770)
    with pytest.raises(InputError, match="could choose the server and the code for you"):
        Settings.load(tmp_path, environ)


@pytest.mark.parametrize("harm", ["owner", "mode"])
def test_the_stack_does_not_begin_in_a_folder_that_others_may_have_filled(tmp_path: Path, harm: str) -> None:
    state = Settings(project=tmp_path).make_state()
    if harm == "owner":
        os.chown(state, NOBODY, NOBODY)
    else:
        state.chmod(0o777)
    with pytest.raises(InputError, match="others may write to it"):
        acquire(Settings(project=tmp_path))
    assert not (state / "server").exists()


def test_a_state_folder_that_others_could_look_into_is_shut(tmp_path: Path) -> None:
    (tmp_path / ".shipway").mkdir(mode=0o755)
    assert Settings(project=tmp_path).make_state().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("harm", ["owner", "mode", "parent"])
def test_imports_that_others_could_have_written_are_not_used(tmp_path: Path, harm: str) -> None:
    cache = tmp_path / "cache"
    wishes = tmp_path / "wishes"
    wishes.write_text(json.dumps({"seconds": 1.0, "modules": ["json"]}))
    Learnt(cache / "imports").learn("d", wishes)
    assert Learnt(cache / "imports").modules("d") == ("json",)
    if harm == "owner":
        os.chown(cache / "imports", NOBODY, NOBODY)
    else:
        (cache if harm == "parent" else cache / "imports").chmod(0o777)
    assert Learnt(cache / "imports").modules("d") == ()
    assert Learnt(cache / "imports").recent(3) == []
