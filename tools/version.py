"""The version has one source, `appVersion` in charts/lb/Chart.yaml: this writes it where packaging needs a copy.

`make images` reads the same line for the images' tags, and the chart for those it asks for.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "charts" / "lb" / "Chart.yaml"
COPIES = [ROOT / "services" / "balancer" / "pyproject.toml", ROOT / "services" / "pi" / "pyproject.toml"]


def version() -> str:
    """The version of chart, images and packages. Raises SystemExit when the chart names none."""
    found = re.search(r'^appVersion: *"?([0-9][^"\s]*)"?', SOURCE.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"version: no appVersion in {SOURCE}")
    return found[1]


def main() -> int:
    """Write the copies, or with `--check` say which are out of step."""
    check = "--check" in sys.argv[1:]
    wrong = 0
    for path in COPIES:
        old = path.read_text()
        new = re.sub(r'^version = ".*"$', f'version = "{version()}"', old, count=1, flags=re.MULTILINE)
        if new != old:
            wrong += 1
            if check:
                print(f"{path.relative_to(ROOT)}: its version is not the appVersion of the chart", file=sys.stderr)
            else:
                path.write_text(new)
    return 1 if check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
