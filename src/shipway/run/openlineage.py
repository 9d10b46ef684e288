"""Lineage in the terms of OpenLineage: one event for each run that has completed.

After https://openlineage.io/spec/2-0-2/OpenLineage.json and the facets beside it; names of datasets as its page
`spec/Naming.md` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version as installed
from typing import Any

from shipway.artifact import Artifact
from shipway.blob import release_key
from shipway.manifest import Version
from shipway.run.lineage import Lineage, environment_digest, inputs_of
from shipway.run.record import RunRecord
from shipway.store.base import Store

SPEC = "https://openlineage.io/spec"
SCHEMA = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"


def events(store: Store, lineage: Lineage) -> list[dict[str, Any]]:
    """Return a COMPLETE event for each run in a lineage whose record is sound, the earliest first."""
    records = sorted(lineage.records(), key=lambda record: (record.timings["ended"], record.run_id))
    saved = {artifact.key: artifact for record in records for artifact in record.artifacts}
    return [_event(store, record, lineage.locks.get(record.release or "", {}), saved) for record in records]


def _event(
    store: Store, record: RunRecord, locks: Mapping[str, str] | str, saved: Mapping[str, Artifact]
) -> dict[str, Any]:
    run = {
        "nominalTime": _facet("1-0-1", "NominalTimeRunFacet", nominalStartTime=record.timings["scheduled"]),
        "jobRunParameters": _facet(
            "1-0-0",
            "JobRunParametersFacet",
            parameters=[{"key": key, "value": value} for key, value in record.parameters.items()],
        ),
        "shipway_run": _own(
            "run",
            name=record.run_name,
            attempt=record.attempt,
            deployment=record.deployment,
            reproduces=record.reproduces,
            resumes=record.resumes,
            metrics=dict(record.metrics),
            models=[f"{model['name']}@{model['version']}" for model in record.models],
        ),
        "shipway_environment": _own("environment", sha256=environment_digest(record), **record.environment),
        "shipway_reads": _own("reads", files=list(record.reads), gap=record.reads_gap),
    }
    if prefect := record.environment.get("packages", {}).get("prefect"):
        run["processing_engine"] = _facet("1-1-1", "ProcessingEngineRunFacet", version=prefect, name="Prefect")
    job = {"jobType": _facet("2-0-3", "JobTypeJobFacet", processingType="BATCH", integration="SHIPWAY", jobType="FLOW")}
    if record.release:
        release = Version.parse(record.release)
        job["sourceCodeLocation"] = _facet(
            "1-0-1",
            "SourceCodeLocationJobFacet",
            type="shipway",
            url=store.url(release_key(release.epoch, release.release_id)),
            version=record.release,
        )
        job["shipway_locks"] = _own("locks", files={} if isinstance(locks, str) else dict(locks))
    return {
        "eventType": "COMPLETE",
        "eventTime": record.timings["ended"],
        "run": {"runId": record.run_id, "facets": run},
        "job": {"namespace": store.address, "name": record.deployment or record.flow, "facets": job},
        "inputs": [_dataset(store, item["key"], item["sha256"], saved) for item in inputs_of(record)],
        "outputs": [_output(store, artifact) for artifact in record.artifacts],
        "producer": _producer(),
        "schemaURL": SCHEMA,
    }


def _output(store: Store, artifact: Artifact) -> dict[str, Any]:
    dataset = _dataset(store, artifact.key, artifact.sha256, {artifact.key: artifact})
    if artifact.rows is not None:
        statistics = {"rowCount": artifact.rows, "size": artifact.bytes}
        dataset["outputFacets"] = {
            "outputStatistics": _facet("1-0-2", "OutputStatisticsOutputDatasetFacet", **statistics)
        }
    return dataset


def _dataset(store: Store, key: str, sha256: str, saved: Mapping[str, Artifact]) -> dict[str, Any]:
    # `s3://BUCKET` and the key in it, or `file` and the path: as other tools name the same object.
    scheme, _, rest = store.url(key).partition("://")
    bucket, _, name = rest.partition("/")
    where = {"namespace": f"s3://{bucket}", "name": name} if scheme == "s3" else {"namespace": scheme, "name": rest}
    facets = {"version": _facet("1-0-1", "DatasetVersionDatasetFacet", datasetVersion=sha256)}
    if artifact := saved.get(key):
        facts = {"name": artifact.name, "codec": artifact.codec, "bytes": artifact.bytes, "captured": artifact.captured}
        facets["shipway_artifact"] = _own("artifact", **facts)
    return {**where, "facets": facets}


def _facet(number: str, kind: str, /, **facts: Any) -> dict[str, Any]:
    return {"_producer": _producer(), "_schemaURL": f"{SPEC}/facets/{number}/{kind}.json#/$defs/{kind}", **facts}


def _own(kind: str, /, **facts: Any) -> dict[str, Any]:
    """Return a facet of ours; docs/explanation/lineage.md says what is in it."""
    return {"_producer": _producer(), "_schemaURL": f"urn:shipway:facet:{kind}:1", **facts}


def _producer() -> str:
    return f"urn:shipway:{installed('shipway')}"
