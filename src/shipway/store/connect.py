"""How a bucket is talked to: where, with what credentials, and how long. Nothing is sent here."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.store import S3Store

from shipway.store.url import StoreConfig, local_host

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential, S3CredentialProvider


def connect(config: StoreConfig, retry_seconds: float) -> S3Store:
    """Return a client of the bucket that `config` describes.

    Args:
        config: where the bucket is, and with what credentials; its endpoint and region as they are to be used.
        retry_seconds: how long a failing request is tried again.

    Raises:
        AccessDeniedError: no credentials are given and the standard AWS chain has none.
    """
    provider: S3CredentialProvider
    region = config.region
    if config.access_key and config.secret_key:
        # Not as plain options: obstore would add a session token of the environment that belongs to other keys.
        provider = _Fixed(config.access_key, config.secret_key, config.session_token)
    else:
        provider, found = _standard_chain(config)
        region = region or found
    # The names of the bucket and of the host would make one certificate name too deep where the bucket has dots.
    virtual_host = config.endpoint_url is None and "." not in config.bucket
    options: S3Config = {
        "region": region or "us-east-1",
        "virtual_hosted_style_request": virtual_host,
        "checksum_algorithm": "SHA256",
        "skip_signature": False,
        # The bulk request is one that several S3 servers lack.
        "disable_bulk_delete": True,
    }
    if config.endpoint_url:
        # Both, because the environment's variable for the second would win over the first.
        options["endpoint"] = options["aws_endpoint_url_s3"] = config.endpoint_url.rstrip("/")
    return S3Store(
        config.bucket,
        config=options,
        credential_provider=provider,
        client_options=_client(config)
        | {
            # For the whole of a request, a streamed download included; what hangs is found by the read timeout.
            "timeout": timedelta(hours=6),
            "read_timeout": timedelta(seconds=120),
            "connect_timeout": timedelta(seconds=5),
            "allow_http": config.endpoint_url is not None,
        },
        # The time decides, not the count: ten retries, obstore's default, may be over in two seconds.
        retry_config={
            "max_retries": 1_000,
            "retry_timeout": timedelta(seconds=retry_seconds),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    )


def _client(config: StoreConfig) -> ClientConfig:
    host = local_host(config.endpoint_url)
    if host is None:
        return {}
    # No proxy of the environment reaches what only this machine does, and none is to see it. The client knows no word
    # for that; given a proxy and the host as its exception it asks neither that one nor the environment's.
    return {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": host}


class _Fixed:
    """Credentials that never expire."""

    def __init__(self, access_key: str, secret_key: str, token: str | None) -> None:
        self._credential: S3Credential = {
            "access_key_id": access_key,
            "secret_access_key": secret_key,
            "token": token,
            "expires_at": None,
        }

    def __call__(self) -> S3Credential:
        return self._credential


def _standard_chain(config: StoreConfig) -> tuple[S3CredentialProvider, str | None]:
    """Return what AWS's own tools would use here: environment, profile, SSO or instance role; and the region there."""
    from obstore.auth.boto3 import Boto3CredentialProvider  # boto3 is heavy

    from shipway.store.bucket import aws_session

    session = aws_session(config)
    return Boto3CredentialProvider(session), session.region_name
