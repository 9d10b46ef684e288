"""One frozen `Settings`: the project folder, `shipway.toml` in it, and the environment, which wins."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from shipway.errors import InputError

CONFIG_FILE = "shipway.toml"
STATE_FOLDER = ".shipway"
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
"""Hosts that no proxy of the environment is asked for: proxies are for the network."""
DEFAULT_API_URL = "http://127.0.0.1:4200/api"

_SECRETS = {"api_key", "auth_string", "database_url"}
_PREFECT_NAMES = {
    "api_url": "PREFECT_API_URL",
    "api_key": "PREFECT_API_KEY",
    "auth_string": "PREFECT_API_AUTH_STRING",
    "database_url": "PREFECT_API_DATABASE_CONNECTION_URL",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user set, resolved once at the start of a command.

    Every field may be set in `shipway.toml` under its own name (secrets excepted) or in the environment as
    `SHIPWAY_<NAME>`; those that Prefect has too are read from Prefect's own variable.

    Attributes:
        project: the nearest folder upwards that holds `shipway.toml` or `.shipway`, else the current one.
        api_url: Prefect API address. From `PREFECT_API_URL`, else `shipway.toml`, else the project's stack, else
            the active Prefect profile, else Prefect's default port on this machine.
        api_key: Prefect Cloud key, from `PREFECT_API_KEY` only.
        auth_string: `user:password` of a protected server, from `PREFECT_API_AUTH_STRING`, else the stack's own.
        database_url: SQLAlchemy address of the stack's database; PostgreSQL when given, else embedded SQLite.
        store: block (`s3/NAME`) used where no block is named.
        work_pool: Prefect work pool that deployments go to.
        host: address the stack's servers bind to.
        server_port: port of the stack's Prefect API and UI.
        store_port: port of the stack's S3 server.
        capture_max_bytes: most bytes captured from one run's working folder; what is left out is said in its log.
        capture_max_files: most files captured from one run's working folder.
        result_max_bytes: most bytes of what one task returned that are kept for a resumed run; 0 keeps nothing.
        cache: folder of this machine's cache of releases, shared by all projects and workers.
        cache_max_bytes: size that the cache is kept under, what is in use excepted.
        keep_last: how many releases of a deployment `gc` keeps in its history.
        keep_days: how many days `gc` keeps a release in a deployment's history after it was replaced.
        worker_limit: how many runs a worker has at once at most, where its `--limit` does not say it; 0 for no limit.
        drain_seconds: how many seconds a worker that is told to stop lets its runs go on before it hands them back.
        heartbeat_seconds: how often a worker gives a sign of life of each of its runs; three that do not come, and the
            server takes the run for crashed.
        crash_retries: how many times at most a run that fell silent is run again.
        outage_seconds: for how many seconds a bucket that has answered before is waited for when it does not answer.
        mlflow_seconds: how many seconds a completed run waits at most until MLflow has its mirror.
    """

    project: Path
    api_url: str = DEFAULT_API_URL
    api_key: str | None = field(default=None, repr=False)
    auth_string: str | None = field(default=None, repr=False)
    database_url: str | None = field(default=None, repr=False)
    store: str | None = None
    work_pool: str = "shipway"
    host: str = "127.0.0.1"
    server_port: int = 4200
    store_port: int = 4333
    capture_max_bytes: int = 1 << 30
    capture_max_files: int = 10_000
    result_max_bytes: int = 1 << 30
    cache: str = ""
    cache_max_bytes: int = 10 << 30
    keep_last: int = 20
    keep_days: int = 30
    worker_limit: int = 0
    drain_seconds: int = 20
    heartbeat_seconds: int = 30
    crash_retries: int = 2
    outage_seconds: int = 420
    mlflow_seconds: int = 5

    @property
    def state(self) -> Path:
        """Folder of everything the local stack keeps, `.shipway` in the project."""
        return self.project / STATE_FOLDER

    @property
    def cache_folder(self) -> Path:
        """Folder of this machine's cache of releases: `cache`, else where the system keeps caches.

        Raises:
            InputError: the setting names the home of somebody who is not there.
        """
        if self.cache:
            try:
                return self.project / Path(self.cache).expanduser()
            except RuntimeError:
                raise InputError(f"cache is {self.cache[:200]!r}, and there is no such home") from None
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shipway"

    @property
    def stack_file(self) -> Path:
        """File in which the running stack says where it listens."""
        return self.state / "stack.json"

    @property
    def secrets_file(self) -> Path:
        """File of mode 0600 with the stack's keys."""
        return self.state / "secrets.json"

    def make_state(self) -> Path:
        """Make the state folder, for its owner only and unseen by git, and return it.

        Raises:
            InputError: it is there already, and another user's, or others may have written to it.
        """
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.state.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            hint = f"run `chmod 700 {self.state}` as its owner, and look at what is in it"
            raise InputError(f"{self.state} is another user's, or others may write to it", hint=hint)
        if found.st_mode & 0o077:
            self.state.chmod(0o700)
        mark = self.state / ".gitignore"
        # An empty one was begun on a full disk; what it hides from git would be seen for good.
        if not mark.exists() or not mark.stat().st_size:
            mark.write_text("*\n")
        return self.state

    def prefect_environment(self) -> dict[str, str]:
        """Return the variables that make a child process talk to the same Prefect API."""
        wanted = {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_KEY": self.api_key,
            "PREFECT_API_AUTH_STRING": self.auth_string,
        }
        return {name: value for name, value in wanted.items() if value}

    @classmethod
    def load(cls, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """Resolve the settings of the project that `folder` (by default the current one) belongs to.

        Raises:
            InputError: `shipway.toml` is not TOML, has an unknown key, or a value of the wrong type; or it, or
                the state folder, is another user's.
        """
        environ = os.environ if environ is None else environ
        folder = folder or Path.cwd()
        project = find_project(folder)
        _check_owner(folder, project)
        values: dict[str, Any] = _from_profile(environ)
        values |= _from_stack(project / STATE_FOLDER)
        values |= _from_toml(project / CONFIG_FILE)
        values |= _from_environment(environ)
        return cls(project=project, **values)


def find_project(folder: Path) -> Path:
    """Return the nearest folder upwards that holds `shipway.toml` or `.shipway`, else `folder` itself."""
    folder = folder.resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / CONFIG_FILE).is_file() or (candidate / STATE_FOLDER).is_dir():
            return candidate
    return folder


