"""What is done to a bucket as a whole, and where AWS credentials come from. The only module that imports boto3."""

from __future__ import annotations

import os
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ProfileNotFound, ProxyConnectionError
from botocore.exceptions import ConnectionError as NoConnectionError

from shipway.errors import AccessDeniedError, InputError, StoreError
from shipway.store.url import StoreConfig, local_host
from shipway.store.words import CREDENTIALS_HINT, Refusal, explain, unreachable

DEFAULT_REGION = "us-east-1"
PROXY_HINT = "check HTTP_PROXY and HTTPS_PROXY in the environment, and your network"


def aws_session(config: StoreConfig) -> boto3.Session:
    """Return the boto3 session that stands for the standard AWS chain: environment, profile, SSO, instance role.

    Raises:
        AccessDeniedError: the profile does not exist, or there are no credentials, or they cannot be had.
    """
    try:
        session = boto3.Session(profile_name=config.profile, region_name=config.region or os.environ.get("AWS_REGION"))
        found = config.access_key or session.get_credentials()
    except ProfileNotFound:
        raise AccessDeniedError(
            f"there is no AWS profile {config.profile or os.environ.get('AWS_PROFILE')!r}", hint=CREDENTIALS_HINT
        ) from None
    except BotoCoreError as error:
        raise _withheld(error, config) from None
    if not found:
        raise AccessDeniedError(f"there are no credentials for {config.address}", hint=CREDENTIALS_HINT)
    return session


def ensure_bucket(config: StoreConfig) -> bool:
    """Create the bucket of `config` where it is missing and we may.

    Returns:
        True when it was created, False when it was there.

    Raises:
        AccessDeniedError: the store refused the credentials, or there are none.
        StoreError: the name belongs to somebody else, the bucket is in another region, or the store failed.
        StoreUnreachableError: the store does not answer.
    """
    if config.kind != "s3":
        raise InputError(f"{config.address} is not a bucket")
    try:
        client = _client(config)
        return not _exists(client, config) and _create(client, config)
    except ClientError as error:
        raise _translate(error, config) from error
    except (NoConnectionError, HTTPClientError) as error:
        raise _unreached(error, config) from None
    except BotoCoreError as error:
        raise _withheld(error, config) from None


def _withheld(error: BotoCoreError, config: StoreConfig) -> AccessDeniedError:
    """Name the failure only: its text may repeat what a credential process printed."""
    return AccessDeniedError(
        f"the AWS credentials for {config.address} cannot be had: {type(error).__name__}", hint=CREDENTIALS_HINT
    )


def _unreached(error: BotoCoreError, config: StoreConfig) -> StoreError:
    """Say why nothing answered; without the words of what failed at a proxy, whose address may hold a password."""
    if isinstance(error, ProxyConnectionError):
        return unreachable(config, "the proxy is not reached", hint=PROXY_HINT)
    if type(error) is HTTPClientError:
        return unreachable(config, type(error.kwargs.get("error")).__name__, hint=PROXY_HINT)
    return unreachable(config, str(error))


def _client(config: StoreConfig) -> Any:
    session = aws_session(config)
    options = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"total_max_attempts": 3, "mode": "standard"},
        # No proxy of the environment is asked for what runs on this machine.
        proxies={} if local_host(config.endpoint_url) else None,
        s3={"addressing_style": "path"} if config.endpoint_url else None,
    )
    return session.client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=session.region_name or DEFAULT_REGION,
        aws_access_key_id=config.access_key,
        aws_secret_access_key=config.secret_key,
        aws_session_token=config.session_token,
        config=options,
    )


def _exists(client: Any, config: StoreConfig) -> bool:
    try:
        client.head_bucket(Bucket=config.bucket)
    except ClientError as error:
        status = _refusal(error).status
        if status == 404:
            return False
        if status == 403:
            # A HEAD has no body: only the answer to a GET tells wrong keys from missing rights.
            client.list_objects_v2(Bucket=config.bucket, Prefix=config.prefix, MaxKeys=1)
            return True
        raise
    return True


def _create(client: Any, config: StoreConfig) -> bool:
    region = client.meta.region_name
    # us-east-1 is the one region that must not be named.
    where = {} if region == DEFAULT_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(Bucket=config.bucket, **where)
    except ClientError as error:
        if _refusal(error).code == "BucketAlreadyOwnedByYou":  # somebody was faster
            return False
        raise
    return True


def _translate(error: ClientError, config: StoreConfig) -> StoreError:
    refusal = _refusal(error)
    if refusal.code == "BucketAlreadyExists":
        return StoreError(f"the bucket name {config.bucket!r} belongs to somebody else", hint="choose another name")
    return explain(refusal, config, f"bucket {config.bucket!r}")


def _refusal(error: ClientError) -> Refusal:
    response: Any = error.response
    said, answer = response.get("Error", {}), response.get("ResponseMetadata", {})
    region = answer.get("HTTPHeaders", {}).get("x-amz-bucket-region", "") or said.get("Region", "")
    return Refusal(
        int(answer.get("HTTPStatusCode", 0)), str(said.get("Code", "")), str(said.get("Message", "")), region
    )
