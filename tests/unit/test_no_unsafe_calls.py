"""Nothing in the source turns input into code: no pickle, eval, unsafe YAML or shell, but for what is listed here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/shipway"

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle", "yaml", "xml", "lxml"}
"""Modules whose readers run, or may be made to run, what they read."""

CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "asyncio.create_subprocess_shell", "joblib.load", "numpy.load", "pandas.read_pickle",
    "runpy.run_path", "runpy.run_module", "tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive", "tempfile.mktemp",
}  # fmt: skip
"""Calls that run, unpack or race."""

ALLOWED = {
    # The codec for what nothing else can keep; used when a flow asks for it by name.
    ("codec/objects.py", "import pickle"),
    # Arrays, with `allow_pickle=False`.
    ("codec/tables.py", "numpy.load"),
    # The worker takes the place of the command that starts it: a fixed list, no shell.
    ("cli/worker.py", "os.execve"),
}


def findings(text: str) -> Iterator[str]:
    """Yield what a module does of this."""
    tree = ast.parse(text)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = alias.name
                if alias.name.partition(".")[0] in MODULES:
                    yield f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            if (node.module or "").partition(".")[0] in MODULES:
                yield f"import {node.module}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        first, dot, rest = called.partition(".")
        called = f"{names.get(first, first)}{dot}{rest}"
        if called in CALLS or called.startswith(("os.exec", "os.spawn")):
            yield called
        if any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords):
            yield f"{called} with a shell"
        # ruamel's only unsafe reader is asked for by name.
        if called.endswith("YAML") and any(
            word.arg == "typ" and ast.unparse(word.value) not in ("'rt'", "'safe'") for word in node.keywords
        ):
            yield f"{called} of an unsafe type"


def test_nothing_turns_input_into_code() -> None:
    found = {
        (path.relative_to(SOURCE).as_posix(), what)
        for path in SOURCE.rglob("*.py")
        for what in findings(path.read_text())
    }
    assert found == ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml\nyaml.load(x)",
        "eval('1')",
        "import os\nos.system('x')",
        "from os import system as run\nrun('x')",
        "import os\nos.execvp('x', [])",
        "import subprocess as s\ns.run('x', shell=True)",
        "import subprocess\nsubprocess.Popen('x', shell=flag)",
        "from ruamel.yaml import YAML\nYAML(typ='unsafe')",
        "from tempfile import mktemp\nmktemp()",
    ],
)
def test_it_would_be_found(text: str) -> None:
    assert list(findings(text))


def test_the_rules_of_ruff_on_security_are_on() -> None:
    import tomllib

    rules = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in rules["select"]
    # Subprocesses get lists, never a shell: that is what the scan above holds against them.
    assert [rule for rule in rules["ignore"] if rule in ("S", "S603", "S607") or rule[:2] == "S1"] == ["S603", "S607"]
    let_off = {path: set(codes) for path, codes in rules["per-file-ignores"].items() if path.startswith("src")}
    assert not [code for codes in let_off.values() for code in codes if code.startswith("S")]


def test_arrays_are_read_without_pickle() -> None:
    calls = [
        node for node in ast.walk(ast.parse((SOURCE / "codec/tables.py").read_text())) if isinstance(node, ast.Call)
    ]
    loads = [ast.unparse(node) for node in calls if ast.unparse(node.func).endswith(".load")]
    assert loads
    assert all("allow_pickle=False" in load for load in loads)
