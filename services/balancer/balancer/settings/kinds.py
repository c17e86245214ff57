"""The kinds of value that a setting may have: how each is read, what is allowed, and how it is shown.

Pure functions. A kind reads the text of an environment variable; values that are already of the right type (a Settings
made in a test) pass as they are. These are not pydantic's own types, because one source has to give all of a setting:
how it is read, the sentence of `--help` and docs/settings.md, the chart's schema, and its text in /api/config.

Above 300 lines because it is a table of kinds, each a function of ten lines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

JsonSchema = dict[str, Any]

UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
FIELD_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # a token, RFC 9110, section 5.6.2


class ItemsError(ValueError):
    """Some items of a list are wrong: each with the reason."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{item}: {why}" for item, why in faults))
        self.faults = faults


@dataclass(frozen=True)
class Kind:
    """How one kind of value is read (`parse` raises ValueError), described, and shown as one would write it."""

    parse: Callable[[object], object]
    allowed: str
    schema: JsonSchema
    """What the chart's values.schema.json says of it."""
    show: Callable[[Any], str] = str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return self.schema


def _text(value: object) -> str:
    return str(value).strip()


def whole(low: int, high: int | None = None, note: str = "") -> Kind:
    """A whole number, `low` or more, at most `high`."""
    span = f" from {low} to {high}" if high is not None else f", {low} or more"
    schema: JsonSchema = {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})

    def parse(value: object) -> int:
        text = _text(value)
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or int(text) < low or (high is not None and int(text) > high):
            raise ValueError
        return int(text)

    return Kind(parse, f"a whole number{span}{note}", schema)


def _number(value: object) -> float:
    text = _text(value)
    if not re.fullmatch(r"[0-9]{0,12}\.?[0-9]{0,9}", text) or text in {"", "."}:
        raise ValueError
    return float(text)


def seconds(zero: str = "") -> Kind:
    """Seconds above 0; where `zero` says what it means, 0 too."""

    def parse(value: object) -> float:
        number = _number(value)
        if number == 0 and not zero:
            raise ValueError
        return number

    schema: JsonSchema = {"type": "number", "minimum": 0} if zero else {"type": "number", "exclusiveMinimum": 0}
    return Kind(parse, f"seconds, 0 or more (0: {zero})" if zero else "seconds, above 0", schema, _plain)


def share() -> Kind:
    """A part of a whole, from 0 to 1."""

    def parse(value: object) -> float:
        number = _number(value)
        if number > 1:
            raise ValueError
        return number

    return Kind(parse, "a share from 0 to 1", {"type": "number", "minimum": 0, "maximum": 1}, _plain)


def _plain(number: float) -> str:
    return str(int(number)) if number == math.floor(number) else str(number)


def size() -> Kind:
    """Bytes, above 0."""

    def parse(value: object) -> int:
        match = re.fullmatch(r"([0-9]{1,15}) ?(|KiB|MiB|GiB)", _text(value), re.IGNORECASE)
        if not match or int(match[1]) == 0:
            raise ValueError
        return int(match[1]) * UNITS[match[2].upper()]

    def show(number: int) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if number % UNITS[unit.upper()] == 0:
                return f"{number // UNITS[unit.upper()]}{unit}"
        return str(number)

    pattern = "^[0-9]{1,15} ?([KkMmGg][Ii][Bb])?$"
    schema: JsonSchema = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": pattern}]}
    return Kind(parse, "bytes, above 0, as 65536, 64KiB, 1MiB or 1GiB", schema, show)


def switch(on: str = "on") -> Kind:
    """On or off; `on` names what is on where it may be one thing of several some day: just on is understood as well.

    YAML turns an unquoted `on` into `true`, so those words are understood too.
    """
    words = {on: True, "on": True, "true": True, "off": False, "false": False}

    def parse(value: object) -> bool:
        text = _text(value).lower()
        if text not in words:
            raise ValueError
        return words[text]

    allowed = "on or off" if on == "on" else f"off or {on}"
    schema: JsonSchema = {"enum": [*dict.fromkeys([on, "on"]), "off", True, False]}
    return Kind(parse, allowed, schema, lambda value: on if value else "off")


def one_of(names: Iterable[str]) -> Kind:
    """One of `names`, as it is written."""
    known = list(names)

    def parse(value: object) -> str:
        text = _text(value)
        if text not in known:
            raise ValueError(did_you_mean(text, known))
        return text

    return Kind(parse, listed(known), {"enum": known})


