"""The Python environment that flows are imported in: what tells it from another one, and where its modules lie.

Nothing of what is installed is imported or read for this: installing, upgrading and removing a package, by whatever
tool, adds and removes names in a `site-packages` folder, which changes the folder's time.
"""

from __future__ import annotations

import json
import os
import site
import sys
from pathlib import Path
from typing import Any

from shipway.digest import sha256_bytes


def fingerprint() -> str:
    """Return a digest of the interpreter, of how it is set up, and of what is installed for it."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    interpreter = [sys.version, sys.executable, sys.prefix, sys.base_prefix]
    installed = [_installed(folder) for folder in _site_folders()]
    return sha256_bytes(json.dumps([interpreter, variables, installed], sort_keys=True).encode())


def folders() -> set[Path]:
    """Return the folders of installed packages and of the standard library, links resolved."""
    import sysconfig

    paths = sysconfig.get_paths()
    return {Path(folder).resolve() for folder in (*_site_folders(), paths["stdlib"], paths["platstdlib"])}


def _site_folders() -> list[str]:
    """Return the folders that packages are installed into; some may not exist."""
    own = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [*site.getsitepackages(), *own]


def _installed(folder: str) -> list[Any]:
    """Return what changes when something is installed into a folder or removed from it."""
    try:
        changed = Path(folder).stat().st_mtime_ns
        with os.scandir(folder) as found:
            # The names as well, for systems that give all files one time: they hold the versions. A `.pth` file, which
            # names further folders, may be edited in place.
            marks = [
                [item.name, item.stat().st_mtime_ns if item.name.endswith(".pth") else 0]
                for item in found
                if item.name.endswith((".dist-info", ".egg-info", ".egg-link", ".pth"))
            ]
    except OSError:
        return [folder]
    return [folder, changed, sorted(marks)]
