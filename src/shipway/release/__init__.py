"""Releases: from a folder to an immutable snapshot in the store, and back."""
