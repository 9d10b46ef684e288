"""Pieces of work with a run's data: a large frame, or many small values, saved and loaded as each tool does it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.alone import Job

if TYPE_CHECKING:
    import polars as pl

ROWS, COLUMNS = 16_000_000, 8
"""1.02 GB of numbers that do not repeat, so that no compression makes them less."""
SMALL = 1_000
FLOW, RUN = "bench", "0197a000-0000-7000-8000-00000000bead"


def make_frame() -> pl.DataFrame:
    """Return the large frame, the same in every process."""
    import numpy as np
    import polars as pl

    return pl.DataFrame({f"c{number}": np.random.default_rng(number).random(ROWS) for number in range(COLUMNS)})


def check_frame(frame: pl.DataFrame) -> None:
    """Fail unless a frame is the large one."""
    import numpy as np

    last = np.random.default_rng(COLUMNS - 1).random(ROWS)
    if frame.shape != (ROWS, COLUMNS) or not np.array_equal(frame[:, -1].to_numpy(), last):
        raise RuntimeError("another frame was loaded than was saved")


def small_values() -> dict[str, dict[str, Any]]:
    """Return many small values by name, about 1 kB each."""
    return {f"value-{number}": {f"key-{key}": number * 1000 + key for key in range(50)} for number in range(SMALL)}


def check_small(values: dict[str, Any]) -> None:
    """Fail unless these are the small values."""
    if values != small_values():
        raise RuntimeError("other values were loaded than were saved")


def shipway_save_frame(job: Job) -> Iterator[None]:
    """Save in a run, record included."""
    frame = make_frame()
    yield from _shipway_save(job, {"frame": frame})


def shipway_save_small(job: Job) -> Iterator[None]:
    """Likewise."""
    yield from _shipway_save(job, small_values())


def _shipway_save(job: Job, values: dict[str, Any]) -> Iterator[None]:
    import shipway
    from shipway.run.order import Order
    from shipway.run.session import Session, activate

    scratch = Path(job.state)
    scratch.mkdir(parents=True)
    shipway.save, shipway.load  # noqa: B018 - imported when first asked for
    yield
    order = Order(RUN, "run", FLOW, None, 1, None, {}, "2026-01-01T00:00:00+00:00", "", "")
    session = Session.begin(order, scratch, _shipway_store(job))
    activate(session)
    for name, value in values.items():
        shipway.save(name, value)
    session.commit(session.record())
    session.close()
    yield


def shipway_load_frame(job: Job) -> Iterator[None]:
    """Load what a run saved, from its record on."""
    import polars  # noqa: F401

    import shipway

    shipway.load  # noqa: B018
    yield
    frame = shipway.load("frame", flow=FLOW, store=_shipway_store(job))
    yield
    check_frame(frame)


def shipway_load_small(job: Job) -> Iterator[None]:
    """Likewise, one after the other as a flow does."""
    import shipway

    shipway.load  # noqa: B018
    yield
    store = _shipway_store(job)
    found = {name: shipway.load(name, flow=FLOW, store=store) for name in small_values()}
    yield
    check_small(found)


def shipway_keep_nothing(job: Job) -> Iterator[None]:
    """Do all that keeping a run's data takes, where there is none: from the folder as it was found to the record."""
    from shipway.run.capture import snapshot
    from shipway.run.environment import environment
    from shipway.run.order import Order
    from shipway.run.session import Session

    folder, scratch = Path(job.folder), Path(job.state)
    for path in (folder, scratch):
        path.mkdir(parents=True)
    for number in range(20):
        (folder / f"module_{number}.py").write_text("x = 1\n")
    environment()  # known to a template before its runs are forked
    before = snapshot(folder)
    store = _shipway_store(job)
    yield
    order = Order(RUN, "run", FLOW, None, 1, None, {}, "2026-01-01T00:00:00+00:00", "", "")
    session = Session.begin(order, scratch, store)
    session.capture(folder, before, max_bytes=1 << 30, max_files=10_000)
    session.commit(session.record())
    session.close()
    yield


def _shipway_store(job: Job) -> Any:
    from shipway.store.object_store import ObjectStore
    from shipway.store.url import StoreConfig

    return ObjectStore(
        StoreConfig(
            "s3",
            bucket=job.bucket,
            prefix=job.prefix,
            endpoint_url=job.endpoint_url,
            region="us-east-1",
            access_key=os.environ["AWS_ACCESS_KEY_ID"],
            secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        )
    )


def prefect_save_frame(job: Job) -> Iterator[None]:
    """Write a file and upload it with prefect-aws's block."""
    bucket, frame = _prefect_bucket(job), make_frame()
    yield
    with tempfile.TemporaryDirectory() as folder:
        frame.write_parquet(f"{folder}/frame.parquet")
        bucket.upload_from_path(f"{folder}/frame.parquet", "frame.parquet")
    yield


def prefect_load_frame(job: Job) -> Iterator[None]:
    """Download the file and read it."""
    import polars as pl

    bucket = _prefect_bucket(job)
    yield
    with tempfile.TemporaryDirectory() as folder:
        bucket.download_object_to_path("frame.parquet", f"{folder}/frame.parquet")
        frame = pl.read_parquet(f"{folder}/frame.parquet")
    yield
    check_frame(frame)


