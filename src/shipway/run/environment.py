"""What a run runs on."""

from __future__ import annotations

import functools
import platform
from email.parser import HeaderParser
from importlib.metadata import distributions
from typing import Any


@functools.cache
def environment() -> dict[str, Any]:
    """Return interpreter, system, and every installed package with its version.

    A template has looked before its runs are forked; it is replaced when what is installed changes.
    """
    packages: dict[str, str] = {}
    for distribution in distributions():
        # The headers alone: `importlib.metadata` would parse the description too, twenty times as long.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        headers = HeaderParser().parsestr(text.partition("\n\n")[0])
        if headers["Name"]:
            packages.setdefault(headers["Name"], headers["Version"])
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
