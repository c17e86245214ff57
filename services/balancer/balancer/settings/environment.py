"""From the environment to Settings, with one readable line for each fault.

A misspelt variable must not be ignored in silence, so every `LB_…` variable has to be known. The exception are those
that Kubernetes injects for a Service whose name begins with `lb` ("service links"), which no user has written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import ValidationError

from balancer.settings.checks import contradictions
from balancer.settings.kinds import ItemsError, did_you_mean
from balancer.settings.model import Settings, table
from balancer.settings.table import MASK, PREFIX, Row

# kubelet's pkg/kubelet/envvars: NAME_SERVICE_HOST, NAME_SERVICE_PORT[_PORTNAME], NAME_PORT=tcp://…, and
# NAME_PORT_80_TCP[_ADDR|_PORT|_PROTO].
SERVICE_LINK = re.compile(
    r"LB(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
SERVICE_LINK_URL = re.compile(r"(tcp|udp|sctp)://\S+", re.IGNORECASE)
SECRET_NAME = re.compile("TOKEN|SECRET|PASS|KEY|CRED")


class SettingsError(Exception):
    """The settings are wrong; `faults` has one line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load(environ: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """The settings that `environ` and, where it says nothing, the file `env_file` give; the file need not exist.

    An empty value is as if the variable were not set. Raises SettingsError with every fault.
    """
    given = _given(environ, env_file)
    rows = {row.variable: row for row in table()}
    faults = [_unknown(name, value, rows) for name, value in given.items() if name not in rows]
    arguments = {rows[name].field: value for name, value in given.items() if name in rows}
    try:
        settings = Settings.model_validate(arguments)
    except ValidationError as error:
        faults += _faults(error, arguments, rows)
    else:
        if not faults:
            return settings
    raise SettingsError(faults)


def value_of(field: str, environ: Mapping[str, str], env_file: Path | None = None) -> object:
    """The value of one setting, whatever the others say. Raises SettingsError."""
    row = next(row for row in table() if row.field == field)
    text = _given(environ, env_file).get(row.variable)
    if text is None:
        return Settings.model_fields[field].default
    try:
        return row.kind.parse(text)
    except ValueError as error:
        raise SettingsError([_line_of(row, text, str(error))]) from None


def service_links(environ: Mapping[str, str]) -> list[str]:
    """The variables of `environ` that Kubernetes has injected, and that are ignored."""
    return sorted(name for name, value in environ.items() if is_service_link(name, value))


def is_service_link(name: str, value: str) -> bool:
    """Whether `name` is one of the variables that Kubernetes injects for a Service called `lb` or `lb-…`."""
    if not name.startswith(PREFIX):
        return False
    if SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and SERVICE_LINK_URL.fullmatch(value) is not None


def _given(environ: Mapping[str, str], env_file: Path | None) -> dict[str, str]:
    """Every variable of ours that is set, the environment before the file."""
    return _ours(_read(env_file)) | _ours(environ)


def _read(env_file: Path | None) -> Mapping[str, str]:
    if env_file is None or not env_file.is_file():
        return {}
    try:
        return {name: value or "" for name, value in dotenv_values(env_file, interpolate=False).items()}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{env_file}: cannot be read: {error}"]) from None


def _ours(given: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in given.items()
        if name.startswith(PREFIX) and value.strip() and not is_service_link(name, value)
    }


def _unknown(name: str, value: str, rows: Mapping[str, Row]) -> str:
    meant = did_you_mean(name, list(rows))
    secret = SECRET_NAME.search(name) or any(row.secret and row.variable in meant for row in rows.values())
    return f"{name}={MASK if secret else _line(value)}: no such setting; {meant or 'see --help for all there are'}"


def _faults(error: ValidationError, arguments: Mapping[str, str], rows: Mapping[str, Row]) -> Iterator[str]:
    """The lines for what pydantic found, and for what the settings without fault say together."""
    by_field = {row.field: row for row in rows.values()}
    wrong: set[str] = set()
    for fault in error.errors():
        reason = fault.get("ctx", {}).get("error")
        if not fault["loc"]:  # several settings together: each line is whole
            yield from str(reason).splitlines()
            return
        row = by_field[str(fault["loc"][0])]
        wrong.add(row.field)
        value = arguments[row.field]
        for item, why in reason.faults if isinstance(reason, ItemsError) else [(value, str(reason or ""))]:
            yield _line_of(row, item, why)
    sound = {field: by_field[field].kind.parse(value) for field, value in arguments.items() if field not in wrong}
    rest = Settings.model_construct(None, **sound)
    yield from (fault.text for fault in contradictions(rest) if not fault.fields & wrong)


def _line_of(row: Row, value: str, why: str) -> str:
    shown = MASK if row.secret else _line(value)
    return f"{row.variable}={shown}: {f'{why}; ' if why else ''}allowed: {row.allowed}"


def _line(value: str) -> str:
    """`value` on one line, of bounded length, free of control characters."""
    shown = "".join(character if character.isprintable() else repr(character)[1:-1] for character in value)
    return shown if len(shown) <= 120 else f"{shown[:120]}…"
