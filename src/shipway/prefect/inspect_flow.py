"""Look into a flow file in a process of its own: `python -m shipway.prefect.inspect_flow FILE.py:FLOW`.

The file is imported as Prefect's workers import it, so its `if __name__ == "__main__"` part does not run. What it
prints goes to standard error; one JSON object about the flow, or about what is wrong, goes to standard output.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from prefect.exceptions import ScriptError
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import load_script_as_module


def describe(entrypoint: str) -> dict[str, Any]:
    """Return name, description, version and parameter schema of a flow, or `error` and `hint` in words."""
    path, _, name = entrypoint.rpartition(":")
    try:
        module = load_script_as_module(path)
    except ScriptError as error:
        return _explain(path, error.user_exc)
    except SystemExit as error:
        return {
            "error": f"{path} ends the interpreter when it is imported (exit {error.code})",
            "hint": "put that under if __name__ == '__main__'",
        }
    flows = {key: value for key, value in vars(module).items() if isinstance(value, Flow)}
    there = f"its flows are {', '.join(flows)}" if flows else "it holds no flow; decorate a function with @flow"
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            return {"error": f"{path} has no {name!r}", "hint": there}
    if not isinstance(found, Flow):
        return {"error": f"{name!r} in {path} is {_kind(found)}, not a flow", "hint": there}
    twins = sorted(key for key, flow in flows.items() if flow is not found and flow.name == found.name)
    if twins:
        return {
            "error": f"{name} and {twins[0]} in {path} are both named {found.name!r}",
            "hint": "give one another name with @flow(name=...)",
        }
    return {
        "flow": found.name,
        "description": found.description,
        "schema": parameter_schema(found).model_dump_for_openapi(),
    }


def _explain(path: str, error: BaseException) -> dict[str, Any]:
    """Say what went wrong at import, and at which line of the user's own file."""
    if isinstance(error, SyntaxError):
        return {
            "error": f"{error.filename or path}:{error.lineno}:{error.offset}: {error.msg}",
            "hint": "mend the syntax",
        }
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve().is_relative_to(Path.cwd())
    ]
    where = f"{Path(frames[-1].filename).resolve().relative_to(Path.cwd())}:{frames[-1].lineno}" if frames else path
    text = str(error).splitlines()[0][:300] if str(error) else ""
    hint = (
        "install what it imports, in this environment"
        if isinstance(error, ImportError)
        else "the file must import without error"
    )
    return {"error": f"{where}: {type(error).__name__}: {text}".rstrip(": "), "hint": hint}


def _kind(value: object) -> str:
    return (
        "a function without @flow" if callable(value) and not isinstance(value, type) else f"a {type(value).__name__}"
    )


def _loaded() -> list[str]:
    """Return the files of all modules; of one in an archive, that of the archive."""
    files = set()
    for module in list(sys.modules.values()):
        # Not `getattr`: of a module that is loaded late, that would load it.
        name = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(name, str):
            path = Path(name).absolute()
            found = next((place for place in (path, *path.parents) if place.is_file()), None)
            files |= {str(found)} if found else set()
    return sorted(files)


if __name__ == "__main__":
    # A look leaves nothing behind in the folder it looks at.
    sys.dont_write_bytecode = True
    answer = os.fdopen(os.dup(1), "w")
    # What the file prints is for people; only our answer may stand on standard output.
    os.dup2(2, 1)
    sys.path.insert(0, str(Path.cwd()))
    try:
        facts = describe(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - whatever a user's file does is told, not raised
        facts = _explain(sys.argv[1], error)
    # For whoever remembers the facts: where else they came from.
    facts |= {"loaded": _loaded(), "search": [*map(os.path.abspath, sys.path)]}
    json.dump(facts, answer)
    answer.flush()
    # A file may have started threads; nobody waits for them.
    os._exit(0)