def prefect_save_small(job: Job) -> Iterator[None]:
    """Write each value with the block."""
    bucket, values = _prefect_bucket(job), small_values()
    yield
    for name, value in values.items():
        bucket.write_path(f"{name}.json", json.dumps(value).encode())
    yield


def prefect_load_small(job: Job) -> Iterator[None]:
    """Read each value with the block."""
    bucket = _prefect_bucket(job)
    yield
    found = {name: json.loads(bucket.read_path(f"{name}.json")) for name in small_values()}
    yield
    check_small(found)


def _prefect_bucket(job: Job) -> Any:
    from prefect_aws import AwsCredentials, S3Bucket
    from prefect_aws.client_parameters import AwsClientParameters

    keys = AwsCredentials(
        aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=job.endpoint_url),
    )
    return S3Bucket(bucket_name=job.bucket, bucket_folder=job.prefix, credentials=keys)


def polars_save_frame(job: Job) -> Iterator[None]:
    """Let polars write to S3 itself."""
    frame = make_frame()
    yield
    frame.write_parquet(f"s3://{job.bucket}/{job.prefix}/frame.parquet", storage_options=_polars_options(job))
    yield


def polars_load_frame(job: Job) -> Iterator[None]:
    """Let polars read from S3 itself."""
    import polars as pl

    yield
    frame = pl.read_parquet(f"s3://{job.bucket}/{job.prefix}/frame.parquet", storage_options=_polars_options(job))
    yield
    check_frame(frame)


def _polars_options(job: Job) -> dict[str, str]:
    return {
        "aws_endpoint_url": job.endpoint_url,
        "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }


def s3fs_save_frame(job: Job) -> Iterator[None]:
    """Write through a file of s3fs."""
    fs, frame = _s3fs(job), make_frame()
    yield
    with fs.open(f"{job.bucket}/{job.prefix}/frame.parquet", "wb") as file:
        frame.write_parquet(file)
    yield


def s3fs_load_frame(job: Job) -> Iterator[None]:
    """Read through a file of s3fs."""
    import polars as pl

    fs = _s3fs(job)
    yield
    with fs.open(f"{job.bucket}/{job.prefix}/frame.parquet", "rb") as file:
        frame = pl.read_parquet(file)
    yield
    check_frame(frame)


def s3fs_save_small(job: Job) -> Iterator[None]:
    """Write all values with one call, which is the quickest way s3fs has."""
    fs, values = _s3fs(job), small_values()
    yield
    fs.pipe({f"{job.bucket}/{job.prefix}/{name}.json": json.dumps(value).encode() for name, value in values.items()})
    yield


def s3fs_load_small(job: Job) -> Iterator[None]:
    """Read all values with one call."""
    fs = _s3fs(job)
    names = list(small_values())
    yield
    found = fs.cat([f"{job.bucket}/{job.prefix}/{name}.json" for name in names])
    values = {path.rpartition("/")[2].removesuffix(".json"): json.loads(data) for path, data in found.items()}
    yield
    check_small(values)


def _s3fs(job: Job) -> Any:
    import s3fs

    return s3fs.S3FileSystem(
        key=os.environ["AWS_ACCESS_KEY_ID"],
        secret=os.environ["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=job.endpoint_url,
        client_kwargs={"region_name": "us-east-1"},
    )


def metaflow_save_frame(job: Job) -> Iterator[None]:
    """Save as an artifact of a task, which is a pickle in a content-addressed store."""
    task, frame = _metaflow_task(job, "w"), make_frame()
    yield
    task.save_artifacts(iter([("frame", frame)]))
    task.done()
    yield


def metaflow_load_frame(job: Job) -> Iterator[None]:
    """Load an artifact of a task."""
    import polars  # noqa: F401

    yield
    ((_, frame),) = _metaflow_task(job, "r").load_artifacts(["frame"])
    yield
    check_frame(frame)


def metaflow_save_small(job: Job) -> Iterator[None]:
    """Save each value as an artifact of one task."""
    task, values = _metaflow_task(job, "w"), small_values()
    yield
    task.save_artifacts(iter((name.replace("-", "_"), value) for name, value in values.items()))
    task.done()
    yield


def metaflow_load_small(job: Job) -> Iterator[None]:
    """Load all artifacts of one task."""
    _metaflow(job)
    yield
    names = [name.replace("-", "_") for name in small_values()]
    found = {name.replace("_", "-"): value for name, value in _metaflow_task(job, "r").load_artifacts(names)}
    yield
    check_small(found)


def _metaflow(job: Job) -> Any:
    os.environ["METAFLOW_S3_ENDPOINT_URL"] = job.endpoint_url
    os.environ["METAFLOW_DATASTORE_SYSROOT_S3"] = f"s3://{job.bucket}/{job.prefix}"
    os.environ["USER"] = "bench"
    from metaflow.datastore.flow_datastore import FlowDataStore
    from metaflow.metaflow_environment import MetaflowEnvironment
    from metaflow.plugins.datastores.s3_storage import S3Storage

    root = f"s3://{job.bucket}/{job.prefix}"
    return FlowDataStore("Bench", MetaflowEnvironment(None), storage_impl=S3Storage, ds_root=root)


def _metaflow_task(job: Job, mode: str) -> Any:
    task = _metaflow(job).get_task_datastore("1", "step", "1", attempt=0, mode=mode)
    if mode == "w":
        task.init_task()
    return task
