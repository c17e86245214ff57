"""The settings: read from `PI_…` variables once, checked together, frozen.

This table is the only one: `python -m pi --help` and docs/pi.md print it.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from pi.cpus import available_cpus

PREFIX = "PI_"

_SERVICE_LINK = re.compile(
    r"PI(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_SERVICE_LINK_URL = re.compile(r"(tcp|udp|sctp)://")


_CONSEQUENCE = "default_factory_not_called"
"""Pydantic's error for a default that would be computed from a setting that is wrong itself."""


def _is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes made this variable.

    A pod gets `PI_SERVICE_HOST`, `PI_PORT=tcp://…`, `PI_PORT_8000_TCP…` when its namespace has a Service called `pi`
    (`PI_WEB_…` for one called `pi-web`), unless it sets `enableServiceLinks: false`.
    """
    if _SERVICE_LINK.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and bool(_SERVICE_LINK_URL.match(value))


class _Environment(EnvSettingsSource):
    """The environment without what Kubernetes put there."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        if isinstance(value, str) and _is_service_link(PREFIX + field_name.upper(), value):
            value = None
        return value, key, is_complex


def _header_value(name: str) -> str:
    if not re.fullmatch(r"[!-~]+( +[!-~]+)*", name):
        raise ValueError("it could not be sent in a header")
    return name


def _queue(validated: Mapping[str, Any]) -> int:
    return 32 * int(validated["workers"])


class Settings(BaseSettings):
    """How this process serves. Each field is the variable `PI_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = Field(
        "0.0.0.0",  # noqa: S104
        min_length=1,
        description="where to listen; `::` is every address, IPv6 and IPv4",
        json_schema_extra={"allowed": "an address, or several with commas"},
    )
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one, which the log names")
    name: Annotated[str, AfterValidator(_header_value)] = Field(
        default_factory=socket.gethostname,
        max_length=255,
        description="who serves, in the header `X-Served-By` and on the page",
        json_schema_extra={"default": "the host name", "allowed": "visible ASCII characters, at most 255"},
    )
    max_digits: int = Field(1_000_000, ge=1, le=100_000_000, description="most decimals that a request may ask for")
    workers: int = Field(
        default_factory=available_cpus,
        ge=1,
        le=1024,
        description="processes that compute",
        json_schema_extra={"default": "the CPUs it may use, by affinity and cgroup quota"},
    )
    queue: int = Field(
        default_factory=_queue,
        ge=0,
        le=1_000_000,
        description="requests that may wait for a worker; one more gets 503 at once",
        json_schema_extra={"default": "32 a worker"},
    )
    cache: bool = Field(
        False,
        description="`on`: each worker remembers the longest text it has computed; `off`: each request computes afresh",
    )
    delay_ms: int = Field(
        0, ge=0, le=3_600_000, description="milliseconds to wait before each answer, for demonstrations"
    )
    fail_rate: float = Field(0.0, ge=0, le=1, description="share of requests answered 500, for demonstrations")
    drain_delay: float = Field(
        0.0, ge=0, le=3600, description="seconds from SIGTERM, when readiness fails, until it stops listening"
    )
    drain_timeout: float = Field(
        30.0, ge=0, le=3600, description="seconds that requests in flight may then take to end before they are cut"
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *_: PydanticBaseSettingsSource, **__: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (_Environment(settings_cls),)


class SettingsError(Exception):
    """One line for each fault: the variable, its value, what is allowed."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load() -> tuple[Settings, list[str]]:
    """The settings, and a warning for each variable that is ignored because Kubernetes made it.

    Raises SettingsError, with every fault that there is, not the first alone.
    """
    warnings, faults = [], []
    for variable, value in sorted(os.environ.items()):
        if not variable.upper().startswith(PREFIX):
            continue
        if _is_service_link(variable, value):
            warnings.append(f"{variable}={value} ignored: Kubernetes sets it for a Service")
        elif variable.upper() not in variables():
            close = difflib.get_close_matches(variable[len(PREFIX) :].lower(), Settings.model_fields, n=1)
            hint = f"did you mean {PREFIX}{close[0].upper()}?" if close else f"there are {', '.join(variables())}"
            faults.append(f"{variable}={_shown(value)}: no such setting; {hint}")
    try:
        settings = Settings()  # type: ignore[call-arg]
    except ValidationError as error:
        faults += [_fault(detail) for detail in error.errors() if detail["type"] != _CONSEQUENCE]
    if faults:
        raise SettingsError(faults)
    return settings, warnings


def table(markdown: bool = False) -> str:
    """The settings as a table, a line each: variable, default, meaning."""
    rows = [("variable", "default", "meaning")]
    for name, field in Settings.model_fields.items():
        rows.append((PREFIX + name.upper(), _default(name), f"{field.description} ({_allowed(name)})"))
    if markdown:
        head, *body = [f"| {' | '.join(row)} |" for row in [rows[0], *((f"`{v}`", d, m) for v, d, m in rows[1:])]]
        return "\n".join([head, "|---|---|---|", *body])
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{v:<{widths[0]}}  {d:<{widths[1]}}  {m.replace('`', '')}" for v, d, m in rows)


def variables() -> list[str]:
    """The names of all settings."""
    return [PREFIX + name.upper() for name in Settings.model_fields]


def _fault(detail: ErrorDetails) -> str:
    name = str(detail["loc"][0])
    return f"{PREFIX}{name.upper()}={_shown(str(detail['input']))}: allowed: {_allowed(name)}"


def _shown(value: str) -> str:
    """The value on one line, whatever it holds."""
    return value if value.isprintable() else repr(value)


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "default" in extra:
        return str(extra["default"])
    if field.annotation is bool:
        return "on" if field.default else "off"
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


def _allowed(name: str) -> str:
    """What the field takes, from its constraints, in words."""
    field = Settings.model_fields[name]
    if field.annotation is bool:
        return "on or off"
    if isinstance(field.json_schema_extra, dict) and "allowed" in field.json_schema_extra:
        return str(field.json_schema_extra["allowed"])
    lowest, highest = (
        next(getattr(rule, bound) for rule in field.metadata if hasattr(rule, bound)) for bound in ("ge", "le")
    )
    return f"{'a whole number' if field.annotation is int else 'a number'} from {lowest} to {highest}"
