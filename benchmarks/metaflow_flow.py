"""A flow for Metaflow to package code for; it reads the flow's source, which is why this is a module of its own."""

from __future__ import annotations

from metaflow import FlowSpec, step


class Tiny(FlowSpec):
    """A flow that is never run."""

    @step
    def start(self) -> None:
        """Begin."""
        self.next(self.end)

    @step
    def end(self) -> None:
        """End."""
