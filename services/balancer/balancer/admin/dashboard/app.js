// The page's one connection: server-sent events from /api/events, handed to the parts that show them.

import { clock, count, duration, el, percent, seconds, setText, size } from "./format.js";
import { Plot } from "./plots.js";
import { Endpoints } from "./endpoints.js";
import { Decisions } from "./decisions.js";
import { Strategy, Token } from "./strategy.js";
import { Fleet, failed } from "./fleet.js";
import { Routes } from "./routes.js";

const KEPT = 300;
const EVENTS_LISTED = 30;
const SILENT_AFTER = 4000;
// Seconds after which another replica's figures are none.
const STALE = 3;

const announcer = document.getElementById("announcer");
const announce = (text) => setText(announcer, text);
const sum = (values) => values.reduce((a, b) => a + b, 0);

// --- what is shown

const ownErrors = (s) => sum(Object.values(s.errors));

// In TCP mode there are connections instead of requests, no statuses, and the latency is the time to connect.
function plotsOf(tcp) {
  const classes = ["2xx", "3xx", "4xx", "5xx"].map((name, i) => ({ name, colour: `--s${i + 2}`, value: (s) => s.responses[i + 1] }));
  const begun = [{ name: "begun", colour: "--s2", value: (s) => s.requests }];
  const passedOn = { name: "endpoints", colour: "--s5", value: (s) => Math.max(0, s.responses[4] - ownErrors(s)) };
  return [
    new Plot({
      title: "Throughput", unit: tcp ? "connections a second" : "responses a second by status", kind: "stack", floor: 4, format: count,
      series: tcp ? begun : classes,
    }),
    new Plot({
      title: "Latency", unit: `${tcp ? "to connect" : "the whole request"}, last 5 seconds`, kind: "lines", floor: 0.0001, format: seconds,
      series: [["p50", 0], ["p90", 1], ["p99", 2]].map(([name, i]) => ({ name, colour: `--${name}`, width: i === 2 ? 2.2 : 1.6, value: (s) => s.latency[i] })),
    }),
    new Plot({
      title: "Errors and retries", unit: "a second", kind: "stack", floor: 2, format: count,
      series: [
        ...(tcp ? [] : [passedOn]),
        { name: "ours", colour: "--own", value: ownErrors },
        { name: "clients", colour: "--s4", value: (s) => sum(Object.values(s.client_faults)) },
        { name: "retries", colour: "--s3", dashed: true, value: (s) => s.retries },
      ],
    }),
  ];
}
let plots = [];

const FIGURES = [
  ["Requests", (s) => count(s.requests), () => (about.mode === "tcp" ? "connections a second" : "a second")],
  ["Latency", (s) => seconds(s.latency[0]), (s) => `p99 ${seconds(s.latency[2])}`],
  ["Failed", (s) => percent(failed(s, about.mode === "tcp")), (s) => `${count(s.retries)} retries a second`],
  ["In flight", (s) => count(s.in_flight), (s) => (s.queue ? `${count(s.queue)} queued` : "none queued")],
  ["Clients", (s) => count(s.connections), (s) => `${size(s.bytes[1])}/s to them`],
  ["Endpoints", () => `${fleet.endpoints(about).eligible ?? "–"}`, () => `of ${fleet.endpoints(about).total ?? "–"} can be chosen`],
];
const figures = FIGURES.map(([name]) => {
  const value = el("dd", { class: "value", text: "–" });
  const note = el("dd", { class: "quiet" });
  document.getElementById("figures").append(el("div", { class: "figure panel" }, el("dt", { text: name }), value, note));
  return { value, note };
});

const about = {};
const token = new Token();
const fleet = new Fleet(() => {
  drawFigures();
  drawPlots();
  plots.forEach((plot) => plot.describe());
});
const routes = new Routes();
const strategy = new Strategy(token, announce, fleet);
const endpoints = new Endpoints(drain);
const decisions = new Decisions();
const span = document.getElementById("span");
const eventList = document.getElementById("events");
let history = [];
let restarts = [];
const crowds = new Map();
const fresh = [];

