"""The stack's API server: stock Prefect, with SQLite transactions that do not fail under load.

Prefect opens SQLite transactions as `BEGIN DEFERRED`. A transaction that reads and then writes cannot become a writer
while another one is: SQLite answers "database is locked" at once, without waiting, the server answers 503, and clients
wait seconds before they try again. `BEGIN IMMEDIATE` waits for its turn at the start instead.

Some of Prefect's code opens a second session inside a transaction (pausing a work queue does, to read for an event).
Were that one IMMEDIATE too, it would wait for the first, which waits for it: those stay as Prefect opens them. They
need a connection too, of which there are fifteen. Were all of those with transactions that wait for the first one's
lock, they would wait for each other for a minute: so transactions wait for their turn before they take a connection.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    # Importing the server makes objects by the hundred thousand, which stay: looking through them for garbage again and
    # again takes a quarter of the time. `main` lets the collector go on.
    gc.disable()

import argparse
import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from weakref import WeakKeyDictionary

import uvicorn
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.server.utilities.database import get_dialect
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from shipway.prefect.absence import begin_waits_anew, notice_absence
from shipway.prefect.origin import OwnPages
from shipway.prefect.whole import WholeText
from shipway.stack.service import is_loopback

TURN_SECONDS = 60.0
"""How long a transaction waits for those before it; as long as Prefect lets SQLite wait for its lock."""

GRACEFUL_SECONDS = 5
"""How long open connections (workers hold websockets for as long as they run) may delay a stop."""


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def turn() -> AsyncGenerator[None, None]:
    """Wait until the transactions that were begun before in this event loop have ended, in their order."""
    lock = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    try:
        async with asyncio.timeout(TURN_SECONDS):
            await lock.acquire()
    except TimeoutError:
        # SQLite says what it says when it has waited as long.
        yield
        return
    try:
        yield
    finally:
        lock.release()


class ImmediateSqlite(AioSqliteConfiguration):
    """Prefect's SQLite configuration, with every outermost transaction opened as IMMEDIATE."""

    @asynccontextmanager
    async def begin_transaction(
        self,
        session: AsyncSession,
        with_for_update: bool = False,
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """Enter a transaction that holds the write lock from its start, unless it is inside another one."""
        outermost = SQLITE_BEGIN_MODE.get() is None
        async with (
            turn() if outermost else nullcontext(),
            super().begin_transaction(session, with_for_update or outermost) as transaction,
        ):
            # The lock is taken before the body runs, and the mode goes back then: sessions that the body opens read it.
            await session.connection()
            token = SQLITE_BEGIN_MODE.set("DEFERRED")
            try:
                yield transaction
            finally:
                SQLITE_BEGIN_MODE.reset(token)


def configure_database() -> None:
    """Put our configuration in the place of Prefect's where the database is SQLite; PostgreSQL is left alone."""
    url = get_current_settings().server.database.connection_url
    if url is not None and get_dialect(url.get_secret_value()).name == "sqlite":
        set_database_config(ImmediateSqlite(connection_url=url.get_secret_value()))


def main() -> None:
    """Serve the API and the UI until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m shipway.prefect.server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4200)
    options = parser.parse_args()
    configure_database()
    # The module takes the database configuration when it is imported.
    from prefect.server.api.server import create_app

    app = WholeText(create_app(final=True))
    asyncio.run(begin_waits_anew())
    notice_absence()
    gc.freeze()
    gc.enable()
    settings = get_current_settings().server
    open_here = is_loopback(options.host) and not settings.api.auth_string
    uvicorn.run(
        OwnPages(app, settings.api.cors_allowed_origins.split(",")) if open_here else app,
        host=options.host,
        port=options.port,
        log_level=settings.logging_level.lower(),
        timeout_keep_alive=settings.api.keepalive_timeout,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )


if __name__ == "__main__":
    main()
