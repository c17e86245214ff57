// Listeners, routes and clusters of Gateways and Ingresses. The balancer finds and cuts: the page never has thousands.

import { count, el, setText } from "./format.js";

const SHOWN = 100;
const EVERY = 5000;
const TYPED = 200;

export class Routes {
  constructor() {
    this.section = document.getElementById("routes-section");
    this.filter = document.getElementById("routes-filter");
    this.count = document.getElementById("routes-count");
    this.listeners = document.getElementById("listeners");
    this.routes = document.getElementById("routes");
    this.clusters = document.getElementById("clusters");
    this.filter.addEventListener("input", () => {
      clearTimeout(this.typed);
      this.typed = setTimeout(() => this.load(), TYPED);
    });
    setInterval(() => this.load(), EVERY);
  }

  begin(on) {
    this.on = on;
    this.section.hidden = !on;
    this.load();
  }

  async load() {
    if (!this.on || document.hidden) return;
    const asked = this.filter.value;
    try {
      const response = await fetch(`/api/routes?limit=${SHOWN}&filter=${encodeURIComponent(asked)}`);
      const data = await response.json();
      if (!response.ok) throw new Error(data.error);
      if (asked === this.filter.value) this.show(data);
    } catch (error) {
      setText(this.count, `The routes could not be read: ${error.message}`);
    }
  }

  show(data) {
    const cut = data.matched > data.routes.length ? `, the first ${data.routes.length} shown` : "";
    setText(this.count, this.filter.value ? `${count(data.matched)} of ${count(data.total)} match${cut}` : `${count(data.total)}${cut}`);
    const text = JSON.stringify(data);
    if (text === this.last) return;
    this.last = text;
    setText(this.listeners, data.listeners.length
      ? `Listeners: ${data.listeners.map((l) => `${l.gateway}:${l.port}${l.protocol === "HTTP" ? "" : ` (${l.protocol})`}, ${count(l.routes)} route${l.routes === 1 ? "" : "s"}`).join("; ")}`
      : "No Gateway or Ingress of this class is served yet.");
    table(this.routes, ["Listener", "Host", "Match", "Route", "To"], data.routes.map((r) => [r.listener, r.host, match(r), r.route, target(r)]),
      this.filter.value ? "No route contains that." : "No route is attached.");
    table(this.clusters, ["Cluster", "Can be chosen", "In flight", "Strategy", "Endpoints"],
      data.clusters.map((c) => [c.name, `${c.eligible} of ${c.endpoints}`, String(c.in_flight), c.strategy,
        c.addresses.join(", ") + (c.endpoints > c.addresses.length ? ", …" : "") || "none: 503"]),
      this.filter.value ? "No cluster's name contains that." : "No route leads to a cluster.");
  }
}

const match = (r) => r.kind === "connection" ? "connections" : [r.method, `${r.path}${{ exact: " (exact)", pattern: " (pattern)", prefix: r.path === "/" ? "" : "…" }[r.kind]}`,
  r.conditions.length ? `if ${r.conditions.join(", ")}` : ""].filter(Boolean).join(" ");

function target(r) {
  if (r.redirect !== null) return `redirect ${r.redirect}`;
  const sum = r.backends.reduce((total, b) => total + b.weight, 0);
  const refused = r.kind === "connection" ? "reset" : "500";
  const parts = r.backends.map((b) => `${b.cluster || `not resolved: ${refused}`}${r.backends.length > 1 && sum ? ` ${Math.round((100 * b.weight) / sum)} %` : ""}`);
  return (parts.join(", ") || `nothing: ${refused}`) + (r.mirrors.length ? `, mirrored to ${r.mirrors.join(", ")}` : "");
}

function table(place, heads, rows, empty) {
  if (!rows.length) {
    place.replaceChildren(el("p", { class: "empty", text: empty }));
    return;
  }
  place.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col", text })))),
    el("tbody", {}, ...rows.map(([first, ...rest]) => el("tr", {}, el("th", { scope: "row", text: first }), ...rest.map((text) => el("td", { text })))))));
}
