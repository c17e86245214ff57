"""Which Python to measure with: how one was built, and where on this machine one is that was built for speed.

The images' Python is built with optimisation by profile (PGO) and at link time (LTO), as Debian's is; pyenv's is not,
unless asked to: three requests of a hundred for each second of the balancer's CPU time (docs/performance.md).

`PYTHON tools/interpreter.py` says how that Python was built; `--best` prints the path of the first one that was built
for speed and can make an environment, or of the one that runs this when there is none.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

OLDEST = (3, 11)
NEWER = tuple(f"python3.{minor}" for minor in range(15, 10, -1))
NAMES = ("/usr/bin/python3", "/usr/local/bin/python3", *NEWER)
PLAIN = "without optimisation"


def real() -> Path:
    """The running Python itself, where this is an environment's copy of it."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def built() -> str:
    """How the running Python was built: "with PGO and LTO", "with PGO", "with LTO", or PLAIN."""
    options = (sysconfig.get_config_var("CONFIG_ARGS") or "").replace("'", "").split()
    found = [] if "--enable-optimizations" not in options else ["PGO"]
    if any(option.startswith("--with-lto") and option != "--with-lto=no" for option in options):
        found.append("LTO")
    # Debian, and Ubuntu after it, keeps these options out of what sysconfig knows (its bug 934771).
    if real().parent == Path("/usr/bin") and Path("/etc/debian_version").exists():
        found = ["PGO", "LTO"]
    return "with " + " and ".join(found) if found else PLAIN


def described() -> dict[str, str | bool]:
    """The running Python: its path, version and build, and whether a compiled environment can be made with it."""
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    pip = any(importlib.util.find_spec(name) for name in ("ensurepip", "pip"))
    return {
        "path": str(real()),
        "version": f"{platform.python_implementation()} {platform.python_version()}",
        "built": built(),
        "suits": sys.version_info >= OLDEST and headers and pip,
    }


def ask(python: str) -> dict[str, str | bool] | None:
    """What `described` says of another Python; None where it does not run."""
    if shutil.which(python) is None:
        return None
    done = subprocess.run([python, __file__, "--json"], capture_output=True, text=True, check=False)
    answer: dict[str, str | bool] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return answer


def best() -> str:
    """Path of the Python to compile for."""
    for name in (sys.executable, *NAMES):
        found = ask(name)
        if found and found["suits"] and "PGO" in str(found["built"]):
            return str(found["path"])
    return sys.executable


def main() -> None:
    """Print what is asked for."""
    if "--best" in sys.argv:
        print(best())
    elif "--json" in sys.argv:
        print(json.dumps(described()))
    else:
        print("{version}, built {built} ({path})".format(**described()))


if __name__ == "__main__":
    main()
