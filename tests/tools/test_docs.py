"""What the documents at the root promise, as far as it can be held to the code without running it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from balancer.balancing.strategies import STRATEGIES
from balancer.settings import table

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "charts").rglob("README.md")])


def anchors(document: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def test_the_readme_names_every_strategy() -> None:
    named = re.findall(r"^\| `([a-z-]+)`(?: \(default\))? \|", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert sorted(named) == sorted(STRATEGIES)


def test_the_readme_boasts_of_nothing_that_was_not_measured() -> None:
    (speed,) = re.findall(r"^- \*\*Speed\*\*.*?(?=^- )", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    measured = (ROOT / "docs" / "performance.md").read_text()
    ratios = re.findall(r"(?<![\d/.])\d+\.\d+(?![\d.])", speed)

    assert len(ratios) >= 10
    for ratio in ratios:
        assert re.search(rf"(?<![\d.]){re.escape(ratio)}(?![\d.])", measured), ratio


def test_every_setting_that_the_documents_name_exists() -> None:
    known = {row.variable for row in table()}
    for document in [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "docs" / "architecture.md"]:
        named = set(re.findall(r"\bLB_[A-Z_]+\b", document.read_text()))
        assert named <= known, document


def test_make_alone_lists_every_target_that_has_a_use() -> None:
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    text = re.sub(r"[^\n]*\.PHONY.*?\n(?=\n)", "", (ROOT / "Makefile").read_text(), flags=re.DOTALL)
    documented = re.findall(r"^([a-z][a-z-]*):.*## ", text, re.MULTILINE)

    assert documented
    for target in documented:
        assert re.search(rf"^  {target} +\S", listed.stdout, re.MULTILINE)