def pattern(regex: str, allowed: str) -> Kind:
    """Text that `regex` matches whole."""

    def parse(value: object) -> str:
        text = _text(value)
        if not re.fullmatch(regex, text):
            raise ValueError
        return text

    return Kind(parse, allowed, {"type": "string", "pattern": f"^({regex})$"})


def path() -> Kind:
    """A file's path; whether there is such a file is seen when it is read."""

    def parse(value: object) -> Path:
        return value if isinstance(value, Path) else Path(_text(value))

    return Kind(parse, "the path of a file", {"type": "string", "minLength": 1})


def port_name() -> Kind:
    """A port of a Service, by name or number."""

    def parse(value: object) -> int | str:
        text = _text(value)
        if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
            return int(text)
        if not re.fullmatch(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
            raise ValueError
        return text

    schema: JsonSchema = {"type": ["string", "integer"]}
    return Kind(parse, "the port's name, or its number from 1 to 65535", schema)


def hosts() -> Kind:
    """Addresses to listen at."""

    def one(text: str) -> str:
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        if not re.fullmatch(r"[0-9A-Za-z.:%_-]+", bare):
            raise ValueError
        return bare

    def parse(value: object) -> tuple[str, ...]:
        found = items(value)
        if not found:
            raise ValueError
        return tuple(one(item) for item in found)

    return Kind(parse, "one or more addresses, comma separated", {"type": "string", "minLength": 1}, ",".join)


def protocols() -> Kind:
    """Names of protocols, as ALPN has them."""

    def parse(value: object) -> tuple[str, ...]:
        found = tuple(str(item) for item in items(value))
        if not all(re.fullmatch(r"[!-~]{1,255}", name) for name in found):
            raise ValueError
        return found

    return Kind(parse, "names of protocols as h2 or http/1.1, comma separated, or none", {"type": "string"}, show_items)


def networks() -> Kind:
    """IP networks, each in CIDR form; a single address is a network of one."""

    def one(item: object) -> IPv4Network | IPv6Network:
        if isinstance(item, IPv4Network | IPv6Network):
            return item
        try:
            return ip_network(str(item))
        except ValueError as error:
            raise ValueError(f"{error}") from None

    def parse(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(one(item) for item in items(value))

    allowed = "networks as 10.0.0.0/8 or fd00::/8, comma separated, or none"
    return Kind(parse, allowed, {"type": "string"}, show_items)


def statuses() -> Kind:
    """A set of status codes from 400 to 599."""

    def parse(value: object) -> frozenset[int]:
        codes = whole(400, 599)
        return frozenset(int(str(codes.parse(item))) for item in items(value))

    schema: JsonSchema = {"type": ["string", "integer"]}
    return Kind(
        parse, "status codes from 400 to 599, comma separated, or none", schema, lambda v: show_items(sorted(v))
    )


def status_ranges() -> Kind:
    """Ranges of status codes, each as its first and last."""

    def one(item: object) -> tuple[int, int]:
        if isinstance(item, tuple):
            return item
        match = re.fullmatch(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", str(item))
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError
        return int(match[1]), int(match[2] or match[1])

    def parse(value: object) -> tuple[tuple[int, int], ...]:
        found = items(value)
        if not found:
            raise ValueError
        return tuple(one(item) for item in found)

    def show(ranges: Sequence[tuple[int, int]]) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)

    return Kind(parse, "status codes and ranges as 200-299,404", {"type": ["string", "integer"]}, show)


def or_none(kind: Kind) -> Kind:
    """What `kind` allows, or `none`."""

    def parse(value: object) -> object:
        return None if value is None or value == "none" else kind.parse(value)

    def show(value: object) -> str:
        return "none" if value is None else kind.show(value)

    schema: JsonSchema = {"anyOf": [kind.schema, {"enum": ["none", None]}]}
    return Kind(parse, f"{kind.allowed}, or none", schema, show)


def items(value: object) -> list[Any]:
    """The items of a comma separated list, or of a collection; `none` has none."""
    if not isinstance(value, str | int):
        return list(value)  # type: ignore[call-overload, no-any-return]
    text = str(value).strip()
    return [] if text == "none" else [item.strip() for item in text.split(",") if item.strip()]


def show_items(values: Iterable[object]) -> str:
    return ",".join(str(item) for item in values) or "none"


def listed(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """`did you mean X?` for the known name closest to `wrong`; empty when none is close."""
    close = get_close_matches(wrong, known, 1)
    return f"did you mean {close[0]}?" if close else ""
