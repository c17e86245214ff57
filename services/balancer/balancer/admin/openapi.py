"""The API's description, as an OpenAPI 3.1 document. tests/balancer/admin/test_openapi.py holds the API to it.

Above 300 lines because it is one list of all that the API shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from balancer import __version__
from balancer.admin.state import STATES

Schema = dict[str, object]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
SECONDS: Schema = {"type": ["number", "null"], "description": "Seconds; null where there are none."}
RATES: Schema = {"type": "object", "additionalProperties": NUMBER}
COUNTS: Schema = {"type": "object", "additionalProperties": COUNT}


def record(**fields: Schema) -> Schema:
    """An object with exactly these fields."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def several(schema: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": schema}


def ref(name: str) -> Schema:
    """One of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


MAYBE_TEXT: Schema = {"type": ["string", "null"]}
OLD_REASON: Schema = {
    **MAYBE_TEXT,
    "description": "The old name of `ineligible_reason`, until 0.3.",
    "deprecated": True,
}
OLD_SECONDS: Schema = {**SECONDS, "description": "The old name of `backoff_for`, until 0.3.", "deprecated": True}

SCHEMAS: dict[str, Schema] = {
    "Error": record(error={**TEXT, "description": "What is wrong, and what to do instead."}),
    "Endpoint": record(
        cluster={**TEXT, "description": "`default`, or the Service that a route leads to."},
        address=TEXT, pod=TEXT, zone=TEXT, node=TEXT,
        state={"enum": list(STATES), "description": "; ".join(f"{state}: {text}" for state, text in STATES.items())},
        eligible={**FLAG, "description": "Whether it may be chosen now."},
        ineligible_reason={**MAYBE_TEXT, "description": "Why it may not be chosen, in words."},
        in_flight={**COUNT, "description": "Requests that it works on, connecting ones included."},
        latency={**SECONDS, "description": "Peak EWMA of its latency (s); null while not measured."},
        weight=NUMBER,
        weight_in_force={**NUMBER, "description": "Less than the weight while in slow start."},
        work={
            "anyOf": [ref("Work"), {"type": "null"}],
            "description": "What is believed of its work; null where the strategy does not follow that.",
        },
        ejected_for=SECONDS, backoff_for=SECONDS, slow_start_for=SECONDS,
        ejections=COUNT, failures_in_row=COUNT,
        passing_probes={**FLAG, "description": "What the active probes say; true without probes."},
        drained={**FLAG, "description": "Drained by hand."},
        why_out=OLD_REASON, left_alone_for=OLD_SECONDS,
        healthy={**FLAG, "description": "The old name of `passing_probes`, until 0.3.", "deprecated": True},
        held={**FLAG, "description": "The old name of `drained`, until 0.3.", "deprecated": True},
        answered={**COUNTS, "description": "Responses by class of their status."},
        failed={**COUNTS, "description": "Requests that ended without a whole response, by reason."},
        connections=record(open=COUNT, idle=COUNT, opened=COUNT, reused=COUNT),
        bytes=record(sent=COUNT, received=COUNT),
    ),
    "Work": record(
        workers={
            "type": ["integer", "null"],
            "description": "How many requests it works on at once; null until its answers have shown that.",
        },
        pace={**NUMBER, "description": "Its time for a request, as a multiple of a typical endpoint's."},
        expected={**NUMBER, "description": "Seconds that what is in flight there was expected to take, at its pace."},
        wait={**NUMBER, "description": "Seconds until it is expected to begin with one request more."},
    ),
    "Costs": record(
        cluster=TEXT, strategy=TEXT,
        learning={**FLAG, "description": "Whether the strategy in force follows costs: they are learned only then."},
        distinct={**FLAG, "description": "Whether it is known which request has more to do; else all count as alike."},
        mean={**NUMBER, "description": "Seconds that any request is expected to cost at a typical endpoint."},
        total={**COUNT, "description": "Kinds known, at most 512; at most `limit` of them are listed."},
        kinds={
            **several(
                record(
                    kind={
                        **TEXT,
                        "description": "Method, path and length of the body, {1024..2047} standing for any number of "
                        "that magnitude and {id} for an identifier; or what LB_COST_KEY makes of a request.",
                    },
                    samples={**COUNT, "description": "Answers that it was learned from."},
                    recent={**COUNT, "description": "Requests of late."},
                    cost={**NUMBER, "description": "Seconds that one is expected to cost at a typical endpoint."},
                    deviation={**NUMBER, "description": "Standard deviation of that (s)."},
                    waits={**FLAG, "description": "It waits for something, and takes no worker: a long poll."},
                )
            ),
            "description": "Those with the most requests of late first.",
        },
    ),
    "Endpoints": record(total=COUNT, endpoints=several(ref("Endpoint"))),
    "Candidate": record(
        address=TEXT,
        score={"type": ["number", "null"], "description": "The strategy's score: the lowest wins."},
        ineligible_reason={**MAYBE_TEXT, "description": "Why it was no candidate; null if it was one."},
        why_not=OLD_REASON,
        in_flight=COUNT, latency=SECONDS, weight=NUMBER,
        wait={**SECONDS, "description": "Until it was expected to begin with it (s); null: not followed."},
        pace={"type": ["number", "null"], "description": "As in Work; null where the strategy does not follow work."},
    ),
    "Decision": record(
        at={**NUMBER, "description": "Unix time (s); no two decisions have the same."},
        cluster=TEXT, strategy=TEXT, client=TEXT, method=TEXT, path=TEXT,
        cost={**SECONDS, "description": "What the request was expected to cost (s); null: not known."},
        chosen={**MAYBE_TEXT, "description": "The winner's address; null when there was none."},
        by={**TEXT, "description": "By what it won, in words."},
        candidates=several(ref("Candidate")),
        others={
            "type": "object", "additionalProperties": TEXT,
            "description": "The endpoint that each other strategy would have chosen, by its score.",
        },
    ),
    "Decisions": record(decisions=several(ref("Decision"))),
    "Second": record(
        at={**NUMBER, "description": "Unix time (s)."},
        requests={**NUMBER, "description": "Begun, a second."},
        responses={**several(NUMBER), "description": "Sent, a second: 1xx to 5xx."},
        errors={**RATES, "description": "The balancer's own, a second, by reason."},
        client_faults={**RATES, "description": "A second, by kind."},
        retries=NUMBER,
        latency={**several(SECONDS), "description": "p50, p90 and p99 (s) of five seconds; in TCP mode, to connect."},
        in_flight=COUNT, connections=COUNT, queue=COUNT,
        bytes={**several(NUMBER), "description": "From and to clients, a second."},
        strategy=TEXT,
    ),
    "History": record(seconds=several(ref("Second"))),
    "Replica": record(
        name={**TEXT, "description": "Empty while it has not said it."},
        self={**FLAG, "description": "Whether it is the one that answers."},
        address={**TEXT, "description": "Where it is looked for; empty for this one, and for one that has left."},
        state={
            "enum": ["live", "silent", "refused", "unreachable", "left"],
            "description": "silent: was heard, and is no more; refused: its reports are of another format; "
            "unreachable: was never heard; left: gone, listed for a minute more.",
        },
        problem={**TEXT, "description": "What is wrong, in words."},
        age={**SECONDS, "description": "Since its last report (s)."},
        in_flight={"type": ["integer", "null"], "description": "At all endpoints; null: not known now."},
        ejected={**several(TEXT), "description": "Addresses of the endpoints that it has ejected."},
        version=MAYBE_TEXT, strategy=MAYBE_TEXT, started=SECONDS,
        endpoints={"type": ["number", "null"]}, eligible={"type": ["number", "null"]},
        second={
            "type": ["object", "null"],
            "description": "Its last second, as Second; fields may differ where the version does.",
        },
    ),
    "Fleet": record(
        peers={**FLAG, "description": "Whether this replica looks for others (LB_PEERS)."},
        replicas={**several(ref("Replica")), "description": "This one first, then the others by name."},
        total={
            "anyOf": [ref("Second"), {"type": "null"}],
            "description": "The last second of all that are live; `strategy` names each that is in force.",
        },
        agreed={
            **record(strategy=MAYBE_TEXT, drained=several(TEXT), at=SECONDS),
            "description": "What was asked of all replicas (scope=fleet), and when (Unix time); null: never.",
        },
        endpoints=several(record(address=TEXT, in_flight={**COUNTS, "description": "By the name of the replica."})),
    ),
    "Routes": record(
        listeners=several(record(gateway=TEXT, port=COUNT, tls=FLAG, routes=COUNT)),
        total=COUNT,
        matched={**COUNT, "description": "How many contain the text; at most `limit` of them are listed."},
        routes=several(
            record(
                listener=TEXT, host=TEXT, path=TEXT, kind={"enum": ["exact", "pattern", "prefix"]}, method=TEXT,
                conditions={**several(TEXT), "description": "Header fields and query parameters that it asks for."},
                route={**TEXT, "description": "Kind, namespace and name."},
                backends=several(record(cluster={**TEXT, "description": "Empty: not resolved."}, weight=COUNT)),
                redirect={"type": ["integer", "null"], "description": "Its status."},
                mirrors=several(TEXT),
            )
        ),
        clusters_matched=COUNT,
        clusters=several(
            record(
                name=TEXT, strategy=TEXT, endpoints=COUNT, eligible=COUNT, in_flight=COUNT,
                addresses={**several(TEXT), "description": "Of its first 20 endpoints; /api/endpoints has all."},
            )
        ),
    ),
    "Config": record(settings={"type": "object", "additionalProperties": TEXT}),
}  # fmt: skip


def strategy_schemas(names: Iterable[str]) -> dict[str, Schema]:
    """Those that depend on the strategies there are."""
    fields: dict[str, Schema] = {
        "strategy": {**TEXT, "description": "In force."},
        "strategies": several(record(name=TEXT, meaning=TEXT)),
        "replica": {**TEXT, "description": "The replica that answers: each has a strategy of its own."},
        "note": TEXT,
    }
    return {
        "StrategyName": record(strategy={"enum": list(names)}),
        "Strategy": record(**fields),
        "Switched": record(**fields, before={**TEXT, "description": "In force before."}),
    }


def document(names: Iterable[str]) -> Schema:
    """The whole document; `names` are the strategies one may switch to."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lb admin API",
            "version": __version__,
            "description": "What one replica of the balancer knows, and the few things that may be changed in it.",
        },
        "servers": [{"url": "/"}],
        "paths": _paths(),
        "components": {
            "schemas": {**SCHEMAS, **strategy_schemas(names)},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "LB_ADMIN_TOKEN"}},
        },
    }


