"""What people and programs hand in: files, settings, names, parameters, messages; errors of ours, or a usable value."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tests.property.fuzzing import budget, damaged, documents, encoded, nearly, only, texts, values

from shipway.artifact import check_name, key_path
from shipway.deployment.parameters import check_parameters, parse_parameters
from shipway.deployment.prefect2 import Translated, is_prefect2, translate
from shipway.deployment.spec import DeploymentSpec, make_spec, read
from shipway.digest import sha256_bytes
from shipway.errors import DeploymentFileError, InputError, ParameterError, ShipwayError, StackError
from shipway.prefect.imports import Learnt
from shipway.release.index import Index
from shipway.settings import Settings
from shipway.stack import ProcessFacts, StackFacts, facts
from shipway.stack.manager import read_supervisor
from shipway.stack.seaweed import SeaweedPorts, socket_paths
from shipway.stack.secrets import Secrets
from shipway.stack.service import store_ports
from shipway.store.url import check_key, parse_address, parse_bucket_path
from shipway.worker import wire

SHA = sha256_bytes(b"")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def yaml_text(value: object) -> bytes:
    out = io.BytesIO()
    yaml = YAML(typ="safe", pure=True)
    try:
        yaml.dump(value, out)
    except Exception:  # noqa: BLE001 - it is not for YAML; JSON nearly is
        return json.dumps(value).encode()
    return out.getvalue()


SPEC = {
    "name": "n", "flow": "f", "description": "d", "tags": ["t"], "store": "s3/x", "work_pool": "p", "work_queue": "q",
    "parameters": {"n": 1}, "concurrency_limit": 1, "job_variables": {"env": {"A": "b"}}, "release": f"1.{SHA}",
    "schedules": [{"cron": "0 6 * * 1", "timezone": "Europe/Berlin"}, {"interval": "1h30m"}, {"rrule": "FREQ=DAILY"}],
    "entrypoint": "a.py:main",
    "parameter_openapi_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}  # fmt: skip

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
"""Twelve lines that stand for 30 billion values."""

pieces = st.sampled_from(
    ["a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", "&a ", "*a", "!!", "!!binary ", "!!timestamp ", "!!python/none ",
     "|", ">", "'", '"', "#", "? ", "2001-99-99", "1_000", "0x", "~", "\t", "%", "---", "...", "<<: ", "é", "\0"]
)  # fmt: skip


def yamls(document: object) -> st.SearchStrategy[bytes]:
    return st.one_of(
        nearly(document).map(yaml_text),
        nearly(document).map(yaml_text),
        damaged(yaml_text(document)),
        st.lists(pieces, max_size=30).map(lambda parts: "".join(parts).encode()),
    )


@budget
@given(yamls(SPEC))
@example(BOMB.encode())
@example(b"&a [*a]")
@example(b"&a {a: *a}")
@example(b"[" * 5000)
@example(b"- " * 5000)
@example(b"a: 2001-99-99")
@example(b"a: !!int x")
@example(b"? [a]\n: b")
def test_deployment_file(folder: Path, data: bytes) -> None:
    path = folder / "x-deployment.yaml"
    path.write_bytes(data)
    spec = only(DeploymentFileError, lambda: read(path))
    if isinstance(spec, DeploymentSpec):
        # What commands do with one.
        assert spec.full_name
        assert spec.version
        assert all(schedule.slug and schedule.text for schedule in spec.schedules)


PREFECT2 = {
    "name": "n", "flow_name": "f", "manifest_path": None, "work_queue_name": "q", "tags": ["t"], "parameters": {},
    "schedule": {"cron": "0 0 * * *", "timezone": "UTC"}, "is_schedule_active": True,
    "infra_overrides": {"env": {"A": "b"}}, "infrastructure": {"type": "process", "env": {}},
    "storage": {"_block_type_slug": "s3", "_block_document_name": "x"}, "entrypoint": "./a.py:main", "path": "",
}  # fmt: skip


@budget
@given(yamls(PREFECT2))
@example(yaml_text({**PREFECT2, "storage": ["x"]}))
@example(yaml_text({**PREFECT2, "schedule": "daily"}))
@example(yaml_text({**PREFECT2, "infra_overrides": "x"}))
@example(yaml_text({**PREFECT2, "infrastructure": 7}))
def test_deployment_file_of_prefect_2(folder: Path, data: bytes) -> None:
    path = folder / "old-deployment.yaml"
    path.write_bytes(data)
    if is_prefect2(path):
        translated = only(DeploymentFileError, lambda: translate(path))
        if isinstance(translated, Translated):
            only(ValueError, lambda: make_spec({**translated.values, "release": f"1.{SHA}"}))


messages: list[wire.Message] = [
    wire.Preload(("a",), ("b:c",)),
    wire.Order(1, "a:b", "x", {"A": "b"}, "/"),
    wire.Ready(1.0, 2, ()),
    wire.Forked(1, 2),
    wire.Ended(1, 0, 1.0, 2),
]
orders = st.sampled_from([json.loads(wire.encode(message)) for message in messages])


@budget
@given(orders.flatmap(documents))
@example(b'{"type":"Retire","x":' + b"[" * 100_000)
def test_message(data: bytes) -> None:
    message = only(ValueError, lambda: wire.decode(data))
    if message is not None:
        assert isinstance(message, msgspec.Struct)


@budget
@given(st.binary(min_size=8, max_size=8))
@example(struct.pack("!Q", 1 << 63))
def test_length_of_a_message(data: bytes) -> None:
    length = only(ValueError, lambda: wire.length_of(data))
    assert length is None or 0 <= int(str(length)) <= wire.MAX_BYTES


TOML = b'api_url = "http://127.0.0.1:4200/api"\nstore = "s3/x"\nserver_port = 4200\nkeep_days = 3\ncache = "~/c"\n'
PROFILES = b'active = "x"\n[profiles.x]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"\n'
names = st.sampled_from(["SHIPWAY_SERVER_PORT", "SHIPWAY_STORE", "PREFECT_API_URL", "PREFECT_PROFILE", "SHIPWAY_NOPE"])


def tomls(text: bytes) -> st.SearchStrategy[bytes]:
    some = st.sampled_from(["a", "=", "[", "]", '"', "1", "\n", "{", "}", ".", "'''", "#", "9" * 5000, "profiles"])
    return damaged(text) | st.lists(some, max_size=20).map(lambda parts: "".join(parts).encode())


@budget
@given(tomls(TOML), tomls(PROFILES), values.map(json.dumps), st.dictionaries(names, texts, max_size=3))
@example(b"x = " + b"[" * 10_000, b"", "{}", {})
@example(b"server_port = " + b"9" * 5000, b"", "{}", {})
@example(b"", b"profiles = 7", "{}", {})
@example(b"", b"active = [1]\n[profiles]\nx = 3", "[]", {})
def test_settings(folder: Path, toml: bytes, profiles: bytes, stack: str, environ: dict[str, str]) -> None:
    home = folder / "home"
    for path, data in (
        (folder / "shipway.toml", toml),
        (home / "profiles.toml", profiles),
        (folder / ".shipway/stack.json", stack.encode()),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    found = only(InputError, lambda: Settings.load(folder, {**environ, "PREFECT_HOME": str(home)}))
    if isinstance(found, Settings):
        assert isinstance(found.server_port, int)
        assert found.prefect_environment()["PREFECT_API_URL"]


SECRETS = asdict(Secrets.random())
STACK = {
    "state": "ready", "api_url": "http://127.0.0.1:4200/api", "ui_url": "http://127.0.0.1:4200", "host": "127.0.0.1",
    "auth": True, "store": {"kind": "s3", "endpoint_url": "http://127.0.0.1:4333", "bucket": "shipway"},
    "supervisor": {"pid": 1 << 30, "created": 1.0},
    "services": [{"name": "server", "state": "ready", "pid": 1 << 30, "created": 1.0, "port": 4200, "restarts": 0}],
}  # fmt: skip
DEEP = b"[" * 100_000


@budget
@given(documents(STACK), documents(SECRETS) | st.just(encoded(SECRETS)))
@example(DEEP, encoded(SECRETS))
@example(encoded(STACK), DEEP)
@example(encoded({**STACK, "supervisor": {"pid": "7", "created": 1.0}}), encoded(SECRETS))
@example(encoded({**STACK, "supervisor": {"pid": 1 << 70, "created": 1.0}}), encoded(SECRETS))
@example(encoded({**STACK, "store": {"kind": "folder", "path": 7}}), encoded(SECRETS))
@example(encoded({**STACK, "store": {"kind": "s3", "endpoint_url": "x"}}), encoded(SECRETS))
def test_files_of_the_stack(folder: Path, stack: bytes, secrets: bytes) -> None:
    project = folder / "stack"
    project.mkdir(exist_ok=True)
    state = Settings(project=project).make_state()
    (project / "shipway.toml").write_text("")
    for name, data in (("stack.json", stack), ("secrets.json", secrets)):
        (state / name).write_bytes(data)
        (state / name).chmod(0o600)
    found = only(ShipwayError, lambda: Settings.load(project, {"PREFECT_HOME": str(folder / "none")}))
    if isinstance(found, Settings):
        assert found.api_url.strip() is not None
        known = only(ShipwayError, lambda: facts(found))
        if isinstance(known, StackFacts):
            # What `status` does with it.
            assert json.dumps([known.public(), known.running, [service.true_state for service in known.services]])


PORTS = asdict(SeaweedPorts.free())
LEARNT = {"seconds": 1.0, "modules": ["json", "os.path"]}
INDEX = {"version": 1, "written_ns": 1, "files": {"a.py": [1, 2, 3, 4, 5, SHA]}}


@budget
@given(documents(PORTS), documents({"pid": 1 << 30, "created": 1.0}), documents(LEARNT), documents(INDEX))
@example(DEEP, DEEP, DEEP, DEEP)
@example(encoded(PORTS | {"master_grpc": "/../../etc/passwd"}), b"{}", b"{}", b"{}")
@example(encoded(PORTS | {"master": 1 << 20}), b"{}", encoded({**LEARNT, "seconds": 10**400}), b"[]")
@example(b"", encoded({"pid": -1, "created": 1.0}), b"[]", b"")
def test_what_the_stack_and_workers_keep(
    tmp_path_factory: pytest.TempPathFactory, ports: bytes, lock: bytes, learnt: bytes, index: bytes
) -> None:
    """Damaged it is as good as not there; a number in it becomes part of a path that is removed, or gets a signal."""
    project = tmp_path_factory.mktemp("kept")
    settings = Settings(project=project)
    state = settings.make_state()
    (state / "ports.json").write_bytes(ports)
    used = only(StackError, lambda: store_ports(settings))
    if isinstance(used, SeaweedPorts):
        sockets = [path for path in socket_paths(state, used) if path.name.startswith("seaweedfs-")]
        assert {path.parent for path in sockets} == {Path("/tmp")}
    (state / "lock").write_bytes(lock)
    supervisor = only((), lambda: read_supervisor(state / "lock"))
    if isinstance(supervisor, ProcessFacts):
        assert supervisor.pid > 0
        assert supervisor.alive in (True, False)
    memory = Learnt(project / "cache" / "imports")
    (project / "run").write_bytes(learnt)
    assert only((), lambda: memory.learn("d", project / "run")) is None
    assert isinstance(memory.modules("d"), tuple)
    (memory.folder / "e.json").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (memory.folder / "e.json").write_bytes(learnt)
    assert all(isinstance(name, str) for name in memory.modules("e"))
    place = Index.open(state, project).path
    assert place is not None
    place.parent.mkdir()
    place.write_bytes(index)
    assert isinstance(Index.open(state, project).digest("a.py", (1, 2, 3, 4, 5)), str | None)


@budget
@given(st.sampled_from(["", "~", "~/x", "~nobody-of-that-name/x", "a\0b", "/x"]) | texts)
@example("~nobody-of-that-name/x")
def test_folders(text: str) -> None:
    only(InputError, lambda: parse_address(text))
    only(InputError, lambda: Settings(project=Path("/x"), cache=text).cache_folder)


@budget
@given(texts | st.text(max_size=400))
def test_names(text: str) -> None:
    if (name := only(InputError, lambda: check_name(text))) is not None:
        # A name that may be is a key that may be.
        key = key_path(str(name))
        assert only(InputError, lambda: check_key(key)) is None
        assert ".." not in key.split("/")
    only(InputError, lambda: parse_bucket_path(text))
    only(InputError, lambda: parse_address(text))


SCHEMA = {
    "type": "object", "required": ["n"], "properties": {
        "n": {"type": "integer", "title": "n"}, "s": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    },
}  # fmt: skip


@budget
@given(st.lists(st.builds("{}={}".format, st.sampled_from(["n", "s", ""]), texts) | texts, max_size=3), nearly(SCHEMA))
@example(["n=1"], {"properties": {"n": 7}})
@example(["n=1"], {"properties": [1]})
@example(["n=" + "[" * 100_000], SCHEMA)
@example(["n=" + "9" * 5000], SCHEMA)
def test_parameters(pairs: list[str], schema: object) -> None:
    if not isinstance(schema, dict):
        return  # the callers' reader has refused it
    parameters = only(ParameterError, lambda: parse_parameters(tuple(pairs), SCHEMA))
    if isinstance(parameters, dict):
        for rules in (SCHEMA, schema):
            for complete in (False, True):
                only(ParameterError, lambda: check_parameters(parameters, rules, complete=complete))  # noqa: B023


def test_a_secret_is_no_parameter() -> None:
    secret = {"format": "password", "type": "string", "writeOnly": True}
    for rule in (secret, {"anyOf": [secret, {"type": "null"}], "default": None}):
        schema = {"type": "object", "properties": {"token": rule}}
        check_parameters({"token": None} if "anyOf" in rule else {}, schema, complete=True)
        with pytest.raises(ParameterError, match="Secret block") as caught:
            check_parameters({"token": "of-mine"}, schema, complete=True)
        assert "of-mine" not in str(caught.value)
