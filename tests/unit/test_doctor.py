"""The checks of `shipway doctor` that need no server, each on something that is really broken."""

from __future__ import annotations

import json
import os
import py_compile
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from shipway.doctor import Finding, examine, installation, machine, project, stores, surroundings
from shipway.errors import StoreError
from shipway.settings import Settings
from shipway.stack import ProcessFacts, ServiceFacts, StackFacts, write_facts
from shipway.stack.process import created_at, this_process
from shipway.stack.seaweed import SeaweedPorts, socket_paths
from shipway.stack.secrets import load_or_make_secrets
from shipway.store.base import ObjectInfo
from shipway.store.folder import FolderStore
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig

AWS_ID = "AKIA" + "Z7" * 8
AWS_KEY = "b/7" * 13 + "x"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(project=tmp_path / "project", cache=str(tmp_path / "cache"))


@pytest.fixture
def state(settings: Settings) -> Path:
    settings.make_state()
    load_or_make_secrets(settings.secrets_file)
    return settings.state


def one(findings: Iterable[Finding]) -> Finding:
    found = list(findings)
    assert len(found) == 1, found
    return found[0]


def levels(findings: Iterable[Finding]) -> set[str]:
    return {finding.level for finding in findings}


def mend(finding: Finding) -> None:
    """Do what a finding says, as a person would."""
    subprocess.run(["sh", "-c", finding.mend], check=True, timeout=60)


def dead() -> ProcessFacts:
    """Describe a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    facts = ProcessFacts(process.pid, created_at(process.pid))
    process.wait()
    return facts


def describe(settings: Settings, supervisor: ProcessFacts, *services: ServiceFacts, url: str = "http://x/api") -> None:
    store = StoreConfig(kind="folder", path=settings.state / "store")
    write_facts(settings, StackFacts("ready", url, "http://x", "127.0.0.1", None, store, supervisor, services))


# The frame


def test_checks_are_carried_out_side_by_side_in_their_order_and_none_can_hurt_the_others() -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("broken", "ok", "so far so good")
        raise ValueError("password=hunter2")

    def refused() -> Iterator[Finding]:
        raise StoreError("the bucket is on fire", hint="put it out")

    def _slowly() -> list[Finding]:
        time.sleep(60)
        return []

    began = time.monotonic()
    found = examine(
        {
            "slow": _slowly,
            "broken": broken,
            "refused": refused,
            "good": lambda: [Finding("good", "ok", "fine")],
        },
        limit=0.5,
    )
    assert time.monotonic() - began < 30
    assert [(each.check, each.level) for each in found] == [
        ("slow", "error"), ("broken", "ok"), ("broken", "error"), ("refused", "error"), ("good", "ok"),
    ]  # fmt: skip
    assert "ValueError" in found[2].what
    assert "hunter2" not in str(found)
    assert (found[3].what, found[3].why) == ("the bucket is on fire", "put it out")


# Installation


@contextmanager
def installed(folder: Path, name: str, version: str) -> Iterator[None]:
    """Have a package of that version found before the one that is installed."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    yield
    shutil.rmtree(info)


def test_a_python_out_of_range_is_found() -> None:
    assert one(installation.python_version()).level == "ok"
    for version in ("3.10.14", "3.15.0"):
        finding = one(installation.python_version(version))
        assert finding.level == "error"
        assert version in finding.what


def test_packages_outside_their_ranges_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(installation.requirements()) == {"ok"}
    monkeypatch.syspath_prepend(str(tmp_path))
    with installed(tmp_path, "fastapi", "0.165.0"):
        finding = one(installation.requirements())
        assert (finding.level, "fastapi 0.165.0" in finding.what) == ("error", True)
        assert "'fastapi<0.151,>=0.139'" in finding.mend


def test_another_prefect_is_explained_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with installed(tmp_path, "prefect", "3.9.1"):
        finding = one(installation.requirements())
    assert "prefect 3.9.1" in finding.what
    assert "process pool" in finding.why
    assert "`command`" in finding.why
    assert "'prefect<3.8.9,>=3.8.8'" in finding.mend


