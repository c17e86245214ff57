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
        assert capsys.readouterr().err.count(str(file)) == 1
    file.write_bytes(b"\xff\xfe")
    assert main(["ingress-check", str(file)]) == 2
    assert capsys.readouterr().err == f"{file}: it is not text in UTF-8\n"
    missing = tmp_path / "missing"
    assert main(["ingress-check", str(missing)]) == 2
    assert capsys.readouterr().err == f"{missing}: No such file or directory\n"


@pytest.mark.parametrize(
    ("annotation", "value", "remedy"),
    [
        ("proxy-read-timeout", "1 minute", "write such as 60"),
        ("proxy-connect-timeout", "nan", "write such as 60"),
        ("canary-weight", "ten", "write a whole number such as 10"),
        ("canary-weight-total", "-1", "write a whole number such as 10"),
        ("permanent-redirect-code", "200", "write one of 300, 301, 302, 303, 305, 307, 308"),
        ("proxy-body-size", "8 MB", "write such as 8m or 512k, or 0 for no limit"),
        ("whitelist-source-range", "10.0.0.300", "write such as 10.0.0.0/8, with commas between"),
        ("use-regex", "maybe", "write one of them, in quotes"),
        ("backend-protocol", "FCGI", "write one of HTTP, AUTO_HTTP, GRPC"),
        ("affinity", "ip", "write cookie"),
    ],
)
def test_a_value_that_cannot_be_read_is_named_with_what_to_write(
    annotation: str, value: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ingresses.yaml"
    file.write_text(LIST.replace("8m", "9m") % f'        nginx.ingress.kubernetes.io/{annotation}: "{value}"')
    if annotation == "proxy-body-size":
        file.write_text(LIST.replace("8m", value) % "")
    assert main(["ingress-check", str(file)]) == 1
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "refused  " in each]
    assert line.startswith(f"  refused  {annotation}={value}: {value!r} ")
    assert line.endswith(f"{remedy}; the Ingress's paths would answer 500")