Response = tuple[str, str | None]
"""What a response means, and the schema of its body (None: any object)."""

WRONG_TOKEN: Response = ("The token is missing or wrong.", "Error")
NO_TOKEN: Response = ("LB_ADMIN_TOKEN is not set, or another site's page asks.", "Error")
NO_ENDPOINT: Response = ("There is no endpoint of that address.", "Error")
NO_CLUSTER: Response = ("There is no cluster of that name.", "Error")
WRONG_SCOPE: Response = ("scope is neither replica nor fleet.", "Error")
NO_FLEET: Response = ("scope is fleet, and this replica knows of no other (LB_PEERS).", "Error")
NO_WAY: Response = (
    (
        "scope is fleet, and this replica knows of no other (LB_PEERS) or routes alone lead to the endpoint; or scope "
        "is replica, and the whole fleet was asked to drain it."
    ),
    "Error",
)
DRAINED: dict[str, Response] = {
    "200": ("The endpoint.", "Endpoint"),
    "400": WRONG_SCOPE,
    "409": NO_WAY,
    "401": WRONG_TOKEN,
    "403": NO_TOKEN,
    "404": NO_ENDPOINT,
}
SWITCHED: dict[str, Response] = {
    "200": ("Switched.", "Switched"),
    "400": ("The body or the scope is not as described.", "Error"),
    "409": NO_FLEET,
    "401": WRONG_TOKEN,
    "403": NO_TOKEN,
    "413": ("The body is too long.", "Error"),
    "415": ("The body is not JSON.", "Error"),
    "422": ("There is no such strategy.", "Error"),
}
BEARER: list[Schema] = [{"token": []}]
EVENTS = (
    "Server-sent events: hello, then second, endpoints, decisions and (with LB_PEERS) fleet once a second, transition "
    "and strategy as they happen, missed when the listener was too slow for some."
)


