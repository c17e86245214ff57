#!/usr/bin/env bash
# @grpc/grpc-js 1.14.7 (npm): a server that may report its load with responses (ORCA, "grpc.server_call_metric_recording")
# reads the reports' schema from disk for each response, three files, and parses it, also where there is nothing to report.
# A client with weighted_round_robin does so for each report that it gets. The variable that should keep the parsed schema
# is a constant that is empty. All this happens on the event loop, where everything else waits.
#
# So a server that begins to report its load, for a balancer to spare it, takes about ten times the CPU for a small call,
# which is then the load that it reports.
#
# Seen with Node.js 20 on 2026-11-30, schema files read for each of 20 calls, by server and client together:
#   no reports, pick_first: 0
#   no reports, weighted_round_robin: 0
#   reports, pick_first: 3
#   reports, weighted_round_robin: 6
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund @grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1 protobufjs@7.6.6
cat >calls.js <<'JAVASCRIPT'
const assert = require("assert");
const fs = require("fs");

let files = 0;
const read = fs.readFileSync;
fs.readFileSync = (path, ...rest) => {
  files += String(path).endsWith(".proto");
  return read(path, ...rest);
};
const grpc = require("@grpc/grpc-js");

const CALLS = 20;
const bytes = (value) => value;
const serialization = {
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
};

/** Files read for each call, of a server that reports its load or does not, and a client with that policy. */
async function filesForEachCall(reports, policy) {
  const server = new grpc.Server(reports ? { "grpc.server_call_metric_recording": 1 } : {});
  server.addService(
    { Name: { path: "/shop.Shop/Name", ...serialization } },
    {
      Name(call, answer) {
        if (reports) call.getMetricsRecorder().recordCPUUtilizationMetric(0.5);
        answer(null, Buffer.from("shop"));
      },
    },
  );
  const port = await new Promise((resolve, reject) => {
    const bound = (error, number) => (error ? reject(error) : resolve(number));
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), bound);
  });
  const client = new grpc.Client(`ipv4:127.0.0.1:${port}`, grpc.credentials.createInsecure(), {
    "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ [policy]: {} }] }),
  });
  const call = () =>
    new Promise((resolve, reject) => {
      const done = (error) => (error ? reject(error) : resolve());
      client.makeUnaryRequest("/shop.Shop/Name", bytes, bytes, Buffer.alloc(0), done);
    });
  await call(); // what is loaded once is loaded now
  files = 0;
  for (let number = 0; number < CALLS; number++) await call();
  const each = files / CALLS;
  client.close();
  server.forceShutdown();
  return each;
}

(async () => {
  const seen = {};
  for (const reports of [false, true]) {
    for (const policy of ["pick_first", "weighted_round_robin"]) {
      const name = `${reports ? "reports" : "no reports"}, ${policy}`;
      seen[name] = await filesForEachCall(reports, policy);
      console.log(`${name}: ${seen[name]}`);
    }
  }
  assert.deepStrictEqual(Object.values(seen), [0, 0, 3, 6], "the behaviour has changed");
})();
JAVASCRIPT
node calls.js
echo "as described"
