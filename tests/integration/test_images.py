"""The images themselves: what is in them, and what `docker run` shows."""

from __future__ import annotations

import docker
import pytest
from docker.errors import ContainerError
from tests.integration.conftest import Images
from tools.image_sizes import TARGETS, added


@pytest.fixture(params=["balancer", "pi"])
def image(request: pytest.FixtureRequest, images: Images) -> str:
    """Each of the two."""
    return str(getattr(images, request.param))


def run(engine: docker.DockerClient, image: str, *command: str, entrypoint: str | None = None) -> str:
    """What it prints. Raises ContainerError when it fails."""
    output = engine.containers.run(
        image, list(command), entrypoint=entrypoint, remove=True, read_only=True, stderr=True
    )
    return bytes(output).decode()


def test_help_prints_the_settings(engine: docker.DockerClient, images: Images) -> None:
    assert "LB_STRATEGY=least-work" in run(engine, images.balancer, "--help")
    assert "PI_MAX_DIGITS" in run(engine, images.pi, "--help")


def test_a_wrong_setting_stops_the_start_with_a_line_that_names_it(engine: docker.DockerClient, images: Images) -> None:
    with pytest.raises(ContainerError) as stopped:
        engine.containers.run(images.balancer, environment={"LB_STRATEGY": "fastest"}, remove=True)

    said = str(stopped.value.stderr)
    assert "LB_STRATEGY" in said
    assert "least-connections" in said
    assert "Traceback" not in said


def test_it_runs_as_nobody_by_number_and_leaves_probing_to_the_chart(engine: docker.DockerClient, image: str) -> None:
    config = engine.images.get(image).attrs["Config"]

    assert config["User"].split(":")[0].isdecimal()
    assert config["User"].split(":")[0] != "0"
    assert not config.get("Healthcheck")


def test_there_is_no_compiler_in_it(engine: docker.DockerClient, image: str) -> None:
    found = run(engine, image, "-c", "command -v gcc cc clang make || echo none", entrypoint="sh")

    assert found == "none\n"


def test_the_hot_modules_of_the_balancer_are_compiled(engine: docker.DockerClient, images: Images) -> None:
    code = "import balancer.balancing.pool as a, balancer.proxy.exchange as b; print(a.__file__, b.__file__)"
    for path in run(engine, images.balancer, "-c", code, entrypoint="python").split():
        assert path.endswith(".so")


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("service", TARGETS)
def test_what_it_adds_to_its_base_is_within_the_target(service: str) -> None:
    assert sum(layer.size for layer in added(service)) <= TARGETS[service] * 1_000_000


def test_what_is_left_out_of_the_balancers_image_is_never_imported(engine: docker.DockerClient, images: Images) -> None:
    # A refused connection to the API takes every step of discovery but the answer: the client is whole.
    code = """
import asyncio, pathlib, tempfile
from balancer.discovery.kubeapi import ApiError, SliceApi
file = pathlib.Path("/dev/shm/kubeconfig")
file.write_text('''{"apiVersion": "v1", "kind": "Config", "current-context": "c",
  "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
  "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
  "users": [{"name": "u", "user": {"token": "t"}}]}''')
async def main():
    api = await SliceApi.connect({"KUBECONFIG": str(file)})
    try:
        await api.list_all("default", "shop", print)
    except ApiError as error:
        print(error.kind)
    await api.close()
asyncio.run(main())
"""
    assert run(engine, images.balancer, "-c", code, entrypoint="python").splitlines()[-1] == "unreachable"


def test_a_traceback_is_still_shown_in_the_console_format(engine: docker.DockerClient, images: Images) -> None:
    code = "import structlog\ntry: 1 / 0\nexcept Exception: structlog.get_logger().exception('failed')"
    assert "ZeroDivisionError" in run(engine, images.balancer, "-c", code, entrypoint="python")
