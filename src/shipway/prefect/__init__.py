"""The only folder that imports Prefect."""
