"""A tracking server of MLflow, over its REST API 2.0 and without its package."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from shipway.errors import InputError, MlflowError, MlflowUnreachableError
from shipway.mlflow import answers
from shipway.settings import THIS_MACHINE

VARIABLE = "MLFLOW_TRACKING_URI"
TIMEOUT = 30.0
PAGE = 1000
MAX_BYTES = 256 << 20
"""No answer is longer; a page of runs with all that MLflow keeps of them has a hundredth."""
MAX_REFUSAL = 1 << 20

_ABSENT = "RESOURCE_DOES_NOT_EXIST"
_EXISTS = "RESOURCE_ALREADY_EXISTS"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would turn a POST into a GET, and take the credentials to whoever it names."""

    def redirect_request(self, *_args: Any) -> None:
        """Refuse."""


class Server:
    """A tracking server.

    Every method raises MlflowUnreachableError when nothing answers there or it does not let us in, and MlflowError when
    it refuses what it was asked.

    Args:
        address: where it is, without credentials.
        authorization: value of the header `Authorization`.
        timeout: seconds that each part of an answer may take.
        authorities: file of certificates to trust, for a server whose authority the system does not know.

    Attributes:
        address: where it is, without credentials and without a final slash.
    """

    def __init__(
        self,
        address: str,
        authorization: str | None = None,
        *,
        timeout: float = TIMEOUT,
        authorities: str | None = None,
    ) -> None:
        self.address = address.rstrip("/")
        self._authorization = authorization
        self._timeout = timeout
        parts = urllib.parse.urlsplit(address)
        local = parts.hostname in THIS_MACHINE
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.ProxyHandler({} if local else None),
            _NoRedirect(),
        ]
        if authorities and parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=authorities)
            except OSError as error:
                raise InputError(f"MLFLOW_TRACKING_SERVER_CERT_PATH names no file of certificates: {error}") from None
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, *, timeout: float = TIMEOUT) -> Server:
        """Return the server that MLflow's own variables name.

        These are `MLFLOW_TRACKING_URI`, `_USERNAME` and `_PASSWORD`, `_TOKEN`, and `_SERVER_CERT_PATH`. Credentials in
        the address serve where the variables give none, and are shown nowhere.

        Raises:
            InputError: the address is not set, or cannot be one of a server.
        """
        given = environ.get(VARIABLE, "").strip()
        if not given:
            raise InputError(f"{VARIABLE} is not set", hint="set it to the address of a tracking server, https://HOST")
        try:
            parts = urllib.parse.urlsplit(given)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise InputError(f"{VARIABLE} is not an address", hint="write https://HOST[:PORT][/PATH]") from None
        if not usable:
            # The rest is not repeated: the address of a database holds a password.
            kind = f"{parts.scheme}:" if parts.scheme else "no http"
            raise InputError(
                f"{VARIABLE} has an address of a kind ({kind}) that is not supported",
                hint="only a tracking server at http:// or https:// is",
            )
        host = parts.netloc.rpartition("@")[2]
        address = urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))
        user = environ.get("MLFLOW_TRACKING_USERNAME")
        password = environ.get("MLFLOW_TRACKING_PASSWORD")
        token = environ.get("MLFLOW_TRACKING_TOKEN")
        authorization = None
        if user and password:
            authorization = _basic(user, password)
        elif token:
            authorization = f"Bearer {token}"
        elif parts.username:
            unquote = urllib.parse.unquote
            authorization = _basic(unquote(parts.username), unquote(parts.password or ""))
        authorities = environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        return cls(address, authorization, timeout=timeout, authorities=authorities)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        kind: Any = dict[str, Any],
        unless: str | None = None,
    ) -> Any:
        """Send one request and return the answer, read as a `kind`, or None when it is MLflow's error `unless`."""
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode(errors="replace")
        try:
            request = urllib.request.Request(f"{self.address}/api/2.0/mlflow/{path}", data, method=method)  # noqa: S310
            request.add_header("Content-Type", "application/json")
            if self._authorization:
                request.add_unredirected_header("Authorization", self._authorization)
            with self._opener.open(request, timeout=self._timeout) as answer:
                text = answer.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                return self._explain(error, path, unless)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            raise MlflowUnreachableError(
                f"no MLflow answers at {self.address} ({said[:200]})", hint=f"check {VARIABLE}; is the server up?"
            ) from None
        try:
            if len(text) <= MAX_BYTES:
                return msgspec.json.decode(text, type=kind)
        except (ValueError, RecursionError):
            pass  # said below
        raise self._stranger()

    def find_experiment(self, name: str) -> str | None:
        """Return the id of an experiment, or None where there is none.

        Raises:
            MlflowError: it was deleted, so that its name is taken and nothing can be added.
        """
        query = urllib.parse.urlencode({"experiment_name": name})
        found = self.request("GET", f"experiments/get-by-name?{query}", kind=answers.Experiment, unless=_ABSENT)
        if found is None:
            return None
        if found.experiment.lifecycle_stage == answers.DELETED:
            raise MlflowError(
                f"experiment {name!r} was deleted in MLflow", hint="restore it there, or remove it with `mlflow gc`"
            )
        return str(found.experiment.experiment_id)

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, made where there was none."""
        if (found := self.find_experiment(name)) is not None:
            return found
        made = self.request("POST", "experiments/create", {"name": name}, kind=answers.ExperimentId, unless=_EXISTS)
        # Where another run of the flow has made it meanwhile, that one serves.
        found = made.experiment_id if made else self.find_experiment(name)
        if found is None:
            raise MlflowError(f"MLflow at {self.address} says that experiment {name!r} is there, and has none")
        return str(found)

    def search(self, experiment: str, condition: str) -> Iterator[answers.Run]:
        """Yield the runs of an experiment that meet a condition, deleted ones too."""
        body = {"experiment_ids": [experiment], "filter": condition, "run_view_type": "ALL", "max_results": PAGE}
        while True:
            answer = self.request("POST", "runs/search", body, kind=answers.Runs)
            yield from answer.runs
            if not answer.next_page_token:
                return
            if answer.next_page_token == body.get("page_token"):
                raise MlflowError(f"MLflow at {self.address} gives the same page of runs again and again")
            body["page_token"] = answer.next_page_token

    def run_url(self, experiment: str, run: str) -> str:
        """Return where MLflow's UI shows a run."""
        return f"{self.address}/#/experiments/{experiment}/runs/{run}"

    def _explain(self, error: urllib.error.HTTPError, path: str, unless: str | None) -> None:
        if error.code in (401, 403):
            raise MlflowUnreachableError(
                f"MLflow at {self.address} refused us ({error.code})",
                hint="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            )
        try:
            refusal = msgspec.json.decode(error.read(MAX_REFUSAL), type=answers.Refusal)
        except (OSError, ValueError, RecursionError, http.client.HTTPException):
            if error.code >= 500:
                raise MlflowUnreachableError(f"MLflow at {self.address} is not well ({error.code})") from None
            raise self._stranger() from None
        if refusal.error_code != unless:
            said = (refusal.message.splitlines() or [refusal.error_code])[0][:300]
            raise MlflowError(f"MLflow at {self.address} answered {error.code} to {path.partition('?')[0]}: {said}")

    def _stranger(self) -> MlflowUnreachableError:
        return MlflowUnreachableError(f"{self.address} does not answer as MLflow does", hint=f"check {VARIABLE}")


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
