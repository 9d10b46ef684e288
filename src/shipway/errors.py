"""Every error Shipway raises, as one tree.

A class's docstring is its default message, and `exit_code` is what the command line exits with. The table of exit
statuses in `docs/reference/exit-statuses.md` is generated from this module.
"""

from __future__ import annotations

from typing import ClassVar

MAX_WORDS = 1500
"""Characters of a message about stored bytes; the address in it may have a thousand."""


class ShipwayError(Exception):
    """Something went wrong in Shipway."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        """Say what happened to which thing, and what to do next.

        Args:
            message: what happened, naming the thing it happened to; by default the first line of the class docstring.
            hint: what the reader can do about it, without a final full stop.
        """
        self.message = message or (self.__doc__ or "").strip().splitlines()[0].rstrip(".")
        self.hint = hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(ShipwayError):
    """The command line was not understood."""

    exit_code = 2


class InputError(ShipwayError):
    """Something given to Shipway (a file, a name, a value) cannot be used."""

    exit_code = 3


class FlowFileError(InputError):
    """The flow cannot be loaded from its file."""


class DeploymentFileError(InputError):
    """The deployment file has a mistake."""


class FolderError(InputError):
    """The folder holds something that cannot become part of a release."""


class ParameterError(InputError):
    """The parameters do not fit the flow."""


class CodecError(InputError):
    """There is no codec for this value."""


class NotFoundError(ShipwayError):
    """The thing named does not exist."""

    exit_code = 4


class ServerError(ShipwayError):
    """The Prefect API answered with an error."""

    exit_code = 5


class ServerUnreachableError(ServerError):
    """The Prefect API does not answer."""


class StoreError(ShipwayError):
    """The store failed."""

    exit_code = 6


class ObjectNotFoundError(StoreError, NotFoundError):
    """The object does not exist in the store."""

    exit_code = 4


class ObjectExistsError(StoreError):
    """The object exists already and may not be overwritten."""

    exit_code = 7


class BucketNotFoundError(StoreError):
    """The bucket does not exist."""


class AccessDeniedError(StoreError):
    """The store refused the credentials."""


class StoreUnreachableError(StoreError):
    """The store does not answer."""


class UnsupportedStoreError(StoreError):
    """The store lacks something Shipway needs, such as conditional writes."""


class ConflictError(StoreError):
    """Somebody else changed the same thing meanwhile."""

    exit_code = 7


class StackError(ShipwayError):
    """The local stack could not do what was asked."""

    exit_code = 8


class PortTakenError(StackError):
    """A port the stack needs is in use."""


class IntegrityError(ShipwayError):
    """Stored bytes are not what they were when they were written."""

    exit_code = 9

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        """Say what happened, at a bounded length: names in the message may be whatever somebody has put there."""
        super().__init__(message and message[:MAX_WORDS], hint=hint)


class RunFailedError(ShipwayError):
    """The run failed."""


class RunCrashedError(RunFailedError):
    """The run crashed."""

    exit_code = 10


class RunCancelledError(RunFailedError):
    """The run was cancelled."""

    exit_code = 11


class NotReproducedError(ShipwayError):
    """A run that repeats another one saved something else."""

    exit_code = 12


class MlflowError(ShipwayError):
    """MLflow refused."""

    exit_code = 13


class MlflowUnreachableError(MlflowError):
    """MLflow does not answer, or does not let us in."""
