"""The block type `s3`: a store in a bucket, seen and edited in Prefect's UI."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prefect._internal.compatibility.async_dispatch import async_dispatch
from prefect.filesystems import WritableFileSystem
from pydantic import Field, SecretStr

from shipway.store.base import Store
from shipway.store.opening import open_store
from shipway.store.url import StoreConfig, parse_bucket_path


class S3(WritableFileSystem):
    """A bucket and prefix in S3, or in anything that speaks its protocol, where Shipway keeps code and data.

    Without keys the standard AWS chain is used: environment, profile, SSO, instance role.

    Attributes:
        bucket_path: `BUCKET` or `BUCKET/PREFIX`.
        endpoint_url: address of a server other than AWS.
        region_name: region of the bucket.
        profile_name: profile in the AWS configuration files.
        aws_access_key_id: key, with `aws_secret_access_key`.
        aws_secret_access_key: secret of the key.
        aws_session_token: token of temporary keys.

    Example:
        ```python
        from shipway.prefect.block_types import S3

        S3.load("my-block").store().read("path/in/the/prefix")
        ```
    """

    _block_type_name = "S3"
    _block_type_slug = "s3"
    _description = "A bucket and prefix in S3 where Shipway keeps code and data."

    bucket_path: str = Field(description="Bucket, or bucket/prefix.", examples=["my-bucket/a-directory"])
    endpoint_url: str | None = Field(default=None, description="Address of a server other than AWS.")
    region_name: str | None = Field(default=None, description="Region of the bucket.")
    profile_name: str | None = Field(default=None, description="Profile in the AWS configuration files.")
    aws_access_key_id: SecretStr | None = Field(
        default=None, description="Access key; without one the AWS chain is used."
    )
    aws_secret_access_key: SecretStr | None = Field(default=None, description="Secret of the access key.")
    aws_session_token: SecretStr | None = Field(default=None, description="Token of temporary keys.")

    def store(self) -> Store:
        """Open the store this block describes.

        Raises:
            InputError: the bucket path is not one.
        """
        bucket, prefix = parse_bucket_path(self.bucket_path)
        return open_store(
            StoreConfig(
                kind="s3",
                bucket=bucket,
                prefix=prefix,
                endpoint_url=self.endpoint_url,
                region=self.region_name,
                profile=self.profile_name,
                access_key=_reveal(self.aws_access_key_id),
                secret_key=_reveal(self.aws_secret_access_key),
                session_token=_reveal(self.aws_session_token),
            )
        )

    async def aread_path(self, path: str) -> bytes:
        """As `read_path`."""
        return await asyncio.to_thread(self.store().read, path)

    @async_dispatch(aread_path)
    def read_path(self, path: str) -> bytes:  # type: ignore[override] # Prefect's own blocks do it so
        """Return the bytes under `path`; Prefect reads results through this."""
        return self.store().read(path)

    async def awrite_path(self, path: str, content: bytes | Path) -> None:
        """As `write_path`."""
        await asyncio.to_thread(self.store().put, path, content)

    @async_dispatch(awrite_path)
    def write_path(self, path: str, content: bytes | Path) -> None:  # type: ignore[override]
        """Write `content` under `path`; Prefect writes results through this."""
        self.store().put(path, content)


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def schema_document() -> dict[str, Any]:
    """Return what `block_schema.json` must hold, so that a block can be saved without importing Prefect."""
    schema = S3._to_block_schema()
    return {
        "block_type": S3._to_block_type().model_dump(
            mode="json", include={"name", "slug", "logo_url", "description", "code_example"}
        ),
        "checksum": schema.checksum,
        "fields": schema.fields,
        "capabilities": sorted(schema.capabilities),
        "version": schema.version,
    }
