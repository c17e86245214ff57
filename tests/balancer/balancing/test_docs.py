"""What docs/write-a-strategy.md shows works as it stands there."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from random import Random

import pytest
from tests.balancer.balancing.world import REQUEST, Fleet

from balancer.balancing.strategies import load

PAGE = Path(__file__).parents[3] / "docs" / "write-a-strategy.md"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The page's modules, by the name that their first line gives them, importable."""
    blocks = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name, text in blocks:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return [name for name, _ in blocks]


def test_the_example_is_twenty_lines_and_keeps_its_promises(modules: list[str], tmp_path: Path) -> None:
    assert modules == ["nearest", "test_nearest"]
    lines = (tmp_path / "nearest.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 20
    importlib.import_module("test_nearest").test_it_keeps_its_promises()


def test_the_example_prefers_its_own_zone_but_leaves_it_before_it_gets_crowded(
    modules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_ZONE", "here")
    fleet = Fleet()
    fleet.add("near", zone="here")
    fleet.add("far", zone="there")
    fleet.pool.use(load("nearest:NearestWithRoom", Random(1)), "nearest:NearestWithRoom", fleet.now)
    assert [fleet.lease().endpoint.spec.host for _ in range(7)] == ["near"] * 4 + ["far", "near", "far"]
    decision = fleet.pool.explain(REQUEST, fleet.now)
    assert decision.strategy == "nearest:NearestWithRoom"