def _paths() -> Schema:
    address = {
        "name": "address",
        "in": "path",
        "required": True,
        "schema": TEXT,
        "description": "`host:port`, an IPv6 host in brackets.",
    }
    cluster = {
        "name": "cluster",
        "in": "query",
        "schema": TEXT,
        "description": "Whose endpoint, where several clusters have one of that address.",
    }
    limit = {"name": "limit", "in": "query", "schema": {**COUNT, "minimum": 1, "maximum": 1000, "default": 100}}
    scope = {
        "name": "scope",
        "in": "query",
        "schema": {"enum": ["replica", "fleet"], "default": "replica"},
        "description": "This replica alone, or all of them, those that start later too.",
    }
    body = {"required": True, "content": {"application/json": {"schema": ref("StrategyName")}}}
    drain = _operation(
        "drain",
        "Give it no new request; those in flight end as they would.",
        DRAINED,
        security=BEARER,
        parameters=[scope],
    )
    taken_back: dict[str, Response] = {
        **DRAINED,
        "204": ("It is not there now; the fleet does not drain it when it comes back.", None),
    }
    undrain = _operation("undrain", "Take it back.", taken_back, security=BEARER, parameters=[scope])
    latest: dict[str, Response] = {
        "200": ("Them.", "Decisions"),
        "400": ("limit is no number from 1 to 1000.", "Error"),
    }
    switch = "Choose by another strategy from the next request on."
    return {
        "/api/openapi.json": {"get": _operation("openapi", "This document.", {"200": ("The document.", None)})},
        "/api/endpoints": {"get": _operation("endpoints", "Every endpoint.", {"200": ("All of them.", "Endpoints")})},
        "/api/endpoints/{address}": {
            "parameters": [address, cluster],
            "get": _operation("endpoint", "One endpoint.", {"200": ("It.", "Endpoint"), "404": NO_ENDPOINT}),
        },
        "/api/endpoints/{address}/drain": {"parameters": [address, cluster], "post": drain},
        "/api/endpoints/{address}/undrain": {"parameters": [address, cluster], "post": undrain},
        "/api/strategy": {
            "get": _operation("strategy", "The one in force, and those there are.", {"200": ("Them.", "Strategy")}),
            "put": _operation("switch", switch, SWITCHED, security=BEARER, parameters=[scope], requestBody=body),
        },
        "/api/decisions": {
            "get": _operation("decisions", "The latest recorded, the newest first.", latest, parameters=[limit])
        },
        "/api/costs": {
            "get": _operation(
                "costs",
                "The kinds of request that were learned, and what each is expected to cost.",
                {"200": ("Them.", "Costs"), "400": latest["400"], "404": NO_CLUSTER},
                parameters=[limit, cluster],
            )
        },
        "/api/history": {
            "get": _operation("history", "The last five minutes.", {"200": ("A second each.", "History")})
        },
        "/api/fleet": {
            "get": _operation(
                "fleet", "Every replica, and what it has in flight at each endpoint.", {"200": ("Them.", "Fleet")}
            )
        },
        "/api/routes": {
            "get": _operation(
                "routes",
                "Listeners of Gateways, and the routes and clusters that contain a text.",
                {"200": ("Them.", "Routes"), "400": latest["400"]},
                parameters=[limit, {"name": "filter", "in": "query", "schema": TEXT}],
            )
        },
        "/api/config": {"get": _operation("config", "The settings in force.", {"200": ("Secrets masked.", "Config")})},
        "/api/events": {"get": _events()},
    }


def _events() -> Schema:
    stream = {"description": "The stream.", "content": {"text/event-stream": {"schema": TEXT}}}
    full = _response(("Too many follow the events already.", "Error"))
    return {"operationId": "events", "summary": EVENTS, "responses": {"200": stream, "503": full}}


def _operation(name: str, summary: str, responses: Mapping[str, Response], **more: object) -> Schema:
    described = {
        status: {"description": response[0]} if status == "204" else _response(response)
        for status, response in responses.items()
    }
    return {"operationId": name, "summary": summary, "responses": described, **more}


def _response(response: Response) -> Schema:
    description, schema = response
    content: Schema = {"schema": ref(schema) if schema else {"type": "object"}}
    return {"description": description, "content": {"application/json": content}}
