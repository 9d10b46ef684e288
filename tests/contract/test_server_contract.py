"""What the stack's server leans on in Prefect. Should one of these fail after an update, read `prefect/server.py`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from prefect.server.database.configurations import AioSqliteConfiguration, AsyncPostgresConfiguration
from prefect.server.database.dependencies import (
    MODELS_DEPENDENCIES,
    provide_database_interface,
    set_database_config,
    temporary_database_config,
)
from prefect.server.events import ordering, triggers
from prefect.server.events.ordering import memory
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.events.services import triggers as triggers_service
from prefect.server.models import events as prefect_events
from prefect.server.utilities.encryption import encrypt_fernet
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings
from prefect.settings.models.root import Settings as PrefectSettings
from prefect.types._datetime import now

from shipway.prefect.absence import BEGINS, Presence
from shipway.prefect.ordering import STARTED, CausalOrdering
from shipway.prefect.server import ImmediateSqlite, configure_database
from shipway.settings import Settings
from shipway.stack.secrets import Secrets
from shipway.stack.service import server_service


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'it.db'}"


async def _writes_meanwhile(configuration: AioSqliteConfiguration, path: Path) -> bool:
    """Tell whether somebody else can write while a transaction is open that has not written yet."""
    session = await configuration.session(await configuration.engine())
    async with session, configuration.begin_transaction(session):
        await session.connection()
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as other:
            try:
                other.execute("create table t (x)")
            except sqlite3.OperationalError:
                return False
    return True


@pytest.mark.parametrize(("kind", "writes"), [(AioSqliteConfiguration, True), (ImmediateSqlite, False)])
def test_our_transactions_hold_the_write_lock_from_their_start(
    kind: type[AioSqliteConfiguration], writes: bool, url: str, tmp_path: Path
) -> None:
    # The first line is why there is such a class at all: without it Prefect has mended this itself.
    assert asyncio.run(_writes_meanwhile(kind(connection_url=url), tmp_path / "it.db")) is writes


def test_a_session_inside_a_transaction_can_read_without_waiting_for_it(url: str) -> None:
    configuration = ImmediateSqlite(connection_url=url)

    async def read_inside() -> None:
        engine = await configuration.engine()
        outer, inner = await configuration.session(engine), await configuration.session(engine)
        async with outer, inner, configuration.begin_transaction(outer), configuration.begin_transaction(inner):
            await inner.execute(sa.text("select 1"))

    # Prefect does so when it pauses a work queue; waiting for each other they would stop the server for a minute.
    asyncio.run(asyncio.wait_for(read_inside(), 20))


def test_transactions_that_wait_leave_connections_to_the_one_that_goes_on(url: str) -> None:
    """There are more of them than connections, and each needs one for a session inside it."""
    configuration = ImmediateSqlite(connection_url=url)

    async def one(number: int) -> None:
        engine = await configuration.engine()
        outer = await configuration.session(engine)
        async with outer, configuration.begin_transaction(outer):
            await asyncio.sleep(0.05)
            inner = await configuration.session(engine)
            async with inner, configuration.begin_transaction(inner):
                await inner.execute(sa.text("select 1"))
            await outer.execute(sa.text("insert into t values (:number)"), {"number": number})

    async def many() -> int:
        engine = await configuration.engine()
        async with engine.begin() as connection:
            await connection.execute(sa.text("create table t (x)"))
        await asyncio.gather(*(one(number) for number in range(40)))
        async with engine.begin() as connection:
            count: int = (await connection.execute(sa.text("select count(*) from t"))).scalar_one()
        return count

    # SQLite waits for a minute, and so did all of them.
    assert asyncio.run(asyncio.wait_for(many(), 40)) == 40


def test_prefect_asks_for_transactions_by_the_method_we_replace() -> None:
    for kind in (AioSqliteConfiguration, AsyncPostgresConfiguration, ImmediateSqlite):
        assert list(inspect.signature(kind.begin_transaction).parameters) == ["self", "session", "with_for_update"]


@pytest.fixture
def no_configuration() -> Iterator[None]:
    with temporary_database_config(None):
        before = MODELS_DEPENDENCIES["database_config"]
        yield
        MODELS_DEPENDENCIES["database_config"] = before


@pytest.mark.usefixtures("no_configuration")
def test_the_configuration_that_is_set_is_the_one_the_server_uses(url: str) -> None:
    ours = ImmediateSqlite(connection_url=url)
    set_database_config(ours)

    assert provide_database_interface().database_config is ours


@pytest.mark.usefixtures("no_configuration")
@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("sqlite+aiosqlite:////nowhere/it.db", ImmediateSqlite),
        ("postgresql+asyncpg://me:pw@nowhere/it", AsyncPostgresConfiguration),
    ],
)
def test_only_sqlite_gets_ours(address: str, kind: type[Any]) -> None:
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: address}):
        configure_database()

        assert type(provide_database_interface().database_config) is kind


def test_every_variable_we_set_is_a_setting_prefect_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = Secrets.random()
    settings = Settings(project=tmp_path, server_port=4321)
    env = server_service(settings, secrets, auth=True).env
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    read = PrefectSettings()

    assert read.home == tmp_path / ".shipway/server"
    assert read.server.database.connection_url is not None
    assert read.server.database.connection_url.get_secret_value().endswith(".shipway/server/prefect.db")
    assert read.server.ui.static_directory == str(tmp_path / ".shipway/server/ui")
    assert (read.server.ui.api_url, read.server.ui.show_promotional_content) == ("/api", False)
    assert (read.server.api.host, read.server.api.port) == ("127.0.0.1", 4321)
    assert read.server.api.auth_string is not None
    assert read.server.api.auth_string.get_secret_value() == secrets.auth_string
    assert read.server.analytics_enabled is False
    recorder, persister = read.server.services.task_run_recorder, read.server.services.event_persister
    assert (recorder.read_batch_size, recorder.batch_size, recorder.flush_interval) == (50, 50, 1)
    assert (persister.read_batch_size, persister.batch_size, persister.flush_interval) == (50, 200, 2)
    # Nothing is misspelt: Prefect ignores a variable it does not know.
    known = {name.upper() for name in read.to_environment_variables(exclude_unset=False)}
    assert read.server.api.cors_allowed_origins == "http://127.0.0.1:4321"
    aliases = {
        "PREFECT_API_DATABASE_CONNECTION_URL",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS",
        "PREFECT_SERVER_ENCRYPTION_KEY",
    }
    assert {name for name in env if name.startswith("PREFECT_")} - known - aliases == set()


def test_the_encryption_key_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    key = Secrets.random().encryption_key
    monkeypatch.setenv("PREFECT_SERVER_ENCRYPTION_KEY", key)

    # Without the variable this would read and write the key in the database, through the session.
    token = asyncio.run(encrypt_fernet(None, {"secret": "x"}))  # type: ignore[arg-type]

    assert Fernet(key.encode()).decrypt(token.encode()) == b'{"secret": "x"}'


def test_events_wait_for_none_from_before_the_start(tmp_path: Path) -> None:
    """Prefect's own order keeps what it has shown in memory."""
    settings = Settings.load(tmp_path, {})
    given = server_service(settings, Secrets.random(), auth=False).env
    module = given["PREFECT_SERVER_EVENTS_CAUSAL_ORDERING"]
    assert isinstance(importlib.import_module(module), ordering.CausalOrderingModule)
    assert "self._seen_events: TTLCache" in inspect.getsource(memory.CausalOrdering.__init__)
    assert "follows" in inspect.getsource(prefect_events.flow_run_state_change_event)
    resource = {"prefect.resource.id": f"prefect.flow-run.{uuid4()}"}
    other = {"prefect.resource.id": f"prefect.task-run.{uuid4()}"}

    async def waits(resource: dict[str, str], follows: UUID) -> bool:
        words = {"occurred": now("UTC"), "event": "it", "resource": resource, "id": uuid4(), "follows": follows}
        event = ReceivedEvent.model_validate(words)
        try:
            await CausalOrdering(f"test-{uuid4()}").wait_for_leader(event)
        except ordering.EventArrivedEarly:
            return True
        return False

    before, after = (UUID(int=int((STARTED + step) * 1000) << 80 | 7 << 76 | 2 << 62) for step in (-2, 60))
    assert not asyncio.run(waits(resource, before))
    assert asyncio.run(waits(other, before))
    assert asyncio.run(waits(resource, after))
    assert asyncio.run(waits(resource, uuid4()))


def test_a_server_that_did_not_look_for_a_while_begins_waits_anew_before_it_concludes() -> None:
    """Looks are five seconds apart, and a little more where the machine is busy; events come at any time."""
    assert "await triggers.evaluate_proactive_triggers()" in inspect.getsource(triggers_service)
    assert inspect.getsource(triggers.consumer).count("await reactive_evaluation(event)") == 1
    assert inspect.getsource(triggers.evaluate_periodically).count("await periodic_evaluation(") == 1
    for name in BEGINS:
        assert {"session", "trigger", "end"} <= inspect.signature(getattr(triggers, name)).parameters.keys()
    times = iter([0.0, 5.2, 5.2, 5.3, 5.3, 40.0, 40.0, 40.1, 39.0, 39.0])
    done: list[str] = []

    async def forgive(away: float) -> None:
        done.append(f"away {away:.1f}")

    async def conclude(what: str) -> None:
        done.append(what)

    async def play() -> None:
        looked = Presence(forgive, lambda: next(times)).before(conclude)
        for what in ("wait", "event", "late", "clock set back"):
            await looked(what)

    asyncio.run(play())
    assert done == ["wait", "event", "away 34.7", "late", "clock set back"]
