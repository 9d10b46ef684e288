"""The pull step: the release stamped on the run, verified, in a workspace of its own.

It works on any Prefect worker: put `shipway.prefect.pull.release` into a deployment's pull steps.
"""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Any

from shipway.errors import InputError
from shipway.manifest import Version
from shipway.prefect.api import Api
from shipway.prefect.labels import release_of
from shipway.prefect.stores import store_of
from shipway.release.cache import Cache
from shipway.run.workspace import Workspace, open_workspace
from shipway.settings import Settings

workspaces: dict[str, Workspace] = {}
"""The workspaces this process opened, by flow run id; the engine takes its run's one from here."""


def release(store: str, release: str | None = None) -> dict[str, Any]:
    """Check out the release a run was created with, out of this machine's cache where it is there.

    The release is the one stamped on the run (`flow_run.deployment_version`), not the deployment's current one: a run
    that waited while somebody deployed still executes what it was created with.

    Args:
        store: block the release lies in, `TYPE/NAME`.
        release: `<epoch>.<release-id>` for a run that carries no stamp.

    Returns:
        `directory`, where Prefect loads the flow from, and `release`.

    Raises:
        IntegrityError: there is no stamp, or a file is not what it was when the release was built.
        ObjectNotFoundError: the release is not in the store.
    """
    settings = Settings.load()
    run_id = os.environ.get("PREFECT__FLOW_RUN_ID")
    stamp = release_of(Api(settings).request("GET", f"/flow_runs/{run_id}")) if run_id else None
    if stamp is None and release is None:
        raise InputError("the run carries no release", hint="apply the deployment again, then start a new run")
    version = Version.parse(stamp or release)
    cache = Cache.open(settings.cache_folder, settings.cache_max_bytes)
    # The release was built into it.
    origin = store_of(settings, store, known=True)
    workspace = open_workspace(origin, version, parent=Path.cwd(), block=store, cache=cache)
    if run_id:
        workspaces[run_id] = workspace = workspace.watched()
    # The engine removes the workspace when the run's data is safe; this serves where another engine runs the flow.
    atexit.register(workspace.remove)
    return {"directory": str(workspace.folder), "release": str(version)}
