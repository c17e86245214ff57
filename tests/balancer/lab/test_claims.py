"""What the documentation says of when to use which strategy holds in the lab, and the documentation says just that."""

from __future__ import annotations

from pathlib import Path

import pytest

from balancer.balancing.strategies import STRATEGIES
from balancer.lab.claim import Claim, table, try_claim
from balancer.lab.claims import CLAIMS

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.strategy}: {claim.when}")
def test_a_claim_holds(claim: Claim) -> None:
    finding = try_claim(claim, 2000, (1, 2))
    assert finding.holds, f"{finding.own} with {claim.strategy}, {finding.others} with {claim.other}"


def test_every_strategy_has_a_claim() -> None:
    assert {claim.strategy for claim in CLAIMS} == set(STRATEGIES)


def test_the_documentation_lists_these_claims() -> None:
    page = (DOCS / "strategies.md").read_text(encoding="utf-8")
    for claim in CLAIMS:
        assert f"| `{claim.strategy}` | {claim.when} | {claim.where} | {claim.figure.name} |" in page, (
            "python -m tools.claims writes the table"
        )
    assert "**does not hold**" not in page


def test_the_table_names_what_does_not_hold() -> None:
    false = Claim("round-robin", "always", CLAIMS[2].where, CLAIMS[2].setting, "least-connections", CLAIMS[2].figure)
    assert "**does not hold**" in table([try_claim(false, 500, (1,))])
