"""The mirror in MLflow: parameters, metrics, and where the artifacts are, over its REST API and after the commit.

The store stays the truth. A run that MLflow lacks, or has half of, costs a warning, and `shipway mlflow sync` makes up
for it.
"""
