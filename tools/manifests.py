"""Writes k8s/lb.yaml, the plain manifests for `kubectl apply -k k8s`, by rendering the chart with its defaults.

With `--check` it writes nothing and exits with 1 when the file is out of step. It needs helm: where there is none the
check is skipped with a message, in CI (`CI=true`) it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "k8s" / "lb.yaml"

HEAD = """\
# Rendered from charts/lb with its defaults by tools/manifests.py: change the chart, then `make generate`.
"""
RENDER = ["helm", "template", "lb", "charts/lb", "--namespace", "default", "--no-hooks"]
OF_HELM = {"helm.sh/chart", "app.kubernetes.io/managed-by"}
"""Labels of an installation by Helm, which this is not."""


def manifests() -> str:
    """All resources of the chart but its test. Their namespace is kustomize's to say."""
    rendered = subprocess.run(RENDER, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    for document in documents:
        clean(document["metadata"])
    return HEAD + yaml.safe_dump_all(documents, sort_keys=False, width=120)


def clean(metadata: dict[str, Any]) -> None:
    """Take out what Helm put in."""
    metadata.pop("namespace", None)
    for label in OF_HELM:
        metadata["labels"].pop(label, None)


def main() -> int:
    """Write the file, or with `--check` say whether it is out of step."""
    check = "--check" in sys.argv[1:]
    if not shutil.which("helm"):
        print(f"manifests: there is no helm here: {TARGET.relative_to(ROOT)} is left as it is", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    text = manifests()
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    if check:
        print(f"manifests: {TARGET.relative_to(ROOT)} is out of step with charts/lb", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    print(f"manifests: {TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
