"""`python -m balancer ingress-check FILE…`: what Ingresses written for ingress-nginx would do here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from balancer.discovery.gateway.ingress import ingress
from balancer.discovery.gateway.ingress_annotations import REFUSED
from balancer.discovery.gateway.ingress_check import check

NOT_ALL = 1
"""Exit status when something would not be served."""
UNREADABLE = 2


def main(arguments: argparse.Namespace) -> int:
    """Read the files, `-` for the standard input; say line by line what there is to know."""
    refused = count = 0
    for name in arguments.files:
        try:
            items = list(_ingresses(_documents(name)))
        except (OSError, UnicodeError, yaml.YAMLError) as error:
            sys.stderr.write(f"{name}: {_why(error)}\n")
            return UNREADABLE
        for item in items:
            try:
                found = ingress(item)
                lines = check(found)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                sys.stderr.write(f"{name}: {_called(item)} is no Ingress of networking.k8s.io/v1: {_why(error)}\n")
                return UNREADABLE
            count += 1
            refused += sum(line.verdict == REFUSED for line in lines)
            sys.stdout.write(f"Ingress {found.meta}\n" + "".join(f"  {line}\n" for line in lines))
    sys.stdout.write(f"Ingresses: {count}; refused: {refused}\n")
    return NOT_ALL if refused else 0


def _why(error: Exception) -> str:
    """What is wrong, without the name of the file, which stands before it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeError):
        return "it is not text in UTF-8"
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"not YAML: {error.problem}, line {error.problem_mark.line + 1}"
    return str(error)


def _called(item: dict[str, Any]) -> str:
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"Ingress {name}" if name else "one without a name"


def _documents(name: str) -> list[Any]:
    text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


def _ingresses(documents: list[Any]) -> Iterator[Any]:
    """Those among documents, and in the lists that `kubectl get -o yaml` prints."""
    for document in documents:
        if not isinstance(document, dict):
            continue
        if document.get("kind") == "Ingress":
            yield document
        elif isinstance(document.get("items"), list):
            yield from _ingresses(document["items"])