async function drain({ address, cluster }, drained) {
  // What replicas agree on is of the endpoints of LB_DISCOVERY; those that routes lead to are each replica's own.
  const everywhere = fleet.scope && cluster === "default";
  const where = fleet.on ? (everywhere ? " In all replicas." : " In this replica alone.") : "";
  const what = drained ? `Give ${address} no new request; those in flight end as they would.${where}` : `Take ${address} back.${where}`;
  try {
    await token.change(what, "POST", `/api/endpoints/${encodeURIComponent(address)}/${drained ? "drain" : "undrain"}?cluster=${encodeURIComponent(cluster)}${everywhere ? "&scope=fleet" : ""}`);
  } catch (error) {
    happened(Date.now() / 1000, `${drained ? "Draining" : "Taking back"} ${address} was refused`, error.message, "wrong");
  }
}

function drawPlots() {
  const switches = history.flatMap((s, i) => (i && s.strategy !== history[i - 1].strategy ? [{ at: s.at, text: s.strategy }] : []));
  const marks = [...restarts, ...switches].sort((a, b) => a.at - b.at);
  for (const plot of plots) plot.show(fleet.seconds(history), marks, Number(span.value), history.at(-1)?.at);
}

function drawFigures() {
  const newest = fleet.seconds(history).at(-1);
  const last = newest && newest.at > history.at(-1).at - STALE ? newest : null;
  FIGURES.forEach(([, value, note], i) => {
    setText(figures[i].value, last ? value(last) : "–");
    setText(figures[i].note, last ? note(last) : "not known now");
  });
}

function drawAbout() {
  const up = about.started ? `, up ${duration(Date.now() / 1000 - about.started)}` : "";
  setText(document.getElementById("about"), `${about.replica} · ${about.mode.toUpperCase()} · version ${about.version}${up}`);
  document.title = `lb · ${about.replica}`;
}

// Why nothing can be changed, and the command that mends it.
function showReadOnly(place, data) {
  place.hidden = !data;
  if (data) place.replaceChildren(el("b", { text: data.reason }), ` ${data.remedy} `, el("code", { text: data.command }));
}

function happened(at, what, detail, kind = "") {
  eventList.querySelector(".empty")?.remove();
  eventList.prepend(el("li", { class: kind }, el("span", { class: "time", text: clock(at) }), el("b", { text: what }),
    detail ? el("span", { class: "quiet", text: detail }) : ""));
  while (eventList.children.length > EVENTS_LISTED) eventList.lastChild.remove();
  announce(`${what}. ${detail ?? ""}`);
}

// --- news

const WORDS = { backoff: "asks us to back off", drained: "drained by hand", undrained: "taken back",
  panic: "panic, all endpoints are used", calm: "panic is over", zone_left: "other zones are used too", zone_back: "only its own zone is used again" };

// A whole fleet that joins or fails at once is one line, not hundreds.
function transition({ at, endpoint, event, detail }) {
  const what = WORDS[event] ?? event;
  if (event === "strategy") return happened(at, `Strategy: ${detail}`, "");
  const same = crowds.get(event);
  if (endpoint && same && at - same.at < 2 && same.node.isConnected) {
    same.count += 1;
    setText(same.node.querySelector("b"), `${same.count} endpoints: ${what}`);
    same.node.querySelector(".quiet")?.remove();
    return undefined;
  }
  happened(at, `${endpoint ?? "The pool"}: ${what}`, detail, event);
  if (endpoint) crowds.set(event, { at, count: 1, node: eventList.firstChild });
  return undefined;
}

