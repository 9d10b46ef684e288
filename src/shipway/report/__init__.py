"""Reports: one self-contained HTML page about a run. In a flow or a task: `section` and `verdict` add to its page."""

from __future__ import annotations

from shipway.report.sections import section, verdict

__all__ = ["section", "verdict"]
