"""The settings as a table: the one source of --help, docs/settings.md and the chart's values.schema.json."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from pydantic.fields import FieldInfo

from balancer.settings.kinds import JsonSchema, Kind

PREFIX = "LB_"
MASK = "********"


@dataclass(frozen=True)
class Row:
    """One setting."""

    variable: str
    """`LB_EJECT_AFTER`."""
    field: str
    """`eject_after`: the attribute of Settings."""
    meaning: str
    """One sentence, with the unit."""
    default: str
    """As one would write it; `none` where there is none."""
    allowed: str
    group: str
    secret: bool
    kind: Kind

    @property
    def schema(self) -> JsonSchema:
        """JSON schema of the value as a chart's value: numbers and switches may be written unquoted."""
        return self.kind.schema

    def shown(self, value: object) -> str:
        """`value` as one would write it, masked if it is a secret that is set."""
        return MASK if self.secret and value is not None else self.kind.show(value)


def variable_of(field: str) -> str:
    """`LB_EJECT_AFTER` for `eject_after`."""
    return PREFIX + field.upper()


def rows_of(fields: Mapping[str, FieldInfo]) -> list[Row]:
    """A row for each of a model's fields, in their order."""
    rows = []
    for name, info in fields.items():
        kind = next(item for item in info.metadata if isinstance(item, Kind))
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        rows.append(
            Row(
                variable=variable_of(name),
                field=name,
                meaning=info.description or "",
                default=kind.show(info.default),
                allowed=kind.allowed,
                group=str(extra["group"]),
                secret=bool(extra["secret"]),
                kind=kind,
            )
        )
    return rows


def as_text(rows: Iterable[Row], width: int = 100) -> str:
    """The table for a terminal of `width` columns."""
    lines: list[str] = []
    for title, group in groupby(rows, key=lambda row: row.group):
        lines += ["", f"{title}:"]
        for row in group:
            lines.append(f"  {row.variable}={row.default}")
            text = f"{row.meaning} Allowed: {row.allowed}."
            lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines[1:])


def as_markdown(rows: Iterable[Row]) -> str:
    """The tables of docs/settings.md, one a group."""
    lines: list[str] = []
    for title, group in groupby(rows, key=lambda row: row.group):
        lines += [f"## {title}", "", "| variable | meaning | default | allowed |", "|---|---|---|---|"]
        lines += [
            f"| `{row.variable}` | {_cell(row.meaning)} | `{row.default}` | {_cell(row.allowed)} |" for row in group
        ]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
