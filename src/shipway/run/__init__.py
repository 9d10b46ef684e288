"""Runs: workspace, capture, record, lineage."""
