"""What the declarative pyproject.toml cannot say: the hot modules of a wheel are compiled by mypyc.

`pip wheel .` (the image, `make compiled`) compiles them; `pip install --editable .` (`make setup`) does not, so that
source edited is source run. BALANCER_COMPILE=off makes a pure wheel, for an interpreter that mypyc or the machine's
compiler does not serve. Both run the same source, and the tests run on both.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

from setuptools import Extension, setup

COMPILED = (
    "balancer/balancing",
    "balancer/routing",
    "balancer/proxy",
    "balancer/counters.py",
    "balancer/log/access.py",
)
"""Modules, and folders of modules, that are compiled: those that every request runs through."""

INTERPRETED: frozenset[str] = frozenset()
"""Modules of these folders that stay as they are, each with its reason in a comment."""


def hot_modules() -> list[str]:
    """Paths of the modules to compile, in a stable order so that a build can be repeated."""
    paths = (str(path) for part in map(Path, COMPILED) for path in ([part] if part.is_file() else part.rglob("*.py")))
    return sorted(path for path in paths if path not in INTERPRETED)


def extensions() -> list[Extension]:
    """The compiled modules of a wheel; none for an editable install, or with BALANCER_COMPILE=off."""
    if "bdist_wheel" not in sys.argv or os.environ.get("BALANCER_COMPILE", "on") == "off":
        return []
    from mypyc.build import mypycify  # only a build that compiles needs it

    # What the modules import is typed where its types can be had, else Any: `make check` is what checks types.
    flags = ["--config-file=", "--ignore-missing-imports"]
    built = mypycify([*flags, *hot_modules()], opt_level="3", debug_level="0", group_name="balancer")
    return cast("list[Extension]", built)


setup(ext_modules=extensions())
