#!/usr/bin/env python
"""Check pages of runs in headless Chromium, at two widths and in both themes; exit with 1 where something is wrong.

Accessibility by axe-core, which npm fetches in the version below; that nothing is wider than the window; that nothing
runs into the page's own Content-Security-Policy, and nothing is fetched. Pages are those named, else samples.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from scripts.browser import Browser, running_browser  # noqa: E402 - found through the line above
from scripts.report_sample import write_samples  # noqa: E402

AXE = "axe-core@4.14.1"
WIDTHS = (1280, 360)
COLOURS = ("light", "dark")
LISTEN = """
window.refused = [];
document.addEventListener("securitypolicyviolation", event => window.refused.push(event.violatedDirective));
"""
RUN = """
axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(
  found => JSON.stringify({
    passes: found.passes.length,
    violations: found.violations.map(v => [v.id, v.impact, v.help, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160))]),
  }))
"""


def main() -> None:
    """Check the pages named on the command line, or samples."""
    with tempfile.TemporaryDirectory(prefix="shipway-pages-") as folder, running_browser() as browser:
        pages = [Path(name).resolve() for name in sys.argv[1:]] or write_samples(Path(folder))
        found = check(browser, pages)
    print("\n".join(found) or f"{len(pages)} pages: nothing wrong")
    sys.exit(1 if found else 0)


def check(browser: Browser, pages: list[Path]) -> list[str]:
    """Return what is wrong with pages, a line each."""
    axe = _axe()
    browser.call("Page.enable")
    browser.call("Page.addScriptToEvaluateOnNewDocument", source=LISTEN)
    wrong: list[str] = []
    for page in pages:
        for width in WIDTHS:
            for colours in COLOURS:
                browser.look(width, 900, colours)
                browser.show(page.as_uri(), (), quiet=0.2)
                where = f"{page.name}, {width} px, {colours}"
                wrong += [f"{where}: {fault}" for fault in _faults(browser, axe, width)]
    return wrong


def _faults(browser: Browser, axe: str, width: int) -> list[str]:
    wide = browser.evaluate("document.documentElement.scrollWidth")
    faults = [f"{wide} px wide"] if wide != width else []
    faults += [f"refused by the page's policy: {text}" for text in browser.evaluate("window.refused")]
    fetched = browser.evaluate(
        "performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
    )
    faults += [f"{fetched} things fetched"] if fetched else []
    browser.evaluate(axe)
    answer = browser.call("Runtime.evaluate", expression=RUN, awaitPromise=True, returnByValue=True)
    found: dict[str, Any] = json.loads(answer["result"]["value"])
    if found["passes"] < 10:
        faults.append(f"axe-core looked at {found['passes']} things only")
    for rule, impact, text, nodes in found["violations"]:
        faults.append(f"{impact}: {rule}: {text}: {' '.join(nodes)}")
    return faults


def _axe() -> str:
    """Return the text of axe-core, fetched into a temporary folder."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is not installed; it fetches axe-core")
    with tempfile.TemporaryDirectory(prefix="shipway-axe-") as folder:
        fetch = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, AXE]
        subprocess.run(fetch, check=True, timeout=300, stdin=subprocess.DEVNULL)
        return (Path(folder) / "node_modules/axe-core/axe.min.js").read_text()


if __name__ == "__main__":
    main()
