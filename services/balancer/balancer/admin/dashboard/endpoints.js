// One card, or one row of a table, per endpoint; kept and changed in place each second.

import { chip, colour, count, duration, el, nameEndpoints, percent, seconds, setAttribute, setText, shortName, spell } from "./format.js";

const MARKS = {
  ready: "●", "slow-start": "◔", standby: "○", "at-limit": "◆", "backoff": "◐", ejected: "✕", unhealthy: "✕", drained: "❚❚", draining: "▼",
};
const WORDS = {
  ready: "Ready", "slow-start": "Slow start", standby: "Standby", "at-limit": "At its limit", "backoff": "Backing off", ejected: "Ejected",
  unhealthy: "Unhealthy", drained: "Drained by hand", draining: "Terminating",
};
const TROUBLE = ["ejected", "unhealthy", "backoff", "draining", "drained", "at-limit", "standby", "slow-start", "ready"];
const CARDS_UP_TO = 24;
const SPOKEN = 12;
const TELLING = ["unhealthy", "at-limit", "standby"];

export class Endpoints {
  constructor(drain) {
    this.drain = drain;
    this.place = document.getElementById("endpoints");
    this.filter = document.getElementById("endpoints-filter");
    this.order = document.getElementById("endpoints-order");
    this.view = document.getElementById("endpoints-view");
    this.count = document.getElementById("endpoints-count");
    this.shareBar = document.getElementById("share-bar");
    this.items = new Map();
    this.longest = new Map();
    this.data = { total: 0, shown: [] };
    this.readOnly = null;
    for (const control of [this.filter, this.order, this.view]) control.addEventListener("input", () => this.draw());
  }

  show(data) {
    this.data = data;
    nameEndpoints(data.shown);
    this.draw();
  }

  draw() {
    const { total, shown } = this.data;
    const kind = this.view.value || (shown.length > CARDS_UP_TO ? "table" : "cards");
    if (kind !== this.kind) this.begin(kind);
    const wanted = this.filter.value.trim().toLowerCase();
    const chosen = this.sorted(shown.filter((e) => !wanted || text(e).includes(wanted)));
    const stay = new Set(chosen.map(keyOf));
    for (const [key, item] of this.items) {
      if (!stay.has(key)) {
        item.node.remove();
        this.items.delete(key);
      }
    }
    chosen.forEach((endpoint, i) => {
      let item = this.items.get(keyOf(endpoint));
      if (!item) {
        item = kind === "cards" ? new Card(endpoint, this.drain) : new Row(endpoint, this.drain);
        this.items.set(keyOf(endpoint), item);
      }
      item.show(endpoint);
      item.allow(this.readOnly);
      if (this.list.children[i] !== item.node) this.list.insertBefore(item.node, this.list.children[i] ?? null);
    });
    this.drawCount(total, shown, chosen);
    this.drawShares(shown);
  }

  begin(kind) {
    this.kind = kind;
    this.items.clear();
    if (kind === "cards") {
      this.list = el("ul", { class: "cards" });
      this.place.replaceChildren(this.list);
      return;
    }
    const heads = ["Endpoint", "State", "In flight", "Connections", "Work", "Pace", "Peak EWMA", "Requests/s", "Share", "Failures/s", ""];
    const head = el("tr", {}, ...heads.map((name, i) => el("th", { scope: "col", class: i > 1 && i < 10 ? "number" : "", text: name })));
    this.list = el("tbody");
    this.place.replaceChildren(el("div", { class: "panel scroll", tabindex: "0", role: "region", "aria-label": "Table of endpoints" },
      el("table", { class: "endpoints" }, el("thead", {}, head), this.list)));
  }

  sorted(endpoints) {
    const keys = {
      trouble: (e) => TROUBLE.indexOf(e.state) - e.failure_rate / 1e6,
      share: (e) => -(e.share ?? 0),
      latency: (e) => -(e.latency ?? 0),
    };
    const key = keys[this.order.value];
    return key ? [...endpoints].sort((a, b) => key(a) - key(b)) : endpoints;
  }

  drawCount(total, shown, chosen) {
    const eligible = shown.filter((e) => e.eligible).length;
    let words = total === 0 ? "Discovery has found none: every request gets 503." : `${eligible} of ${shown.length} can be chosen`;
    if (shown.length < total) words = `The ${shown.length} foremost of ${total}: those in trouble, then the busiest. ${words}`;
    if (chosen.length < shown.length) words += `, ${chosen.length} shown`;
    setText(this.count, words);
  }

