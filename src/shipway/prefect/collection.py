"""What Prefect imports when it looks for collections: our block types and our worker type."""

from shipway.prefect.block_types import S3
from shipway.prefect.results import TaskResults
from shipway.prefect.worker import ShipwayWorker

__all__ = ["S3", "ShipwayWorker", "TaskResults"]
