"""What the declarative pyproject.toml cannot say: the hot modules of a wheel are compiled by mypyc.

`pip wheel .` (the image, `make compiled`) compiles them; `pip install --editable .` (`make setup`) does not, so that
source edited is source run. BALANCER_COMPILE=off makes a pure wheel, for an interpreter that mypyc or the machine's
compiler does not serve. Both run the same source, and the tests run on both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED = (
    "balancer/balancing",
    "balancer/routing",
    "balancer/proxy",
    "balancer/counters.py",
    "balancer/log/access.py",
    "balancer/log/output.py",
    "balancer/peers/belief.py",
    "balancer/peers/connection.py",
    "balancer/peers/fleet.py",
    "balancer/peers/frames.py",
    "balancer/peers/hearing.py",
    "balancer/peers/intent.py",
    "balancer/peers/link.py",
    "balancer/peers/pace.py",
    "balancer/peers/report.py",
    "balancer/peers/reporter.py",
)
"""Modules, and folders of modules, that are compiled: those that each request or report runs through."""

INTERPRETED: frozenset[str] = frozenset()
"""Modules of these folders that stay as they are, each with its reason in a comment."""

OPTIMISATION = "2"
"""gcc's level. A file of C for each module, whose names are hidden from other libraries: so a call into another module
is a direct one, as within one file, and the files are compiled side by side. All in one file at -O3, as mypyc would by
itself, takes several times as long, and makes nothing faster."""


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
    built = mypycify(
        [*flags, *hot_modules()], opt_level=OPTIMISATION, debug_level="0", group_name="balancer", multi_file=True
    )
    for extension in built:  # They may share one list.
        if "-fvisibility=hidden" not in extension.extra_compile_args:
            extension.extra_compile_args.append("-fvisibility=hidden")
    return cast("list[Extension]", built)


class BuildOnEveryCore(build_ext):
    """Compiles as many files at a time as there are processors: setuptools does so with extensions, not with files."""

    def build_extensions(self) -> None:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.parallel = processors
        one_after_another = self.compiler.compile

        def compile_all(sources: Sequence[str], *args: Any, **kwargs: Any) -> list[str]:  # noqa: ANN401 (distutils')
            with ThreadPoolExecutor(processors) as pool:
                made = pool.map(lambda source: one_after_another([source], *args, **kwargs), sources)
                return [path for paths in made for path in paths]

        self.compiler.compile = compile_all
        super().build_extensions()


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOnEveryCore})