def is_private(folder: Path) -> bool:
    """Tell whether a folder is this user's, and nobody else can look into it or write to it."""
    found = folder.stat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _check_owner(folder: Path, project: Path) -> None:
    """Refuse configuration that somebody else has put above or into the folder that a person works in.

    Whoever says which server to talk to is given what that server is sent, and says which code runs. So
    `/tmp/shipway.toml` must not count for those who work below `/tmp`. Trusted are the user, root, and the owner of the
    folder itself, as one who works there (in a container, perhaps, as root) has chosen that. What the stack has written
    nobody else may write to.
    """
    state = project / STATE_FOLDER
    for path in (project / CONFIG_FILE, state, state / "stack.json", state / "secrets.json"):
        try:
            owner = path.lstat().st_uid
            trusted = {os.geteuid(), 0, folder.stat().st_uid}
            open_to_others = path.name != CONFIG_FILE and path.stat().st_mode & 0o022
        except OSError:
            continue
        if owner not in trusted:
            raise InputError(
                f"{path} belongs to another user, who could choose the server and the code for you",
                hint=f"remove it, or make a {CONFIG_FILE} of your own in {folder}",
            )
        if open_to_others:
            raise InputError(
                f"others may write to {path}, and could choose the server and the code for you",
                hint=f"run `chmod go-w {path}`, and look at what is in it",
            )


def convert(name: str, text: str, source: str) -> Any:
    """Turn the text given for setting `name` into the setting's type.

    Raises:
        InputError: the setting does not exist or the text does not fit it; `source` says where it came from.
    """
    kinds = {f.name: f.type for f in fields(Settings) if f.name != "project"}
    if name not in kinds:
        raise InputError(
            f"{source} sets {name!r}, which is not a setting", hint=f"settings are {', '.join(sorted(kinds))}"
        )
    if kinds[name] == "int":
        try:
            return int(text)
        except ValueError:
            raise InputError(f"{source} sets {name} to {text[:100]!r}, which is not a whole number") from None
    if "\0" in text:
        raise InputError(f"{source} sets {name} to a text with a NUL in it")
    return text


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for f in fields(Settings):
        for variable in (f"SHIPWAY_{f.name.upper()}", _PREFECT_NAMES.get(f.name, "")):
            if f.name != "project" and environ.get(variable):
                values[f.name] = convert(f.name, environ[variable], f"environment variable {variable}")
    return values


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    for name, value in table.items():
        if name in _SECRETS:
            raise InputError(f"{path} holds {name}, a secret", hint="set it in the environment instead")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{path} sets {name} to {value!r}, which is neither text nor a whole number")
    return {name: convert(name, str(value), str(path)) for name, value in table.items()}


def _from_stack(state: Path) -> dict[str, Any]:
    """Read where the project's running stack listens, and its auth string if it asks for one."""
    try:
        stack = json.loads((state / "stack.json").read_text())
        values = {"api_url": str(stack["api_url"])}
        if stack.get("auth"):
            values["auth_string"] = str(json.loads((state / "secrets.json").read_text())["auth_string"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return values


def _from_profile(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read the active profile of Prefect's own `profiles.toml`, as Prefect's commands would."""
    home = Path(environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    path = Path(environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
        name = environ.get("PREFECT_PROFILE") or table.get("active")
        profile = dict(table.get("profiles", {}).get(name, {}))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    names = {"api_url", "api_key", "auth_string"}
    return {name: str(profile[_PREFECT_NAMES[name]]) for name in names if profile.get(_PREFECT_NAMES[name])}
