"""A deployment in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_schedule(item: Mapping[str, Any]) -> str:
    """Say a server's schedule in a few words."""
    rule = item["schedule"]
    kind = next((name for name in ("cron", "interval", "rrule") if name in rule), "schedule")
    text = f"every {rule[kind]:g} s" if kind == "interval" else f"{kind} {rule.get(kind)}"
    zone = f" {rule['timezone']}" if rule.get("timezone") not in (None, "UTC") else ""
    return f"{text}{zone}{'' if item['active'] else ' (paused)'}"
