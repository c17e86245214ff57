"""Writes the chart's values.schema.json and README.md: from values.yaml with its comments, and the services' settings.

With `--check` it writes nothing and exits with 1 when a file is out of step, or Chart.yaml's two versions differ.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from balancer.settings import Settings as BalancerSettings
from balancer.settings import table
from balancer.settings.model import STRATEGY_NAMES
from pi import settings as pi_settings

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "lb"

Schema = dict[str, Any]

NUMBER = r"^([0-9]{1,12}(\.[0-9]{1,9})?)$"
"""Helm's `--set` hands on a number with a point as a string."""

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength")

ELSEWHERE = {
    "peers": "peers.enabled",
    "peers_token": "peers.tokenSecret",
    "kubernetes_service": "backend.service",
    "kubernetes_port": "backend.port",
    "kubernetes_namespace": "backend.namespace",
}
"""Settings of the balancer that the chart makes from values of its own, which the Role follows too."""


@dataclass(frozen=True)
class Setting:
    """One setting of a service, as a value of the chart."""

    name: str
    """`ejectAfter`."""
    meaning: str
    default: str
    schema: Schema


@dataclass(frozen=True)
class Value:
    """One value of values.yaml."""

    path: str
    """`balancer.image.tag`."""
    meaning: str
    default: object
    schema: Schema | str | None
    """What its comment says: a schema, `settings`, or nothing."""


# --- settings -----------------------------------------------------------------------------------------------------


def camel_case(field: str) -> str:
    """`ejectAfter` for `eject_after`."""
    first, *rest = field.split("_")
    return first + "".join(part.capitalize() for part in rest)


def balancer_settings() -> list[Setting]:
    """The balancer's settings, in the order of its `--help`."""
    found = []
    for row in table():
        schema = lenient(row.schema)
        if row.field == "strategy":
            schema = strategy_schema()
        elif row.field in {"port", "admin_port"}:
            schema = lenient(row.schema) | {"minimum": 1}
        elif str(BalancerSettings.model_fields[row.field].annotation).startswith(("tuple[", "frozenset[")):
            schema = lenient({"type": ["string", "integer"]}, "array")
        elif "comma separated" in row.allowed:
            schema = lenient(row.schema, "array")
        meaning = f"{row.meaning} Allowed: {row.allowed}."
        if row.field in ELSEWHERE:
            meaning = f"Not here: set `{ELSEWHERE[row.field]}`."
        found.append(Setting(camel_case(row.field), meaning, row.default, schema))
    return found


def pi_service_settings() -> list[Setting]:
    """The Pi service's settings, in the order of its `--help`."""
    found = []
    for name, schema in pi_settings.Settings.model_json_schema()["properties"].items():
        meaning = schema["description"][0].upper() + schema["description"][1:] + "."
        default = schema["default"]
        if isinstance(default, bool):  # 0 is equal to False, and no switch
            default = "on" if default else "off"
        found.append(
            Setting(
                camel_case(name),
                meaning,
                f"{default:g}" if isinstance(default, float) else str(default),
                lenient(schema, *(["array"] if "commas" in schema.get("allowed", "") else [])),
            )
        )
    return found


def strategy_schema() -> Schema:
    """Told apart by the colon, so that Helm's message is one line: a known name, or `module:Class`."""
    return {
        "type": "string",
        "if": {"pattern": ":"},
        "then": {"pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"},
        # The last has a colon and so is never compared: it completes the list in Helm's message.
        "else": {"enum": [*STRATEGY_NAMES, "module:Class"]},
    }


def lenient(schema: Schema, *more_types: str) -> Schema:
    """`schema` for a value that a person writes: YAML's `off` is false, and no `anyOf`.

    Helm reports each branch of an `anyOf`, where one line says as much. Bounds hold for numbers, a pattern for strings.
    Null needs no schema: Helm takes such a value away before it looks.
    """
    branches = list(parts(schema))
    words = [word for branch in branches for word in branch.get("enum", ()) if word is not None]
    typed = [branch for branch in branches if "type" in branch]
    types = [name for branch in typed for name in as_list(branch["type"])] + list(more_types)
    if types == ["boolean"]:
        words, types = ["on", "off", True, False], []
    if not types:
        return {"enum": [*words, *([False] if "off" in words and False not in words else [])]}
    patterns = [branch.get("pattern") for branch in typed if "string" in branch["type"]]
    if "number" in types:
        patterns.append(NUMBER)
    if words or patterns:
        types.append("string")
    types = list(dict.fromkeys(types))
    result: Schema = {"type": types if len(types) > 1 else types[0]}
    result |= {key: branch[key] for branch in typed for key in BOUNDS if key in branch}
    if None not in patterns:
        alternatives = [pattern for pattern in patterns if pattern] + [f"^{word}$" for word in words]
        result |= {"pattern": "|".join(alternatives)} if alternatives else {}
    return result