const handlers = {
  hello(data) {
    if (about.version && about.version !== data.version) return location.reload();
    const again = about.started !== undefined && Math.abs(about.started - data.started) > 2;
    if (again) {
      restarts.push({ at: data.started, text: "restarted" });
      happened(data.started, "The balancer was restarted", `${data.replica}`);
      decisions.forget();
      history = history.filter((second) => second.at < data.started);
    }
    if (again || about.started === undefined) data.happened.forEach(transition);
    Object.assign(about, data);
    const from = data.history[0]?.at ?? Infinity;
    history = [...history.filter((second) => second.at < from), ...data.history].slice(-KEPT);
    if (!plots.length) {
      plots = plotsOf(data.mode === "tcp");
      document.getElementById("plots").replaceChildren(...plots.map((plot) => plot.node));
    }
    fleet.begin(data.fleet, data.fleet_history, data.mode === "tcp");
    for (const id of ["endpoints-read-only", "strategy-read-only"]) showReadOnly(document.getElementById(id), data.read_only);
    endpoints.readOnly = data.read_only;
    routes.begin(data.routes);
    strategy.show(data.strategies, data.changeable);
    decisions.order(data.strategies.strategies.map((each) => each.name));
    drawAbout();
    drawFigures();
    drawPlots();
    plots.forEach((plot) => plot.describe());
  },
  second(data) {
    history.push(data);
    if (history.length > KEPT) history.shift();
    restarts = restarts.filter((mark) => mark.at > data.at - KEPT);
    drawFigures();
    drawPlots();
    if (history.length % 10 === 1) plots.forEach((plot) => plot.describe());
    drawAbout();
  },
  endpoints(data) {
    about.total = data.total;
    about.eligible = data.shown.filter((e) => e.eligible).length;
    endpoints.show(data);
    drawFigures();
  },
  fleet: (data) => fleet.show(data),
  decisions: (data) => decisions.show(data.decisions),
  strategy(data) {
    strategy.show(data);
    happened(data.at, `Strategy: ${data.strategy}`, `instead of ${data.before}`);
  },
  // When a whole fleet comes or fails there are hundreds of these at once: shown together, a few times a second.
  transition(data) {
    fresh.push(data);
    if (fresh.length === 1) setTimeout(() => fresh.splice(0).forEach(transition), 250);
  },
  missed: (data) => happened(Date.now() / 1000, "This page was too slow", `${data.count} events were left out`),
};

// --- the connection

const live = document.getElementById("live");
let source = null;
let heard = 0;
let wait = 1000;

function connect() {
  source?.close();
  source = new EventSource("/api/events");
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => {
      heard = Date.now();
      wait = 1000;
      state("live", "Live");
      handle(JSON.parse(event.data));
    });
  }
  // EventSource tries again by itself after a break, but gives up for good after a refusal (a proxy's 502, too many).
  source.addEventListener("error", () => {
    lost();
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(connect, wait);
      wait = Math.min(wait * 2, 10000);
    }
  });
}

function state(name, text) {
  if (live.dataset.state !== name) {
    live.dataset.state = name;
    document.body.classList.toggle("away", name === "away");
    if (heard) announce(name === "live" ? "Connected to the balancer" : "The balancer does not answer; trying again");
  }
  setText(document.getElementById("live-text"), text);
}

function lost() {
  state("away", heard ? `No answer for ${duration((Date.now() - heard) / 1000)}, trying again` : "No answer, trying again");
}

setInterval(() => {
  if (heard && Date.now() - heard > SILENT_AFTER) lost();
}, 1000);

// --- the page's own controls

const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
function applyTheme() {
  document.documentElement.dataset.theme = theme.value || (dark.matches ? "dark" : "light");
  for (const plot of plots) plot.restyle();
}
try {
  theme.value = localStorage.getItem("lb-theme") ?? "";
} catch { /* storage may be forbidden: the system's theme then */ }
theme.addEventListener("change", () => {
  try {
    localStorage.setItem("lb-theme", theme.value);
  } catch { /* as above */ }
  applyTheme();
});
dark.addEventListener("change", applyTheme);
span.addEventListener("change", drawPlots);
document.addEventListener("visibilitychange", drawPlots);
eventList.append(el("li", { class: "empty", text: "Nothing since this page was opened." }));
applyTheme();
connect();
