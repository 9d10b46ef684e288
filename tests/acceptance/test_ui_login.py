"""Prefect's UI in a real browser, on a stack that asks for its auth string: nothing without it, and runs with it."""

from __future__ import annotations

import shutil

import pytest
from benchmarks.stack import running_stack
from scripts.browser import CHROMIUM, running_browser
from scripts.screenshots import NAMES, log_in

from shipway.testing import skip_or_fail


@pytest.mark.long
def test_the_ui_shows_runs_to_those_who_know_the_auth_string() -> None:
    if not any(map(shutil.which, CHROMIUM)):
        skip_or_fail("Chromium is not installed; scripts/test-tools --install, as root, installs it")
    with running_stack(auth=True) as project, running_browser() as browser:
        pictures = log_in(project, browser)
        assert next(pictures) == "ui-login"
        ui_url = project.status()["ui_url"]
        with pytest.raises(TimeoutError, match="Flow runs"):
            browser.log_in(ui_url, "shipway:wrong", seconds=5)
        assert NAMES[0] not in str(browser.evaluate("document.documentElement.outerHTML"))
        browser.show(f"{ui_url}/runs", ("Login",))
        assert next(pictures) == "ui-runs"
        assert str(browser.evaluate("location.href")) == f"{ui_url}/runs"
