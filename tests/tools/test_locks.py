"""The lock files: what they must have, and must not have, and that they answer to what is asked for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tools.lock import LOCKS

ROOT = Path(__file__).resolve().parents[2]


def locked(path: str) -> dict[str, str]:
    """Version by package."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)==(\S+)", (ROOT / path).read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", LOCKS)
def test_every_package_has_its_hash_and_no_registry_its_address(path: str) -> None:
    text = (ROOT / path).read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text)

    assert locked(path)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize("path", [path for path in LOCKS if "/" in path and "reload" not in path])
def test_what_is_shipped_is_what_is_tested(path: str) -> None:
    assert locked(path).items() <= locked("requirements-dev.lock").items()


@pytest.mark.parametrize("service", ["balancer", "pi"])
def test_what_a_service_asks_for_is_locked(service: str) -> None:
    project = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())["project"]
    extras = [each for extra in project.get("optional-dependencies", {}).values() for each in extra]
    versions = locked(f"services/{service}/requirements.lock")
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