def as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def parts(schema: Schema) -> Iterator[Schema]:
    """The branches of nested `anyOf`s; the schema itself where there is none."""
    if "anyOf" in schema:
        for branch in schema["anyOf"]:
            yield from parts(branch)
    else:
        yield schema


SETTINGS = {"balancer.settings": balancer_settings, "pi.settings": pi_service_settings}

# --- values.yaml ---------------------------------------------------------------------------------------------------


def values() -> list[Value]:
    """The leaves of values.yaml, in its order. Raises SystemExit for one without a description."""
    text = (CHART / "values.yaml").read_text()
    lines = text.splitlines()
    defaults = yaml.safe_load(text)

    def walk(node: yaml.MappingNode, default: dict[str, Any], path: str) -> Iterator[Value]:
        for key, child in node.value:
            here = f"{path}{key.value}"
            meaning, schema = comment_above(lines, key.start_mark.line)
            if isinstance(child, yaml.MappingNode) and not child.flow_style and not isinstance(schema, dict):
                if schema == "settings":
                    yield Value(here, meaning, {}, schema)
                yield from walk(child, default[key.value], f"{here}.")
            elif not meaning:
                raise SystemExit(f"chart: values.yaml, line {key.start_mark.line + 1}: {here} has no description")
            else:
                yield Value(here, meaning, default[key.value], schema)

    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    return list(walk(root, defaults, ""))


def comment_above(lines: list[str], line: int) -> tuple[str, Schema | str | None]:
    """The description right above a line, and what follows `@schema` there."""
    words: list[str] = []
    schema = None
    while line and (match := re.match(r" *# ?(.*)", lines[line - 1])):
        line -= 1
        if match[1].startswith("@schema "):
            schema = yaml.safe_load(match[1].removeprefix("@schema "))
        else:
            words.insert(0, match[1])
    return " ".join(words), schema


def inferred(default: object) -> Schema:
    """The schema of a value without one, from its default."""
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": kinds[type(default)]}


def values_schema() -> Schema:
    """The whole schema. Unknown keys are refused everywhere but in Helm's own `global`."""
    root: Schema = closed()
    root["properties"]["global"] = {"type": "object"}
    for value in values():
        if any(value.path.startswith(f"{settings}.") for settings in SETTINGS):
            continue
        *parents, name = value.path.split(".")
        node = root
        for parent in parents:
            node = node["properties"].setdefault(parent, closed())
        if value.schema == "settings":
            schema = closed()
            schema["properties"] = {
                setting.name: {"description": f"{setting.meaning} Default: {setting.default}.", **setting.schema}
                for setting in SETTINGS[value.path]()
            }
        else:
            schema = value.schema if isinstance(value.schema, dict) else inferred(value.default)
        node["properties"][name] = {"description": value.meaning, **schema}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart lb", **root}


def closed() -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": {}}


# --- README.md -----------------------------------------------------------------------------------------------------


def readme() -> str:
    """The chart's README.md."""
    chart, found = chart_yaml(), values()
    default = {value.path: value.default for value in found}

    def rows(settings: list[Setting]) -> str:
        return "\n".join(
            row(item.name, item.meaning, item.default) for item in settings if "Not here" not in item.meaning
        )

    return (
        (CHART / "README.template.md")
        .read_text()
        .format(
            description=chart["description"],
            version=chart["version"],
            balancers=default["balancer.replicas"],
            pis=default["pi.replicas"],
            values="\n".join(
                row(value.path, value.meaning, json.dumps(value.default, ensure_ascii=False))
                for value in found
                if value.schema != "settings"
            ),
            balancer=rows(balancer_settings()),
            pi=rows(pi_service_settings()),
        )
    )


def row(name: str, meaning: str, default: str) -> str:
    """One row of a table, with what Markdown would take for a column or for emphasis escaped."""
    meaning = re.sub(r"[|*]", r"\\\g<0>", meaning)
    return f"| `{name}` | {meaning} | `{default.replace('|', chr(92) + '|')}` |"


# --- writing and checking ------------------------------------------------------------------------------------------


def chart_yaml() -> dict[str, Any]:
    chart: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return chart


def main() -> int:
    """Write both files, or with `--check` say which are out of step."""
    chart = chart_yaml()
    if chart["version"] != chart["appVersion"]:
        print("chart: version and appVersion in charts/lb/Chart.yaml differ; they are one", file=sys.stderr)
        return 1
    schema = json.dumps(values_schema(), indent=2, ensure_ascii=False) + "\n"
    stale = 0
    for path, text in {CHART / "values.schema.json": schema, CHART / "README.md": readme()}.items():
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in sys.argv[1:]:
            print(f"chart: {path.relative_to(ROOT)} is out of step", file=sys.stderr)
            stale = 1
        else:
            path.write_text(text)
            print(f"chart: {path.relative_to(ROOT)}")
    return stale


if __name__ == "__main__":
    sys.exit(main())
