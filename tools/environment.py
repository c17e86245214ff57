"""Makes the virtual environments: `.venv` to work in, `.venv-compiled` with what the images install.

`PYTHON tools/environment.py editable --into .venv-3.15` makes one beside them for another Python (`make test-newest`).

Runs on the system's own Python with nothing but its standard library and pip. Every package comes from a lock file with
its hash; nothing is resolved or downloaded beside those.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-dev.lock"
SERVICES = [ROOT / "services" / "balancer", ROOT / "services" / "pi"]
WHEELS = ROOT / "build" / "wheels"
BUILDS = [service / "build" for service in SERVICES]
"""Left over by setuptools, which would put what it finds there into the next wheel."""
OLDEST = (3, 11)


class CannotSetUp(Exception):
    """What is missing on this machine, and how to get it."""


def run(*command: str | Path) -> None:
    """Run one command in the repository's root. Raises CannotSetUp with the command when it fails."""
    try:
        subprocess.run([str(part) for part in command], cwd=ROOT, check=True)
    except subprocess.CalledProcessError as error:
        raise CannotSetUp(f"this command failed, see above: {' '.join(error.cmd)}") from None


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other set-up is under way: `make run` in one terminal, and another target in a second."""
    with LOCK.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: waiting for another that is under way", flush=True)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def refuse_old_python() -> None:
    """Raises CannotSetUp on a Python that the services do not support."""
    if sys.version_info < OLDEST:
        wanted, found = ".".join(map(str, OLDEST)), sys.version.split()[0]
        raise CannotSetUp(
            f"Python {wanted} or newer is needed, {sys.executable} is {found}: name another, "
            f"for instance PYTHON=python3.13 make setup"
        )


def pip_for(environment: Path) -> list[str]:
    """How to call pip for `environment`: its own, or where Debian left ensurepip out of Python, the system's."""
    python = environment / "bin" / "python"
    if not python.exists():
        try:
            venv.create(environment, with_pip=True)
        except (subprocess.CalledProcessError, ImportError):
            shutil.rmtree(environment, ignore_errors=True)
            venv.create(environment, with_pip=False)
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return [str(python), "-m", "pip"]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-m", "pip", "--python", str(python)]
    shutil.rmtree(environment, ignore_errors=True)
    raise CannotSetUp(f"{sys.executable} has neither ensurepip nor pip. On Debian and Ubuntu: apt install python3-venv")


def remove(*folders: Path) -> None:
    """The folders are gone afterwards."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def set_up(environment: Path) -> None:
    """Both services editable and uncompiled, and the tools to check and test them."""
    pip = [*pip_for(environment), "install", "--quiet", "--no-compile"]
    run(*pip, "--require-hashes", "--requirement", LOCK)
    editable = [part for service in SERVICES for part in ("--editable", service)]
    run(*pip, "--no-build-isolation", "--no-deps", "--no-index", *editable)
    make_bytecode(environment)


def make_bytecode(environment: Path) -> None:
    """Make that of what the services need, before all processes of `make run` do it; pip would make all of it."""
    run(environment / "bin" / "python", "-c", "import balancer.app, balancer.cli, pi.server")


def set_up_compiled(environment: Path) -> None:
    """The wheels of both services, built there, beside the same tools: for tests and benchmarks of them."""
    remove(WHEELS, *BUILDS)
    made = environment / "pyvenv.cfg"
    if made.exists() and f"executable = {Path(sys.executable).resolve()}" not in made.read_text().splitlines():
        remove(environment)  # With another Python.
    pip = pip_for(environment)
    install = [*pip, "install", "--quiet", "--no-compile"]
    run(*install, "--require-hashes", "--requirement", LOCK)
    wheel = [*pip, "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    run(*wheel, "--wheel-dir", WHEELS, *SERVICES)
    remove(*BUILDS)
    run(*install, "--no-deps", "--no-index", "--force-reinstall", *sorted(WHEELS.glob("*.whl")))
    make_bytecode(environment)


def main() -> int:
    """Make one of the two; 1 with a readable reason when that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["editable", "compiled"])
    parser.add_argument("--into", type=Path, help="its folder; the default is .venv or .venv-compiled")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # The services are to find theirs, as in the images.
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    try:
        refuse_old_python()
        with alone():
            if arguments.kind == "editable":
                set_up(ROOT / (arguments.into or ".venv"))
            else:
                set_up_compiled(ROOT / (arguments.into or ".venv-compiled"))
    except CannotSetUp as reason:
        print(f"setup: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
