"""The stack's secrets: made once, kept in one file that only its owner can read."""

from __future__ import annotations

import base64
import json
import os
import secrets
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from shipway.errors import StackError


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the parts of the stack know each other by.

    Attributes:
        encryption_key: Fernet key that Prefect encrypts block data with.
        auth_string: `user:password` of the Prefect API, where it asks for one.
        s3_access_key: access key of the embedded S3 server.
        s3_secret_key: its secret key.
        jwt_key: what the S3 server's inner parts recognise each other by.
    """

    encryption_key: str = field(repr=False)
    auth_string: str = field(repr=False)
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    jwt_key: str = field(repr=False)

    @classmethod
    def random(cls) -> Secrets:
        """Make new ones."""
        return cls(
            encryption_key=base64.urlsafe_b64encode(os.urandom(32)).decode(),
            auth_string=f"shipway:{secrets.token_urlsafe(24)}",
            s3_access_key=secrets.token_hex(10),
            s3_secret_key=secrets.token_urlsafe(30),
            jwt_key=secrets.token_urlsafe(32),
        )


def read_secrets(path: Path) -> Secrets | None:
    """Return the secrets in `path`, or None when there is no such file.

    Raises:
        StackError: the file is somebody else's, others may read it, or it is damaged.
    """
    try:
        with path.open() as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.geteuid():
                raise StackError(
                    f"{path} belongs to another user", hint=f"use it as its owner, or `chown` it to user {os.geteuid()}"
                )
            if found.st_mode & 0o077:
                raise StackError(f"{path} holds secrets and others may read it", hint=f"run `chmod 600 {path}`")
            document = json.load(file)
        return Secrets(**{each.name: str(document[each.name]) for each in fields(Secrets)})
    except FileNotFoundError:
        return None
    except PermissionError:
        raise StackError(f"{path} cannot be read", hint=f"run `chmod 600 {path}` as its owner") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        # Never replaced by new ones: what was encrypted with the lost key would be lost with it.
        raise StackError(
            f"{path} is damaged", hint="restore it from a backup; without it the secrets in saved blocks cannot be read"
        ) from None


def load_or_make_secrets(path: Path) -> Secrets:
    """Return the secrets in `path`, made now when there are none; raises as `read_secrets` does.

    One process at a time: the supervisor calls it while it holds its lock.
    """
    found = read_secrets(path)
    if found is not None:
        return found
    made = Secrets.random()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".secrets-")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(made), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return made
