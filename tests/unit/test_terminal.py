"""What comes from outside gives no orders to the terminal that it is shown on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from shipway.cli.follow import show_facts
from shipway.cli.output import echo, print_json, print_table, say
from shipway.terminal import visible

ORDERS: tuple[str, ...] = (
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x9d0;title\x9c",
    "\r",
    "\b",
    "\0",
    "\x7f",
    "\u202e",
    "\u2066",
)
ORDERS += ("\u2028", "\udc9b")


def printed(call: Callable[[], None]) -> str:
    """Return what a terminal that has colours is sent."""
    done = CliRunner().invoke(click.Command("it", callback=call), color=True)
    assert done.exception is None, done.exception
    return done.output


def obeyed(text: str) -> set[str]:
    """Return what in a text a terminal obeys, but for tabs, ends of lines and our own colours."""
    for code in (0, 1, *range(30, 38)):
        text = text.replace(f"\x1b[{code}m", "")
    return {char for char in text if char not in "\n\t" and (ord(char) < 32 or 127 <= ord(char) < 160)} | {
        order for order in ORDERS if order in text
    }


@pytest.mark.parametrize("order", ORDERS)
def test_orders_are_shown(order: str) -> None:
    shown = printed(lambda: echo(f"a{order}b"))
    assert shown == f"a{visible(order)}b\n"
    assert visible(order).isascii()
    assert "\\" in visible(order)
    for call in (
        lambda: echo(f"a{order}b", fg="red", bold=True),
        lambda: say(f"a{order}b"),
        lambda: print_table(("N", "V"), [(f"a{order}b", "1")]),
        lambda: print_json({f"a{order}b": [f"c{order}d"]}),
    ):
        assert obeyed(printed(call)) == set()


def test_our_own_colours_and_all_that_can_be_read_stay() -> None:
    assert (
        printed(lambda: echo("é✓ │└─ 日本\tb\nc", fg="red", bold=True)) == "\x1b[31m\x1b[1mé✓ │└─ 日本\tb\nc\x1b[0m\n"
    )


def test_a_row_is_one_line_as_wide_as_it_is_shown() -> None:
    rows = printed(lambda: print_table(("NAME", "N"), [("a\nb\x1b", 1), ("c", 2)])).splitlines()
    assert rows[1:] == ["a\\nb\\x1b  1", "c         2"]


@given(st.recursive(st.text() | st.sampled_from(ORDERS), lambda inner: st.dictionaries(st.text(), inner)))
@example("".join(ORDERS))
def test_json_is_the_same_value(value: object) -> None:
    text = printed(lambda: print_json(value))
    assert json.loads(text) == value
    assert obeyed(text) == set()


def test_a_real_command(tmp_path: Path) -> None:
    (tmp_path / "shipway.toml").touch()
    logs = tmp_path / ".shipway/logs"
    logs.mkdir(parents=True)
    logs.parent.chmod(0o700)
    (logs / "server.log").write_bytes(f"begin {''.join(ORDERS[:-1])} end\n".encode() + b"\xff\n")
    done = subprocess.run(
        [sys.executable, "-m", "shipway", "logs", "server"],
        cwd=tmp_path,
        env={**os.environ, "FORCE_COLOR": "1"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert text.startswith("begin \\x1b[2J\\x1b]0;title\\x07")
    assert obeyed(text) == set()
    assert obeyed((logs / "server.log").read_bytes().decode(errors="replace"))


def test_no_fact_of_a_run_is_feigned_by_another() -> None:
    facts = dict.fromkeys(("message", "release", "parameters", "seconds", "page")) | {
        "run": "otter\nstate:      Completed",
        "state": "Failed",
        "metrics": {"mae\nrelease:    another": 1.0},
        "artifacts": [],
        "models": [],
    }
    shown = printed(lambda: show_facts(facts)).splitlines()
    assert [line.split()[0] for line in shown if not line.startswith(" ")] == ["run:", "state:", "metric:"]
    assert len(shown) == 5
