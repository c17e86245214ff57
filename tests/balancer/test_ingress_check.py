"""`python -m balancer ingress-check`: real files in, lines and an exit status out."""

from __future__ import annotations

from pathlib import Path

import pytest

from balancer.cli import main

LIST = """
apiVersion: v1
kind: List
items:
  - apiVersion: networking.k8s.io/v1
    kind: Ingress
    metadata:
      name: shop
      namespace: shop
      annotations:
        nginx.ingress.kubernetes.io/proxy-body-size: 8m
        nginx.ingress.kubernetes.io/proxy-buffering: "off"
%s
    spec:
      ingressClassName: nginx
      rules:
        - host: shop.example.com
          http:
            paths:
              - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
"""


def test_it_says_line_by_line_what_becomes_of_an_ingress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ingresses.yaml"
    file.write_text(LIST % "")
    assert main(["ingress-check", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "Ingress shop/shop",
        "  same     proxy-body-size=8m",
        "  ignored  proxy-buffering=off: nothing is held back: a response is passed on as it comes",
        "  same     shop.example.com/ (Prefix)",
        "Ingresses: 1; refused: 0",
    ]
    file.write_text(LIST % "        nginx.ingress.kubernetes.io/auth-url: http://auth/")
    assert main(["ingress-check", str(file)]) == 1
    assert "refused  auth-url=http://auth/: put an authenticating proxy between" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "odd.yaml"
    for text in ("a: [", "kind: Ingress", "kind: Ingress\nmetadata: {name: x}\nspec: {rules: 7}"):
        file.write_text(text)
        assert main(["ingress-check", str(file)]) == 2
        assert str(file) in capsys.readouterr().err
    assert main(["ingress-check", str(tmp_path / "missing")]) == 2
