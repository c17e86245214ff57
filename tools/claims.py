"""`python -m tools.claims`: the table of docs/strategies.md that says when to use which strategy, from the lab."""

from __future__ import annotations

import sys
from pathlib import Path

from balancer.lab.claim import table
from balancer.lab.claims import check

PAGE = Path(__file__).resolve().parent.parent / "docs" / "strategies.md"
BEGIN, END = "<!-- claims -->", "<!-- /claims -->"


def main() -> int:
    """Try all claims and write the table; 1 if one does not hold."""
    findings = list(check())
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(findings)}\n{END}{after}", encoding="utf-8")
    return 0 if all(finding.holds for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
