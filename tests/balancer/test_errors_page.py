"""docs/errors.md lists every error that the balancer can answer, with its status and its Proxy-Status token."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from balancer.balancing import errors
from balancer.balancing.errors import NoEndpoint
from balancer.balancing.outcome import FAILURES
from balancer.proxy import responses
from balancer.settings import table

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
PROXY = ROOT / "services" / "balancer" / "balancer" / "proxy"

EVERY_ERROR = [
    *[value for value in vars(responses).values() if isinstance(value, responses.Error)],
    *[
        responses.no_endpoint(kind())
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, NoEndpoint)
    ],
    *[responses.failed_attempt(kind) for kind in sorted(FAILURES, key=lambda kind: kind.value)],
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: error.reason)
def test_every_error_has_a_row_with_its_status_and_token(error: responses.Error) -> None:
    [row] = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{error.reason}`" in line]
    before = PAGE[: PAGE.index(row)]
    heading = before[before.rindex("\n## ") :]
    assert str(error.status) in row.split("|")[1] or str(error.status) in heading.splitlines()[1]
    assert error.token in row or error.token in heading


def test_every_fault_that_a_parser_names_is_told() -> None:
    """Those of responses (502) have one reason together: `bad response`."""
    faults = set()
    for module in ("http1/framing.py", "fields.py"):
        faults |= set(
            re.findall(r'BadMessage\(f?"([^"{]+)[^"]*"(?!, 502)', (PROXY / module).read_text(encoding="utf-8"))
        )
    assert len(faults) > 20
    assert [fault for fault in sorted(faults) if f"`{fault.strip()}" not in PAGE] == []


def test_the_page_names_only_settings_and_metrics_that_there_are() -> None:
    settings = {row.variable for row in table()}
    assert set(re.findall(r"LB_[A-Z0-9_]+", PAGE)) <= settings
    metrics = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [name for name in set(re.findall(r"\blb_[a-z_]+", PAGE)) if f"`{name}`" not in metrics] == []
