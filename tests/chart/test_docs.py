"""The commands of docs/kubernetes.md and of the chart's README do what the text says, as far as helm alone can tell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "kubernetes.md").read_text()
PAGES = GUIDE + (ROOT / "charts" / "lb" / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL)


COMMANDS = [
    line for block in blocks("console") for line in block.splitlines() if re.match("helm (install|upgrade) ", line)
]
FILES = {match[1]: block for block in blocks("yaml") if (match := re.match(r"# (\S+\.yaml)\n", block))}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_guide_installs_can_be_installed(helm: Any, tmp_path: Path, command: str) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    _, _, release, chart, *options = shlex.split(command)
    of_clusters = {"--wait", "--reset-then-reuse-values"}
    kept = [str(tmp_path / option) if option in FILES else option for option in options if option not in of_clusters]
    assert "kind: Deployment" in helm("template", release, chart, *kept)


def test_what_the_guide_says_of_a_refusal_is_what_helm_says(refusal: Any) -> None:
    (shown,) = [block for block in blocks("console") if block.startswith("$ helm upgrade")]
    command, _, *said = shown.splitlines()
    told = refusal(*shlex.split(command)[5:]).splitlines()
    assert said == told[1 : len(said) + 1]


def test_the_values_that_the_guide_names_exist(helm: Any) -> None:
    schema = yaml.safe_load((ROOT / "charts" / "lb" / "values.schema.json").read_text())
    named = re.findall(r"`((?:balancer|pi|backend|rbac|ingress|httpRoute|networkPolicy|metrics)\.[a-zA-Z.]+)", GUIDE)
    assert len(named) > 20
    for path in named:
        node = schema
        for name in path.split("."):
            assert name in node["properties"], path
            node = node["properties"][name]


def test_the_role_that_the_guide_shows_is_the_charts(render: Any) -> None:
    (shown,) = [yaml.safe_load(block) for block in blocks("yaml") if block.startswith("rules:")]
    assert shown["rules"] == render().one("Role")["rules"]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", GUIDE):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target
    titles = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^## (.*)", GUIDE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", GUIDE)) <= titles
