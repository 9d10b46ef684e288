"""`shipway block`: save a store as a Prefect block."""

from __future__ import annotations

import os
import sys

import click

from shipway.cli.output import echo, epilog, json_option, print_json, say
from shipway.errors import BucketNotFoundError, NotFoundError, UsageError
from shipway.settings import Settings
from shipway.store.opening import open_store
from shipway.store.url import StoreConfig, parse_bucket_path


@click.group()
def command() -> None:
    """Save a store as a Prefect block."""


@command.command(
    epilog=epilog(
        [
            "shipway block s3 flights --bucket-path my-bucket/flights --region eu-central-1",
            "shipway block s3 flights --bucket-path my-bucket --profile work",
            "shipway block s3 minio --bucket-path data --endpoint-url https://minio.example --secrets-from-stdin <keys",
            "shipway block s3 mine --bucket-path mine --stack",
        ],
        [3, 4, 5, 6],
    )
)
@click.argument("name")
@click.option(
    "--bucket-path", required=True, metavar="BUCKET[/PREFIX]", help="Where it is; the bucket is made if it may be."
)
@click.option("--endpoint-url", metavar="URL", help="Address of a server other than AWS.")
@click.option("--region", metavar="REGION", help="Region of the bucket.")
@click.option("--profile", metavar="PROFILE", help="Profile in the AWS configuration files of whoever runs the flow.")
@click.option("--stack", "of_stack", is_flag=True, help="A bucket in the local stack's own object store.")
@click.option(
    "--keep-keys",
    is_flag=True,
    help="Keep the keys of the environment (AWS_ACCESS_KEY_ID, ...) in the block, encrypted.",
)
@click.option(
    "--secrets-from-stdin",
    is_flag=True,
    help="Read keys for the block from standard input: access key, secret key and, if any, session token, a line each.",
)
@json_option
def s3(
    name: str,
    bucket_path: str,
    endpoint_url: str | None,
    region: str | None,
    profile: str | None,
    of_stack: bool,
    keep_keys: bool,
    secrets_from_stdin: bool,
    as_json: bool,
) -> None:
    """Save a bucket as block s3/NAME, after trying it: write, read, conditional write, delete.

    Without keys in the block, whoever runs the flow needs them in the standard AWS chain: environment, profile, SSO or
    instance role. Keys never go on the command line. With --endpoint-url the keys of the environment are kept, because
    such a server's keys are in nobody's chain.
    """
    from shipway.prefect.api import Api
    from shipway.prefect.blocks import check_block_name, save_s3_block

    settings = Settings.load()
    check_block_name(name)
    bucket, prefix = parse_bucket_path(bucket_path)
    if of_stack:
        if endpoint_url or secrets_from_stdin or profile:
            raise UsageError("--stack already says where the bucket is and with which keys")
        config = _stack_config(settings, bucket, prefix)
    else:
        access, secret, token = _keys(secrets_from_stdin, keep=keep_keys or bool(endpoint_url))
        config = StoreConfig(
            kind="s3",
            bucket=bucket,
            prefix=prefix,
            endpoint_url=endpoint_url,
            region=region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            profile=profile,
            access_key=access,
            secret_key=secret,
            session_token=token,
        )
    from shipway.store.probe import probe

    Api(settings).request("GET", "/health")
    # Somebody waits for the answer: a store that is not there is told after seconds, not after a minute of trying.
    store = open_store(config, retry_seconds=5)
    made = False
    try:
        probe(store)
    except BucketNotFoundError:
        from shipway.store.bucket import ensure_bucket

        made = ensure_bucket(config)
        probe(store)
    save_s3_block(settings, name, config)
    if as_json:
        print_json({"block": f"s3/{name}", "address": store.address, "bucket_made": made})
        return
    if made:
        say(f"Made bucket {bucket}.")
    echo(f"Saved block s3/{name}: {store.address}")


def _stack_config(settings: Settings, bucket: str, prefix: str) -> StoreConfig:
    from dataclasses import replace

    from shipway.stack import facts

    stack = facts(settings)
    if stack is None or stack.store.kind != "s3":
        raise NotFoundError("no stack with an object store runs in this project", hint="start one with `shipway up`")
    return replace(stack.store, bucket=bucket, prefix=prefix)


def _keys(from_stdin: bool, *, keep: bool) -> tuple[str | None, str | None, str | None]:
    if from_stdin:
        lines = [line.strip() for line in sys.stdin.read().splitlines() if line.strip()]
        if len(lines) not in (2, 3):
            raise UsageError(
                f"standard input holds {len(lines)} lines",
                hint="give access key, secret key and, if any, session token",
            )
        return lines[0], lines[1], lines[2] if len(lines) == 3 else None
    if keep:
        get = os.environ.get
        return get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"), get("AWS_SESSION_TOKEN")
    return None, None, None