def test_drift_from_the_lock_is_found(settings: Settings) -> None:
    settings.project.mkdir()
    assert one(installation.lock(settings)).level == "ok"
    path = settings.project / "requirements.lock"
    click = installation._installed("click")
    path.write_text(
        f"click=={click} \\\n    --hash=sha256:{'0' * 64}\n"
        "pywin32==1 ; sys_platform == 'win32' \\\n    --hash=sha256:1\n# a comment\n-r other.txt\n"
    )
    assert one(installation.lock(settings)).what == "1 packages as requirements.lock has them"
    path.write_text(path.read_text() + f"rich==1.2.3 \\\n    --hash=sha256:{'0' * 64}\nno-such-package==1\n")
    finding = one(installation.lock(settings))
    assert finding.level == "warning"
    assert "2 of 3" in finding.what
    assert "(lock: 1.2.3)" in finding.what
    assert "no-such-package missing" in finding.what
    assert finding.mend.endswith(f"--require-hashes -r {path}")


def test_missing_bytecode_is_found_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "heavy_one"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "a.py", "inner/__init__.py", "inner/b.py"):
        (package / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    py_compile.compile(str(package / "a.py"))
    finding = one(installation.bytecode(["heavy_one", "not_installed"]))
    assert (finding.level, "heavy_one" in finding.what) == ("warning", True)
    mend(finding)
    assert one(installation.bytecode(["heavy_one"])).level == "ok"


def test_a_missing_s3_server_is_told_according_to_what_it_holds(
    settings: Settings, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in an environment without the wheel: no executable beside Python, no package.
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setattr("shipway.stack.seaweed.PACKAGE", "no-such-package")
    assert one(installation.s3_server(settings)).level == "note"
    (state / "store").mkdir()
    (state / "store/s3.json").touch()
    finding = one(installation.s3_server(settings))
    assert (finding.level, "shipway[stack]" in finding.mend) == ("error", True)


# Machine


def test_a_full_disk_is_found(tmp_path: Path) -> None:
    folders = {"the state": (tmp_path / "not/yet", "make room"), "the cache": (tmp_path, "other room")}
    free = shutil.disk_usage(tmp_path).free
    finding = one(machine.disk(folders, least=free * 2))
    assert (finding.level, finding.mend) == ("warning", "make room")
    assert "the state and of the cache" in finding.what
    assert one(machine.disk(folders, least=1)).level == "ok"


def test_too_few_descriptors_are_found() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        finding = one(machine.descriptors())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (finding.level, finding.mend.startswith(("ulimit -n ", "sudo prlimit"))) == ("warning", True)
    assert "200" in finding.what


def test_a_taken_port_is_found_with_who_has_it(settings: Settings, state: Path) -> None:
    with socket.socket() as server, socket.socket() as free:
        server.bind(("127.0.0.1", 0))
        server.listen()
        free.bind(("127.0.0.1", 0))
        port, other = server.getsockname()[1], free.getsockname()[1]
        free.close()
        taken = replace(settings, server_port=port, store_port=other)
        finding = one(machine.ports(taken))
        assert finding.level == "warning"
        assert f"port {port}" in finding.what
        assert f"(pid {os.getpid()})" in finding.what
        assert "--port" in finding.mend
        settings.secrets_file.unlink()
        assert one(machine.ports(taken)).level == "note", "no stack was ever started here"
    assert one(machine.ports(taken)).level == "ok"


def test_the_ports_of_the_stack_itself_are_no_fault(settings: Settings, state: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        describe(settings, this_process())
        assert one(machine.ports(replace(settings, server_port=server.getsockname()[1]))).level == "ok"


# Project


def test_a_new_folder_is_well(settings: Settings) -> None:
    settings.project.mkdir()
    checks: list[Callable[[Settings], Iterator[Finding]]] = [
        project.permissions, project.leftovers, surroundings.profile, surroundings.environment,
        surroundings.secrets_in_files, installation.lock,
    ]  # fmt: skip
    for check in checks:
        # The tests themselves may set variables: that is a note.
        assert levels(check(settings)) <= {"ok", "note"}


@pytest.mark.parametrize(("name", "mode"), [(".shipway", 0o755), (".shipway/secrets.json", 0o644), ("", 0o770)])
def test_what_others_can_read_is_found_and_mended(settings: Settings, state: Path, name: str, mode: int) -> None:
    path = settings.project / name if name else settings.cache_folder
    settings.cache_folder.mkdir(mode=0o700)
    assert levels(project.permissions(settings)) == {"ok"}
    path.chmod(mode)
    finding = one(project.permissions(settings))
    assert (finding.level, str(path) in finding.what) == ("error", True)
    mend(finding)
    assert levels(project.permissions(settings)) == {"ok"}


def test_a_closed_folder_is_found_and_mended(settings: Settings, state: Path) -> None:
    state.chmod(0o500)
    finding = one(project.permissions(settings))
    mend(finding)
    assert levels(project.permissions(settings)) == {"ok"}


def test_secrets_behind_a_link_are_found_and_mended(settings: Settings, state: Path, tmp_path: Path) -> None:
    content = settings.secrets_file.read_bytes()
    settings.secrets_file.rename(tmp_path / "elsewhere")
    settings.secrets_file.symlink_to(tmp_path / "elsewhere")
    finding = one(project.permissions(settings))
    assert "is a link" in finding.what
    if sys.platform == "linux":
        mend(finding)
        assert levels(project.permissions(settings)) == {"ok"}
        assert settings.secrets_file.read_bytes() == content


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_somebody_else_is_found(settings: Settings, state: Path) -> None:
    (state / "ports.json").write_text("{}")
    os.chown(state / "ports.json", 65534, 65534)
    finding = one(project.permissions(settings))
    assert f"{state / 'ports.json'} belongs to" in finding.what
    assert finding.mend.startswith("sudo chown -R 0:")


def test_what_a_killed_supervisor_left_is_found(settings: Settings, state: Path) -> None:
    describe(settings, dead(), ServiceFacts("server", "ready", this_process(), 4200, 0))
    finding = one(project.leftovers(settings))
    assert (finding.level, finding.mend) == ("error", "shipway down")
    assert f"server (pid {os.getpid()})" in finding.what


def test_a_service_that_died_is_found_and_a_stack_that_is_well_is_not(settings: Settings, state: Path) -> None:
    describe(settings, this_process(), ServiceFacts("server", "ready", dead(), 4200, 3))
    finding = one(project.leftovers(settings))
    assert (finding.level, finding.mend) == ("warning", "shipway logs server")
    describe(settings, this_process(), ServiceFacts("server", "ready", this_process(), 4200, 0))
    assert one(project.leftovers(settings)).level == "ok"


def test_a_damaged_description_is_found_and_mended(settings: Settings, state: Path) -> None:
    settings.stack_file.write_text('{"state": "rea')
    finding = one(project.leftovers(settings))
    assert finding.level == "error"
    mend(finding)
    assert one(project.leftovers(settings)).level == "ok"


def test_sockets_that_nobody_listens_at_are_found_and_mended(settings: Settings, state: Path) -> None:
    ports = SeaweedPorts(*range(1, 9))
    (state / "ports.json").write_text(json.dumps(asdict(ports)))
    path = socket_paths(state / "store", ports)[-1]
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            assert one(project.leftovers(settings)).level == "ok", "somebody listens"
        finding = one(project.leftovers(settings))
        assert (finding.level, str(path) in finding.what) == ("warning", True)
        mend(finding)
        assert not path.exists()
        assert one(project.leftovers(settings)).level == "ok"
    finally:
        shutil.rmtree(path.parent)


# Surroundings


def test_a_variable_that_overrides_the_stack_is_found(settings: Settings, state: Path) -> None:
    describe(settings, this_process(), url="http://127.0.0.1:4200/api")
    environ = {"PREFECT_API_URL": "http://me:hunter2@other:4200/api", "PREFECT_API_KEY": "pnu_hunter2"}
    first, second = surroundings.environment(settings, environ)
    assert (first.level, first.mend) == ("warning", "unset PREFECT_API_URL")
    assert "http://other:4200/api" in first.what
    assert (second.level, "PREFECT_API_KEY" in second.what) == ("note", True)
    assert "hunter2" not in f"{first}{second}"
    same = {"PREFECT_API_URL": "http://localhost:4200/api/"}
    assert levels(surroundings.environment(settings, same)) == {"ok"}


def test_an_old_profile_is_found(settings: Settings, state: Path, tmp_path: Path) -> None:
    home = {"PREFECT_HOME": str(tmp_path / "home")}
    assert one(surroundings.profile(settings, home)).level == "ok"
    path = tmp_path / "home/profiles.toml"
    path.parent.mkdir()
    path.write_text('active = "old"\n[profiles.old]\nPREFECT_API_URL = "http://127.0.0.1:4321/api"\n')
    assert one(surroundings.profile(settings, home)).level == "ok", "there is no stack that it could miss"
    describe(settings, this_process(), url="http://127.0.0.1:4200/api")
    finding = one(surroundings.profile(settings, home))
    assert finding.level == "warning"
    assert "http://127.0.0.1:4321/api" in finding.what
    assert "--profile old config set PREFECT_API_URL=http://127.0.0.1:4200/api" in finding.mend
    path.write_text(path.read_text().replace("127.0.0.1:4321", "api.prefect.cloud"))
    assert one(surroundings.profile(settings, home)).level == "note", "somebody else's server is a choice"
    path.write_text("active = ")
    finding = one(surroundings.profile(settings, home))
    mend(finding)
    assert one(surroundings.profile(settings, home)).level == "ok"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("shipway.toml", f'store = "{AWS_ID}"', "an AWS access key"),
        ("flow.py", f'aws_secret_access_key = "{AWS_KEY}"', "an AWS secret key"),
        ("notes.md", "-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        (".env", f"PREFECT_API_KEY=pnu_{'a1' * 18}", "a key of Prefect Cloud"),
    ],
)
def test_keys_in_files_are_found_and_not_repeated(settings: Settings, name: str, text: str, kind: str) -> None:
    settings.project.mkdir()
    (settings.project / name).write_text(f"first line\n{text}\n")
    finding = one(surroundings.secrets_in_files(settings))
    assert finding.level == "warning"
    assert finding.what == f"{settings.project / name}:2 looks like {kind}"
    assert AWS_ID not in str(finding)
    assert AWS_KEY not in str(finding)


def test_what_only_looks_like_a_key_is_none_and_nothing_stops_the_search(settings: Settings) -> None:
    folder = settings.project
    for name in (".shipway", "env"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.py").write_text(AWS_ID)
    (folder / "env/pyvenv.cfg").touch()
    (folder / "docs.md").write_text("AKIAIOSFODNN7EXAMPLE and wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    os.mkfifo(folder / "pipe.txt")
    (folder / "link.py").symlink_to(folder / ".shipway/a.py")
    (folder / "closed.py").touch(mode=0o000)
    (folder / "binary.json").write_bytes(os.urandom(4096))
    assert one(surroundings.secrets_in_files(settings)).level == "ok"


def test_a_search_that_takes_too_long_says_so(settings: Settings) -> None:
    settings.project.mkdir()
    (settings.project / "a.py").touch()
    assert "note" in levels(surroundings.secrets_in_files(settings, seconds=-1))


# Store


class ForgetfulStore(FolderStore):
    """A store that ignores `If-Match`."""

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        return self.put(key, data)


class LateStore(FolderStore):
    """A store whose clock is a minute slow."""

    def head(self, key: str) -> ObjectInfo:
        from datetime import timedelta

        info = super().head(key)
        return replace(info, modified=info.modified - timedelta(seconds=60))


def test_a_store_that_is_well(folder_store: FolderStore, s3_store: ObjectStore) -> None:
    for each in (folder_store, s3_store):
        assert [finding.level for finding in stores.store(each, "s3/x")] == ["ok", "ok"]
        assert list(each.list()) == []


def test_a_store_without_conditional_writes_is_found(tmp_path: Path) -> None:
    finding = one(stores.store(ForgetfulStore(tmp_path), "s3/prod"))
    assert (finding.level, "If-Match" in finding.what) == ("error", True)
    assert finding.mend == "shipway block s3 prod --bucket-path BUCKET"


def test_a_bucket_that_is_not_there_is_found(s3_store: ObjectStore, s3_server: object) -> None:
    gone = ObjectStore(s3_server.config("no-such-bucket"), retry_seconds=1)  # type: ignore[attr-defined]
    finding = one(stores.store(gone, "s3/prod"))
    assert (finding.level, "'no-such-bucket' does not exist" in finding.what) == ("error", True)


def test_clocks_that_differ_are_found(tmp_path: Path) -> None:
    _, finding = stores.store(LateStore(tmp_path), "s3/x")
    assert finding.level == "warning"
    assert "60 s ahead of" in finding.what
    _, finding = stores.store(FolderStore(tmp_path), "s3/x", clock=lambda: time.time() - 86_400)
    assert finding.level == "error"
    assert "24.0 hours behind" in finding.what
    assert stores.skew("x", 3).level == "ok"
