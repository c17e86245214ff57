"""Writes docs/settings.md from the settings themselves."""

from __future__ import annotations

import sys
from pathlib import Path

from balancer.settings import table
from balancer.settings.table import as_markdown

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

HEAD = """\
# Settings

<!-- Made by tools/settings.py from services/balancer/balancer/settings/model.py: `make generate` writes it again. -->

Every setting of the balancer is an environment variable. They are read once, at the start, checked together, and do not
change while the balancer runs; a wrong one stops the start, with one line for each fault:

```
$ LB_EJECTAFTER=3 LB_PORT=80a LB_BACKENDS=10.0.0.1:8000 python -m balancer
LB_EJECTAFTER=3: no such setting; did you mean LB_EJECT_AFTER?
LB_PORT=80a: allowed: a whole number from 0 to 65535 (0: any free one)
2 wrong: nothing was started. `python -m balancer --help` lists every setting.
```

- `python -m balancer --help` prints this page's tables; `--check` validates the settings, the files they name and a
  strategy of one's own, and exits with 0, or with 2 when something is wrong.
- A file `.env` in the working directory may hold them too, `LB_PORT=8080` a line; the environment comes before it.
- An empty value is as if the variable were not set. `none` says that there is to be no limit, file or name.
- In the Helm chart `LB_EJECT_AFTER` is the value `balancer.settings.ejectAfter`.
- `GET /api/config` at the admin port shows the values in force, with secrets masked.
- An unknown `LB_…` variable stops the start, but for those that Kubernetes sets for a Service whose name begins with
  `lb` (`LB_SERVICE_HOST`, `LB_PORT=tcp://10.0.0.1:8080` and the like): they are ignored with a warning. So
  `LB_PORT=tcp://…` does not set the port.

"""


def main() -> int:
    """Write the page; with `--check` say whether it is in step."""
    text = HEAD + as_markdown(table()).rstrip() + "\n"
    if "--check" in sys.argv[1:]:
        stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text
        if stale:
            print(f"{PAGE.name} is not what the settings say: `make generate` writes it", file=sys.stderr)
        return int(stale)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
