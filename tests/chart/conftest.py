"""Renders the chart with the real helm. Where a program is missing a test skips, in CI (`CI=true`) it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import helm4

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "lb"

Resource = dict[str, Any]


def path_of(name: str) -> str:
    """The path of a program that the tests need; Helm 4 also where `make helm4` puts it."""
    path = shutil.which(name) or (helm4.fetched() if name == "helm4" else None)
    if path is None:
        remedy = ": make helm4" if name == "helm4" else ""
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"there is no {name} on the PATH{remedy}")
    return path


class Refused(Exception):
    """A program would not do this; the text is what a person reads."""


def output(*command: str, stdin: str | None = None) -> str:
    """What a command prints. Raises Refused with what it says when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


@dataclass(frozen=True)
class Rendered:
    """What `helm template` printed."""

    text: str

    @property
    def resources(self) -> list[Resource]:
        return [resource for resource in yaml.safe_load_all(self.text) if resource]

    def all(self, kind: str) -> dict[str, Resource]:
        """The resources of one kind, by name."""
        return {found["metadata"]["name"]: found for found in self.resources if found["kind"] == kind}

    def one(self, kind: str, name: str = "lb") -> Resource:
        """The resource of that kind and name. Raises KeyError."""
        return self.all(kind)[name]

    def pod(self, name: str = "lb") -> Resource:
        """The pod's specification in the Deployment of that name."""
        spec: Resource = self.one("Deployment", name)["spec"]["template"]["spec"]
        return spec

    def container(self, name: str = "lb") -> Resource:
        """The only container of that Deployment."""
        containers: list[Resource] = self.pod(name)["containers"]
        (container,) = containers
        return container

    def env(self, name: str = "lb") -> dict[str, Any]:
        """Its environment: the value of each variable, or where it comes from."""
        return {item["name"]: item.get("value", item.get("valueFrom")) for item in self.container(name)["env"]}


Render = Callable[..., Rendered]


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """The path of a program; a test that needs one that is missing skips, in CI it fails."""
    return path_of


@pytest.fixture(scope="session")
def kubectl() -> Callable[..., str]:
    """Run kubectl, without a cluster unless KUBECONFIG names one; its output. Raises Refused when it fails."""
    return partial(output, path_of("kubectl"))


@pytest.fixture(scope="session")
def cluster() -> None:
    """For tests that need the cluster that KUBECONFIG names."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG does not name a cluster")


@pytest.fixture(scope="session")
def helm() -> Callable[..., str]:
    """Run helm; its output. Raises Refused with what it says when it fails."""
    return partial(output, path_of("helm"))


@pytest.fixture(scope="session", params=["helm", "helm4"])
def either_helm(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Helm 3, then Helm 4."""
    return partial(output, path_of(request.param))


@pytest.fixture(scope="session")
def render(helm: Callable[..., str]) -> Render:
    """Render the chart: values as a mapping, or arguments of helm, or both. The same is rendered once."""

    @cache
    def template(*command: str, stdin: str) -> str:
        return helm("template", *command, stdin=stdin)

    def run(*arguments: str, values: object = None, release: str = "lb", namespace: str = "default") -> Rendered:
        command = [release, str(CHART), "--namespace", namespace, "--values", "-", *arguments]
        return Rendered(template(*command, stdin=json.dumps(values or {})))

    return run


@pytest.fixture
def refusal(render: Render) -> Callable[..., str]:
    """What helm says to values that it must refuse."""

    def run(*arguments: str, values: object = None) -> str:
        with pytest.raises(Refused) as refused:
            render(*arguments, values=values)
        return str(refused.value)

    return run
