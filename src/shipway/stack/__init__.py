"""Local processes: API server, object store, worker."""
