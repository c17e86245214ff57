"""skaffold.yaml: valid by Skaffold's own schema, and each profile gives the chart values that it takes.

Skaffold itself is not run: the tests apply the profiles' patches as its documentation says.
"""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from balancer.balancing.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
PROFILES = {profile["name"]: profile for profile in CONFIG["profiles"]}
IMAGES = {"lb-balancer": "services/balancer", "lb-pi": "services/pi"}


def with_profile(name: str) -> Any:
    """The configuration with a profile's patches (RFC 6902) applied."""
    config = copy.deepcopy(CONFIG)
    for patch in PROFILES[name]["patches"]:
        assert patch["op"] == "add"
        *parents, last = patch["path"].strip("/").split("/")
        place = config
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place[parent]
        place[last] = patch["value"]
    return config


def arguments(config: Any, digest: str = "") -> Any:
    """What Skaffold adds to `helm install`, for images without digest (loaded into a local cluster) or with one."""
    (release,) = config["deploy"]["helm"]["releases"]
    variables = {"TAG": "0a1b2c", "DIGEST": digest}
    found = []
    for key, template in release["setValueTemplates"].items():
        value = template
        for image in IMAGES:
            names = variables | {"REPO": image}
            for name, replacement in names.items():
                value = value.replace(f"{{{{.IMAGE_{name}_{image.replace('-', '_')}}}}}", replacement)
        assert "{{" not in value, value
        found += ["--set", f"{key}={value}"]
    for file in release.get("valuesFiles", ()):
        found += ["-f", str(ROOT / file)]
    return found


def test_it_is_valid_by_skaffolds_schema() -> None:
    path = os.environ.get("SKAFFOLD_SCHEMA")
    if not path:
        pytest.skip("SKAFFOLD_SCHEMA does not name a copy of Skaffold's JSON schema (v4beta14)")
    schema = json.loads(Path(path).read_text())
    jsonschema.Draft7Validator(schema).validate(CONFIG)
    for name in PROFILES:
        jsonschema.Draft7Validator(schema).validate(with_profile(name))


def test_both_images_are_built_from_their_services() -> None:
    assert {item["image"]: item["context"] for item in CONFIG["build"]["artifacts"]} == IMAGES
    for item in CONFIG["build"]["artifacts"]:
        assert (ROOT / item["context"] / item["docker"]["dockerfile"]).is_file()


@pytest.mark.parametrize("digest", ["", "sha256:" + "0" * 64])
def test_the_chart_installs_exactly_what_was_built(render: Any, digest: str) -> None:
    """Skaffold copies files only into containers whose image is, letter by letter, the one that it built."""
    rendered = render(*arguments(CONFIG, digest))
    at_digest = f"@{digest}" if digest else ""
    assert rendered.container("lb")["image"] == f"lb-balancer:0a1b2c{at_digest}"
    assert rendered.container("lb-pi")["image"] == f"lb-pi:0a1b2c{at_digest}"


def test_port_8080_is_forwarded_to_the_balancers_service(render: Any) -> None:
    (forward,) = CONFIG["portForward"]
    assert forward["localPort"] == 8080
    service = render(*arguments(CONFIG)).all(forward["resourceType"].capitalize())[forward["resourceName"]]
    assert forward["port"] in [port["port"] for port in service["spec"]["ports"]]


def test_there_is_a_profile_for_each_strategy(render: Any) -> None:
    assert set(PROFILES) == {"dev", "kind", "minikube", *STRATEGIES}
    for name in STRATEGIES:
        assert render(*arguments(with_profile(name))).env()["LB_STRATEGY"] == name


def test_kind_uses_the_cluster_of_k8s_kind_yaml() -> None:
    cluster = yaml.safe_load((ROOT / "k8s" / "kind.yaml").read_text())
    assert with_profile("kind")["deploy"]["kubeContext"] == f"kind-{cluster['name']}"
    assert with_profile("minikube")["deploy"]["kubeContext"] == "minikube"
    assert {with_profile(name)["build"]["local"]["push"] for name in ("kind", "minikube")} == {False}


def test_dev_is_what_skaffold_dev_does() -> None:
    assert PROFILES["dev"]["activation"] == [{"command": "dev"}]


def test_dev_copies_each_python_file_to_where_the_image_has_it() -> None:
    for item in with_profile("dev")["build"]["artifacts"]:
        dockerfile = (ROOT / item["context"] / "Dockerfile").read_text()
        stage = re.search(
            rf"^FROM \S+ AS {item['docker']['target']}\n(.*?)(?=^FROM |\Z)", dockerfile, re.MULTILINE | re.DOTALL
        )
        assert stage, f"no stage {item['docker']['target']}"
        (rule,) = item["sync"]["manual"]
        package = rule["src"].removesuffix("/**/*.py")
        assert (ROOT / item["context"] / package / "__init__.py").is_file()
        assert rule["dest"] == ".", "the working directory, to which the path in the context is added"
        assert re.search(rf"^COPY --chown=\S+ {package} {package}$", stage[1], re.MULTILINE), "its user may write there"


def test_dev_pods_are_writable_and_survive_a_mistake(render: Any) -> None:
    rendered = render(*arguments(with_profile("dev")))
    for name in ("lb", "lb-pi"):
        container = rendered.container(name)
        assert container["securityContext"]["readOnlyRootFilesystem"] is False
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        probe = container["livenessProbe"]
        assert probe["failureThreshold"] * probe["periodSeconds"] > 3600
