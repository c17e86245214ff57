#!/usr/bin/env bash
# @opentelemetry/core 2.12.1 (npm): its W3CTraceContextPropagator reads a `traceparent` of a later version, as W3C Trace
# Context wants it (take the known part, ignore the rest), and passes it on as one that nobody can read. It keeps all
# eight flags, and writes a zero before their number in hexadecimal, so two digits become three. Every hop behind it begins
# a trace of its own, one with the same library too. opentelemetry-api 1.45.2 (PyPI) passes all flags on as well, under
# version 00, which requires unknown ones to be zero, and Go's otel 1.47.0 passes on those that it knows, as the standard
# has it.
#
# It takes one of the upper four flags, and a program that passes its context on without a tracer (the API without an
# SDK): the trace ends there, and no log says why.
#
# Seen with Node.js 20, Python 3.11 and Go 1.26 on 2026-11-30, for flags 03 and 11 of version 01: what each passes on, and
# who can read that:
#   03: npm 00-03 (read by npm, PyPI, Go), PyPI 00-03 (read by npm, PyPI, Go), Go 00-03 (read by npm, PyPI, Go)
#   11: npm 00-011 (read by nobody), PyPI 00-11 (read by npm, PyPI), Go 00-01 (read by npm, PyPI, Go)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-api==1.45.2
cd "$folder"
npm install --silent --no-audit --no-fund @opentelemetry/core@2.12.1 @opentelemetry/api@1.9.1
cat >passed.js <<'JAVASCRIPT'
const { W3CTraceContextPropagator } = require("@opentelemetry/core");
const { ROOT_CONTEXT, defaultTextMapGetter, defaultTextMapSetter } = require("@opentelemetry/api");

const propagator = new W3CTraceContextPropagator();
const sent = {};
const context = propagator.extract(ROOT_CONTEXT, { traceparent: process.argv[2] }, defaultTextMapGetter);
propagator.inject(context, sent, defaultTextMapSetter);
console.log(sent.traceparent ?? "");
JAVASCRIPT
cat >passed.py <<'PYTHON'
import sys

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

propagator = TraceContextTextMapPropagator()
sent: dict[str, str] = {}
propagator.inject(sent, propagator.extract({"traceparent": sys.argv[1]}))
print(sent.get("traceparent", ""))
PYTHON
cat >passed.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/propagation"
)

func main() {
	var propagator propagation.TraceContext
	sent := propagation.MapCarrier{}
	received := propagation.MapCarrier{"traceparent": os.Args[1]}
	propagator.Inject(propagator.Extract(context.Background(), received), sent)
	fmt.Println(sent["traceparent"])
}
GO
export GOPATH=$folder/go GOFLAGS=-modcacherw
{
    go mod init passed
    go get go.opentelemetry.io/otel@v1.47.0
    go build -o passed .
} >log 2>&1 || { cat log && exit 1; }
venv/bin/python - <<'PYTHON'
import subprocess

PROGRAMS = {"npm": ["node", "passed.js"], "PyPI": ["venv/bin/python", "passed.py"], "Go": ["./passed"]}
IDS = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


def passed(library: str, traceparent: str) -> str:
    """The traceparent that a program sends which received this one; empty where it could not read it."""
    ran = subprocess.run([*PROGRAMS[library], traceparent], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def told(flags: str) -> str:
    """What each library passes on, and who can read that."""
    parts = []
    for library in PROGRAMS:
        sent = passed(library, f"01-{IDS}-{flags}")
        readers = [reader for reader in PROGRAMS if passed(reader, sent)]
        parts.append(f"{library} {sent.replace(IDS + '-', '')} (read by {', '.join(readers) or 'nobody'})")
    return ", ".join(parts)


seen = {flags: told(flags) for flags in ("03", "11")}
for flags, what in seen.items():
    print(f"{flags}: {what}")
everybody = "(read by npm, PyPI, Go)"
assert seen == {
    "03": f"npm 00-03 {everybody}, PyPI 00-03 {everybody}, Go 00-03 {everybody}",
    "11": f"npm 00-011 (read by nobody), PyPI 00-11 (read by npm, PyPI), Go 00-01 {everybody}",
}, "the behaviour has changed"
PYTHON
echo "as described"