  drawShares(shown) {
    const busy = shown.filter((e) => e.share > 0);
    const parts = busy.map((e) => ({ name: shortName(e.address), share: e.share, fill: colour(e.address), title: e.address }));
    const rest = 1 - busy.reduce((sum, e) => sum + e.share, 0);
    if (parts.length && rest > 0.005) parts.push({ name: "others", share: rest, fill: "var(--rest)", title: "All others" });
    this.shareBar.hidden = !parts.length;
    this.shareBar.classList.toggle("many", parts.length > 30);
    drawBar(this.shareBar, parts);
    const busiest = [...parts].sort((a, b) => b.share - a.share).slice(0, SPOKEN);
    const words = busiest.map((p) => `${p.title} ${percent(p.share)}`).join(", ");
    setAttribute(this.shareBar, "aria-label", `Share of the traffic${parts.length > SPOKEN ? ", the busiest" : ""}: ${words}`);
  }
}

// A bar of coloured parts, kept and changed in place so that widths move smoothly.
export function drawBar(bar, parts) {
  while (bar.children.length > parts.length) bar.lastChild.remove();
  while (bar.children.length < parts.length) bar.append(el("span"));
  parts.forEach(({ name, share, fill, title }, i) => {
    const node = bar.children[i];
    node.style.setProperty("--share", share.toFixed(4));
    node.style.setProperty("--c", fill);
    setText(node, share > 0.07 ? `${name} ${percent(share)}` : "");
    setAttribute(node, "title", `${title}: ${percent(share)}`);
  });
}

// A pod may be an endpoint of several clusters: routes lead to Services, and two may select it.
const keyOf = (e) => `${e.cluster} ${e.address}`;
const clusterOf = (e) => (e.cluster === "default" ? "" : e.cluster);

const text = (e) => [clusterOf(e), e.address, e.pod, e.zone, e.node, e.state, WORDS[e.state]].join(" ").toLowerCase();

// What is shown of an endpoint beyond its figures: why it is out, and until when.
function reason(e) {
  if (e.ejected_for !== null && e.eligible) return `Ejected, but used: panic. ${duration(e.ejected_for)} left`;
  if (e.ejected_for !== null) return `Back in ${duration(e.ejected_for)}`;
  if (e.backoff_for !== null) return `Asked us to back off: ${duration(e.backoff_for)} more`;
  if (e.slow_start_for !== null) return `Full weight in ${duration(e.slow_start_for)}, now ${percent(e.weight_in_force / e.weight)}`;
  if (e.ineligible_reason && TELLING.includes(e.state)) return e.ineligible_reason[0].toUpperCase() + e.ineligible_reason.slice(1);
  if (e.failures_in_row) return `${e.failures_in_row} failure${e.failures_in_row > 1 ? "s" : ""} in a row`;
  return "";
}

function failures(e) {
  const own = e.answered["5xx"] ? [`${count(e.answered["5xx"])} × 5xx`] : [];
  return [...own, ...Object.entries(e.failed).map(([why, n]) => `${count(n)} × ${why}`)].join(", ");
}

class Item {
  constructor(endpoint, drain) {
    this.state = el("span", { class: "state" });
    this.mark = el("i", { "aria-hidden": "true" });
    this.word = el("span");
    this.state.append(this.mark, this.word);
    this.button = el("button", { type: "button", class: "small" });
    this.button.addEventListener("click", () => drain(endpoint, !this.drained));
  }

  // Without a token the button says why it does nothing.
  allow(readOnly) {
    this.button.disabled = readOnly !== null;
    setAttribute(this.button, "title", readOnly ? readOnly.reason : "");
    if (readOnly) setAttribute(this.button, "aria-describedby", "endpoints-read-only");
  }

  showState(e) {
    setAttribute(this.node, "data-state", e.state);
    setText(this.mark, MARKS[e.state]);
    setText(this.word, WORDS[e.state]);
    this.drained = e.drained;
    setText(this.button, e.drained ? "Take back" : "Drain");
    setAttribute(this.button, "aria-label", `${e.drained ? "Take back" : "Drain"} ${e.address}`);
  }
}

