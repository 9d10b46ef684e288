"""`register` and `champion`: what a flow says about its models, and how anybody gets the present one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, overload

from shipway.digest import canonical_json
from shipway.errors import InputError, IntegrityError, NotFoundError
from shipway.model.commit import champions_seen
from shipway.model.decision import Decision
from shipway.model.promotion import settle
from shipway.model.registry import champion_at, current_version
from shipway.model.version import ModelVersion
from shipway.run.data import read_artifact
from shipway.run.models import model_folder
from shipway.run.session import Session, current
from shipway.store.base import Store
from shipway.store.opening import open_store
from shipway.store.url import parse_address

_T = TypeVar("_T")


def register(
    name: str,
    artifact: str = "model",
    *,
    decision: Decision | None,
    predict: Callable[[Any], Any] | None = None,
    expected: Any = None,
    facts: Mapping[str, Any] | None = None,
    tolerance: float = 0.0,
) -> ModelVersion:
    """Make something this run has saved the next version of a model, when the run completes.

    It is fetched from the store, turned back into a value, and must then predict what it predicted. It becomes champion
    when `decision` says so, this check was made, and the champion is still the one that the run asked for.

    Args:
        name: the model's name.
        artifact: what it was saved as.
        decision: what `shipway.gate` returned; None registers it without making it champion.
        predict: a function that returns predictions of the model it is given. Without it nothing is checked, and the
            version is registered without making it champion.
        expected: what the model predicted before it was saved.
        facts: what else to say of the version, as plain values.
        tolerance: by how much a prediction may differ.

    Returns:
        The version, whose number is 0 until the run has completed.

    Raises:
        InputError: there is no run; or a name or value cannot be used.
        NotFoundError: the run has saved nothing under `artifact`.
        IntegrityError: the model that was loaded again predicts something else.
    """
    session = current()
    if session is None:
        raise InputError("register() works inside a run only", hint="deploy the flow, or run it as a script")
    model_folder(name)
    if decision is not None and not isinstance(decision, Decision):
        raise InputError(f"decision is a {type(decision).__name__}", hint="give what shipway.gate returned, or None")
    if (predict is None) != (expected is None):
        raise InputError("predict and expected go together", hint="give both, or neither to have nothing checked")
    try:
        canonical_json(facts or {})
    except (TypeError, ValueError) as error:
        raise InputError(f"the facts of model {name} are not plain values: {error}") from None
    saved = session.own(artifact)
    if saved is None:
        raise NotFoundError(f"this run has saved no {artifact!r}", hint=f"call shipway.save({artifact!r}, ...) first")
    artifacts = session.artifacts()
    checked = None
    if predict is not None:
        again = read_artifact(session.store, saved, artifacts)
        rows = _compare(name, _values(predict(again)), _values(expected), tolerance)
        checked = {"rows": rows, "tolerance": tolerance}
    lines = session.journal.lines()
    entry: dict[str, Any] = {
        "name": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "artifact": saved.name,
        "key": saved.key,
        "sha256": saved.sha256,
        "decision": decision.to_json() if decision else None,
        "checked": checked,
        "promote": bool(decision and decision.promote and checked),
        "against": champions_seen(lines).get(name),
        "facts": dict(facts or {}),
    }
    session.journal.add({"model": entry})
    metrics: dict[str, float] = {}
    for line in lines:
        metrics |= line.get("metrics", {})
    return ModelVersion(
        name=name,
        version=0,
        run=session.order.run_id,
        run_name=session.order.run_name,
        at=entry["at"],
        decision=decision,
        metrics=metrics,
        facts=dict(facts or {}),
        promote=entry["promote"],
        against=entry["against"],
        checked=checked,
        release=session.order.release,
        artifact=saved,
        artifacts=artifacts,
        store=session.store,
    )


@overload
def champion(name: str, *, store: Store | str | None = None) -> ModelVersion: ...
@overload
def champion(name: str, default: _T, *, store: Store | str | None = None) -> ModelVersion | _T: ...
def champion(name: str, default: Any = ..., *, store: Store | str | None = None) -> Any:
    """Return the version of a model that is champion.

    Inside a run, that is the one which was champion when the run first asked; before, runs that were killed while they
    promoted one are finished, and the run waits for the one that comes before it in a backfill. A run that repeats
    another gets what that one got.

    Args:
        name: the model's name.
        default: returned where there is no champion.
        store: the store, or its address: `s3://BUCKET/PREFIX` with the keys of the AWS chain, or `file:///FOLDER`. By
            default the run's own. Needed outside a run.

    Raises:
        NotFoundError: there is no champion, and no default.
        InputError: there is no run and no store.
        IntegrityError: something of it is missing, or not as it was written.
    """
    model_folder(name)
    session = current()
    where = open_store(parse_address(store)) if isinstance(store, str) else store
    if session is None and where is None:
        raise InputError("champion() outside a run needs store=", hint="give an address: s3://BUCKET/PREFIX")
    if session is not None and (where is None or where.address == session.store.address):
        found = _champion_of_run(session, name)
    else:
        assert where is not None  # noqa: S101 - without a session there is a store
        found = current_version(where, name)
    if found is None:
        if default is not ...:
            return default
        place = where.address if where else (session.store.address if session else "")
        raise NotFoundError(
            f"{name!r} has no champion in {place}", hint="`shipway models` lists what there is; default= stands in"
        )
    if session is not None:
        session.note_input(found.artifact, found.run, asked=name, kind="model")
    return found


def _champion_of_run(session: Session, name: str) -> ModelVersion | None:
    """Return the champion as this run sees it from its first question to its end, or None."""
    seen = champions_seen(session.journal.lines())
    if name not in seen:
        session.wait_for_turn()
        before = session.repeated()
        if before is not None and name in before.champions:
            version = before.champions[name]
        else:
            settle(session.store, name)
            found = current_version(session.store, name)
            version = found.version if found else None
        session.journal.add({"champion": {"name": name, "version": version}})
        # Two tasks may have asked at the same time: what was written first counts, for both.
        seen = champions_seen(session.journal.lines())
    number = seen[name]
    return champion_at(session.store, name, number) if number is not None else None


def _values(predictions: Any) -> list[Any]:
    """Return predictions as a flat list of plain values."""
    if isinstance(predictions, str | bytes):
        return [predictions]
    if isinstance(predictions, Mapping) or hasattr(predictions, "collect"):
        raise InputError(f"predictions cannot be compared as a {type(predictions).__name__}", hint="give an array")
    # A frame of pandas has the last of these, one of polars the one before: it is taken row by row.
    for method in ("tolist", "to_list", "to_pylist", "rows", "itertuples"):
        if hasattr(predictions, method):
            predictions = getattr(predictions, method)(**({"index": False} if method == "itertuples" else {}))
            break
    if not isinstance(predictions, Iterable):
        return [predictions]
    flat: list[Any] = []
    for value in predictions:
        flat += _values(value) if isinstance(value, Iterable) else [value]
    return flat


def _compare(name: str, found: list[Any], expected: list[Any], tolerance: float) -> int:
    """Return how many values were compared, all of which are the same."""
    if not expected:
        raise InputError(f"nothing is expected of model {name}", hint="give the predictions of some rows")
    if len(found) != len(expected):
        raise IntegrityError(f"model {name}, loaded again, predicts {len(found)} values instead of {len(expected)}")
    pairs = enumerate(zip(found, expected, strict=True))
    different = [(row, *pair) for row, pair in pairs if not _same(*pair, tolerance)]
    if different:
        row, now, before = different[0]
        raise IntegrityError(
            f"model {name}, loaded again, predicts {len(different):,} of {len(expected):,} values otherwise; the first "
            f"is value {row}: {now!r} instead of {before!r}",
            hint="save it in a format that keeps it exactly, or say how much a value may differ with tolerance=",
        )
    return len(expected)


def _same(found: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(found, int | float) and isinstance(expected, int | float):
        # By their bytes: a NaN is the same as a NaN, and a negative zero is not zero.
        same = struct.pack("<d", found) == struct.pack("<d", expected)
        return same or abs(found - expected) <= tolerance > 0
    return bool(found == expected)
