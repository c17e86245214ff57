#!/usr/bin/env bash
# @grpc/grpc-js 1.14.7 (npm): its weighted_round_robin (gRFC A58), with weights from the endpoints' load reports (ORCA),
# differs from Go's (google.golang.org/grpc 1.85.0), with the same endpoints and settings:
#
# - An endpoint that restarts gets no more requests. As long as its own weight does not count (blackout period), it has the
#   average of the others' weights. Here that average becomes its period, the distance between its turns, which should be
#   the inverse: with weights of 2000, one turn for four million of the others'. Reports come with responses, so none comes
#   that would end the blackout.
# - Endpoints that report CPU utilisation alone all get the same share. It should stand in where they report no utilisation
#   of the application, and is not looked at.
#
# Seen with Node.js 20 and Go 1.26 on 2026-11-30, shares of requests in per cent, of the endpoints a, b and c:
#   500 requests/s and a utilisation of the application of 0.25 each, after c has restarted: npm 50 50 0, Go 33 33 33
#   500 requests/s and a utilisation of the CPU of 0.2, 0.8 and 0.8: npm 33 33 33, Go 67 17 17
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund @grpc/grpc-js@1.14.7
cat >client.js <<'JAVASCRIPT'
// For each number that it reads, it sends so many requests, and says how many each endpoint has answered.
const readline = require("readline");
const grpc = require("@grpc/grpc-js");

const policy = { weighted_round_robin: { blackout_period: "1s", weight_update_period: "0.1s" } };
const client = new grpc.Client(`ipv4:${process.argv[2]}`, grpc.credentials.createInsecure(), {
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [policy] }),
});
const bytes = (value) => value;
const name = () =>
  new Promise((resolve, reject) => {
    client.makeUnaryRequest("/shop.Shop/Name", bytes, bytes, Buffer.alloc(0), (error, answer) =>
      error ? reject(error) : resolve(String(answer.subarray(2))), // google.protobuf.StringValue
    );
  });
(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const counts = {};
    for (let left = Number(line); left > 0; left--) {
      const endpoint = await name();
      counts[endpoint] = (counts[endpoint] ?? 0) + 1;
    }
    console.log(JSON.stringify(counts));
  }
  process.exit();
})();
JAVASCRIPT
cat >shop.go <<'GO'
// "serve NAME ADDRESS KIND UTILISATION" is an endpoint, "call ADDRESS,…" a client as the one in JavaScript.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const policy = `{"weighted_round_robin": {"blackoutPeriod": "1s", "weightUpdatePeriod": "0.1s"}}`

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func serve(name, address, kind string, utilisation float64) {
	answer := func(ctx context.Context, _ any) (any, error) {
		report := orca.CallMetricsRecorderFromContext(ctx)
		report.SetQPS(500)
		if kind == "cpu" {
			report.SetCPUUtilization(utilisation)
		} else {
			report.SetApplicationUtilization(utilisation)
		}
		return wrapperspb.String(name), nil
	}
	handle := func(_ any, ctx context.Context, _ func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
		return around(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/shop.Shop/Name"}, answer)
	}
	server := grpc.NewServer(orca.CallMetricsServerOption(nil))
	methods := []grpc.MethodDesc{{MethodName: "Name", Handler: handle}}
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "shop.Shop", HandlerType: (*any)(nil), Methods: methods}, 0)
	listener, err := net.Listen("tcp", address)
	must(err)
	fmt.Println(listener.Addr())
	must(server.Serve(listener))
}

func call(addresses string) {
	var state resolver.State
	for _, address := range strings.Split(addresses, ",") {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
	}
	given := manual.NewBuilderWithScheme("given")
	given.InitialState(state)
	client, err := grpc.NewClient("given:///shop.test", grpc.WithResolvers(given),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [`+policy+`]}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		counts := map[string]int{}
		left, err := strconv.Atoi(lines.Text())
		must(err)
		for ; left > 0; left-- {
			var name wrapperspb.StringValue
			must(client.Invoke(context.Background(), "/shop.Shop/Name", &emptypb.Empty{}, &name))
			counts[name.Value]++
		}
		told, err := json.Marshal(counts)
		must(err)
		fmt.Println(string(told))
	}
}

func main() {
	if os.Args[1] == "call" {
		call(os.Args[2])
		return
	}
	utilisation, err := strconv.ParseFloat(os.Args[5], 64)
	must(err)
	serve(os.Args[2], os.Args[3], os.Args[4], utilisation)
}
GO
export GOPATH=$folder/go GOFLAGS=-modcacherw
{
    go mod init shop
    go mod edit -require=google.golang.org/grpc@v1.85.0
    go mod tidy
    go build -o shop .
} >log 2>&1 || { cat log && exit 1; }
python3 - <<'PYTHON'
import json
import subprocess
import time

CLIENTS = {"npm": ["node", "client.js"], "Go": ["./shop", "call"]}
REQUESTS = 300


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Fleet:
    """Three endpoints and a client; `kind` of utilisation that they report, and how much."""

    def __init__(self, client: list[str], kind: str, utilisations: dict[str, float]) -> None:
        self.reports = {name: (kind, str(utilisation)) for name, utilisation in utilisations.items()}
        self.endpoints: dict[str, subprocess.Popen[str]] = {}
        self.addresses = {name: self.serve(name, "127.0.0.1:0") for name in utilisations}
        self.client = started(*client, ",".join(self.addresses.values()))

    def serve(self, name: str, address: str) -> str:
        self.endpoints[name] = started("./shop", "serve", name, address, *self.reports[name])
        return self.endpoints[name].stdout.readline().strip()

    def restart(self, name: str) -> None:
        self.endpoints[name].kill()
        self.endpoints[name].wait()
        time.sleep(0.5)  # for the client to see it
        self.serve(name, self.addresses[name])

    def answered(self, requests: int) -> dict[str, int]:
        self.client.stdin.write(f"{requests}\n")
        self.client.stdin.flush()
        return json.loads(self.client.stdout.readline())

    def settle(self) -> None:
        """Sends requests until connections are there, and the blackout period is over."""
        until = time.monotonic() + 4
        while time.monotonic() < until:
            self.answered(6)
            time.sleep(0.1)

    def shares(self) -> list[int]:
        counts = self.answered(REQUESTS)
        return [round(100 * counts.get(name, 0) / REQUESTS) for name in self.endpoints]

    def end(self) -> None:
        for process in (self.client, *self.endpoints.values()):
            process.kill()
            process.wait()


def restarted(client: list[str]) -> list[int]:
    fleet = Fleet(client, "application", {"a": 0.25, "b": 0.25, "c": 0.25})
    try:
        fleet.settle()
        assert min(fleet.shares()) > 25, "uneven before the restart"
        fleet.restart("c")
        fleet.settle()
        return fleet.shares()
    finally:
        fleet.end()


def by_cpu(client: list[str]) -> list[int]:
    fleet = Fleet(client, "cpu", {"a": 0.2, "b": 0.8, "c": 0.8})
    try:
        fleet.settle()
        return fleet.shares()
    finally:
        fleet.end()


described = {
    ("c has restarted", restarted): {"npm": [50, 50, 0], "Go": [33, 33, 33]},
    ("by CPU", by_cpu): {"npm": [33, 33, 33], "Go": [67, 17, 17]},
}
for (case, shares_of), expected in described.items():
    for library, client in CLIENTS.items():
        shares = shares_of(client)
        print(f"{case}: {library} {' '.join(map(str, shares))}")
        near = all(abs(share - other) <= 6 for share, other in zip(shares, expected[library], strict=True))
        assert near, "the behaviour has changed"
PYTHON
echo "as described"
