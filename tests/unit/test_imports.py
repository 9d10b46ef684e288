"""What somebody declares that runs import: only names of modules, and beside what was learnt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from shipway.prefect.configuration import ShipwayJobConfiguration
from shipway.prefect.imports import with_declared
from shipway.prefect.pool import base_job_template


def configured(template: dict[str, Any] | None = None, **values: object) -> ShipwayJobConfiguration:
    """Return the configuration of a run with these job variables, as a worker makes it."""
    made: Any = ShipwayJobConfiguration.from_template_and_values(
        template or base_job_template(),
        values,
        client=object(),  # type: ignore[arg-type]
    )
    configuration = asyncio.run(made)
    assert isinstance(configuration, ShipwayJobConfiguration)
    return configuration


def test_modules_can_be_declared() -> None:
    assert configured().imports == []
    assert configured(imports=["numpy", "sklearn.linear_model"]).imports == ["numpy", "sklearn.linear_model"]


def test_a_pool_can_declare_them_for_all_its_deployments() -> None:
    template = base_job_template()
    template["variables"]["properties"]["imports"]["default"] = ["numpy"]
    assert configured(template).imports == ["numpy"]
    assert configured(template, imports=["json"]).imports == ["json"]


@pytest.mark.parametrize("name", ["", " ", "numpy.", ".numpy", "a..b", "a b", "a-b", "1a", "a\n", "a;b", "a:b", "/a"])
def test_what_is_no_name_of_a_module_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="imports"):
        configured(imports=["json", name])


def test_declared_modules_come_after_learnt_ones_and_none_twice() -> None:
    assert with_declared(("a", "b"), ["c", "a", "c"]) == ("a", "b", "c")
