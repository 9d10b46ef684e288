"""The look at an installation: what is wrong, why it matters, and the command that mends it.

A check is a function that yields findings. Nothing here mends anything, and no finding holds a secret: a value that may
be one (of a variable, a setting, a line of a file) is never repeated, only the name of what holds it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from shipway.errors import ShipwayError

Level = Literal["ok", "note", "warning", "error"]

LIMIT_SECONDS = 5.0
"""How long a check may take."""

TO_MEND = frozenset({"warning", "error"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check saw.

    Attributes:
        check: name of the check.
        level: `ok`; `note`, good to know; `warning`, works now and will hurt; `error`, does not work.
        what: what was seen, naming the thing.
        why: why it matters, and where it may come from.
        mend: the command that mends it; empty where there is nothing to mend or no command can.
    """

    check: str
    level: Level
    what: str
    why: str = ""
    mend: str = ""

    @property
    def to_mend(self) -> bool:
        """Whether something is to be mended."""
        return self.level in TO_MEND


Check = Callable[[], Iterable[Finding]]


def examine(checks: Mapping[str, Check], limit: float = LIMIT_SECONDS) -> list[Finding]:
    """Carry out checks side by side; a check that fails, or does not end within `limit` seconds, is a finding too."""
    results: dict[str, list[Finding]] = {}

    def carry_out(name: str, check: Check) -> None:
        results[name] = _carry_out(name, check)

    # Daemons, because a check may hang in a system call, and the command ends all the same.
    threads = {
        name: threading.Thread(target=carry_out, args=(name, check), name=f"doctor-{name}", daemon=True)
        for name, check in checks.items()
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + limit
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    found = dict(results)
    return [finding for name in checks for finding in found.get(name) or [_endless(name, limit)]]


def _carry_out(name: str, check: Check) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(check())
    except ShipwayError as error:
        findings.append(Finding(name, "error", error.message, error.hint or ""))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        what = f"it cannot be looked at: {error.strerror or type(error).__name__}{where}"
        findings.append(Finding(name, "error", what, "this user lacks a right, or something is in the way"))
    except Exception as error:  # noqa: BLE001 - the others have something to say
        # Its text stays here: nobody knows what it holds.
        kind = type(error).__name__
        findings.append(Finding(name, "error", f"the check itself failed with {kind}", "this is a mistake in Shipway"))
    return findings


def _endless(name: str, limit: float) -> Finding:
    return Finding(name, "error", f"the check did not come to an end within {limit:g} s", "something hangs")