// Over HTTP/2 requests share connections. Told always: a line that comes and goes would move all below it each second.
const connections = (e) => `${count(e.connections.open)} connection${e.connections.open === 1 ? "" : "s"}`;

// What least-work and least-response-time have learned: how fast it is, how much it works on at once, what is in flight.
function work({ work }) {
  if (!work) return "";
  const workers = work.workers === null ? "" : `${work.workers} at once`;
  return [`Pace ${work.pace.toFixed(2)}`, workers, work.expected ? `${seconds(work.expected)} of work` : "no work"].filter(Boolean).join(" · ");
}

class Card extends Item {
  constructor(endpoint, drain) {
    super(endpoint, drain);
    this.values = {};
    const figure = (key, name) => {
      this.values[key] = el("dd", { text: "–" });
      return el("div", {}, el("dt", { text: name }), this.values[key]);
    };
    this.where = el("p", { class: "quiet where" });
    this.work = el("p", { class: "quiet work", title: "Its time for a request as a multiple of a typical endpoint's; how many it works on at once; what is in flight, in expected time." });
    this.reason = el("p", { class: "reason" });
    this.failed = el("p", { class: "quiet failed" });
    this.share = el("div", { class: "meter", "aria-hidden": "true" }, el("span"));
    this.countdown = el("div", { class: "meter countdown", "aria-hidden": "true" }, el("span"));
    const title = el("h3", {}, el("i", { class: "swatch", "aria-hidden": "true" }), endpoint.address);
    this.node = el("li", { class: "card panel" },
      el("div", { class: "card-head" }, title, this.state), this.where,
      el("dl", {}, figure("in_flight", "In flight"), figure("latency", "Peak EWMA"), figure("rate", "Requests/s"), figure("share", "Share")),
      this.share, this.work, this.reason, this.countdown, el("div", { class: "card-foot" }, this.failed, this.button));
    this.node.style.setProperty("--c", colour(endpoint.address));
    this.longest = 0;
  }

  show(e) {
    this.showState(e);
    setText(this.where, [clusterOf(e), e.pod, e.zone, e.weight === 1 ? "" : `weight ${e.weight}`, connections(e)].filter(Boolean).join(" · "));
    setText(this.values.in_flight, String(e.in_flight));
    setText(this.values.latency, seconds(e.latency));
    setText(this.values.rate, count(e.rate));
    setText(this.values.share, percent(e.share));
    this.share.style.setProperty("--share", (e.share ?? 0).toFixed(4));
    setText(this.reason, reason(e));
    setText(this.work, work(e));
    this.work.hidden = !e.work;
    const left = e.ejected_for ?? e.backoff_for ?? e.slow_start_for;
    this.longest = left === null ? 0 : Math.max(this.longest, left);
    this.countdown.hidden = left === null;
    this.countdown.style.setProperty("--share", left === null ? "0" : (left / this.longest).toFixed(4));
    setText(this.failed, failures(e));
  }
}

class Row extends Item {
  constructor(endpoint, drain) {
    super(endpoint, drain);
    this.cells = ["in_flight", "connections", "work", "pace", "latency", "rate", "share", "failure_rate"].map(() => el("td", { class: "number" }));
    this.reason = el("span", { class: "quiet" });
    const name = el("th", { scope: "row" }, chip(endpoint.address), el("span", { class: "full", text: endpoint.address }));
    if (clusterOf(endpoint)) name.append(el("span", { class: "quiet", text: ` ${clusterOf(endpoint)}` }));
    if (endpoint.pod) name.append(el("span", { class: "quiet", text: ` ${endpoint.pod}` }));
    this.node = el("tr", {}, name, el("td", {}, this.state, " ", this.reason), ...this.cells, el("td", {}, this.button));
    this.node.style.setProperty("--c", colour(endpoint.address));
  }

  show(e) {
    this.showState(e);
    setText(this.reason, reason(e));
    const texts = [String(e.in_flight), String(e.connections.open), spell(e.work?.expected), e.work ? e.work.pace.toFixed(2) : "–", seconds(e.latency), count(e.rate), percent(e.share), e.failure_rate ? count(e.failure_rate) : ""];
    texts.forEach((value, i) => setText(this.cells[i], value));
    this.cells[6].style.setProperty("--share", (e.share ?? 0).toFixed(4));
  }
}
