// The replicas of this balancer: what each does, all together, and whose figures and plots are shown above.

import { count, duration, el, percent, seconds, setAttribute, setText } from "./format.js";

const KEPT = 300;
const WORDS = { live: "Live", silent: "Silent", refused: "Refused", unreachable: "Unreachable", left: "Left" };
const MARKS = { live: "●", silent: "◌", refused: "✕", unreachable: "✕", left: "○" };
const NOTHING = { requests: 0, responses: [0, 0, 0, 0, 0], errors: {}, client_faults: {}, retries: 0, latency: [null, null, null],
  in_flight: 0, connections: 0, queue: 0, bytes: [0, 0] };
const HEADS = ["Replica", "State", "Requests/s", "Failed", "p99", "In flight", "Endpoints", "Strategy", "Version", "Up"];
const NUMBERS = [2, 3, 4, 5, 6];

// A share from 0 to 1 of a second's responses.
export const failed = (s, tcp) => {
  const ours = Object.values(s.errors).reduce((a, b) => a + b, 0);
  const ended = s.responses.reduce((a, b) => a + b, 0);
  return Math.min(1, (tcp ? ours / s.requests : s.responses[4] / ended) || 0);
};

export class Fleet {
  // `changed` is called when another replica's figures are to be shown.
  constructor(changed) {
    this.on = false;
    this.shown = "";
    this.histories = new Map([["", []]]);
    this.rows = new Map();
    this.bar = document.getElementById("fleet-bar");
    this.pick = document.getElementById("fleet-pick");
    this.reach = document.getElementById("fleet-reach");
    this.section = document.getElementById("fleet-section");
    this.own = document.getElementById("fleet-own");
    this.pick.addEventListener("change", () => {
      this.shown = this.pick.value;
      changed();
    });
    this.list = el("tbody");
    this.sum = el("tr");
    const heads = HEADS.map((name, i) => el("th", { scope: "col", class: NUMBERS.includes(i) ? "number" : "", text: name }));
    document.getElementById("fleet").replaceChildren(
      el("table", { class: "replicas" }, el("thead", {}, el("tr", {}, ...heads)), this.list, el("tfoot", {}, this.sum)));
  }

  // The balancer says hello: `data` is null where it has no peers.
  begin(data, history, tcp) {
    this.on = data !== null;
    this.tcp = tcp;
    this.bar.hidden = this.section.hidden = this.own.hidden = !this.on;
    this.histories.set("", history ?? []);
    if (data) this.show(data);
  }

  // The seconds of whatever is picked; `own` is this replica's.
  seconds(own) {
    if (!this.on || this.shown === this.self) return own;
    return this.histories.get(this.shown) ?? [];
  }

  // How many can be chosen, of how many: of the replica picked, or of this one, whose endpoints are listed below.
  endpoints(own) {
    const picked = this.on && this.shown !== this.self && this.replicas.find((each) => each.name && each.name === this.shown);
    return picked ? { eligible: picked.eligible, total: picked.endpoints } : own;
  }

  // "" where a change reaches this replica alone.
  get scope() {
    return this.on && this.reach.value === "fleet" ? "fleet" : "";
  }

  show({ replicas, total, agreed }) {
    this.replicas = replicas;
    this.self = replicas.find((each) => each.self).name;
    if (total) {
      this.keep("", total);
      for (const each of replicas) if (each.second && each.state === "live") this.keep(each.name, { ...NOTHING, ...each.second, at: total.at });
    }
    setText(this.own, `From here on, all is what ${this.self} alone sees and sends, whichever replica is picked above.`);
    const live = replicas.filter((each) => each.state === "live");
    setText(document.getElementById("fleet-count"), `${live.length} of ${replicas.filter((each) => each.state !== "left").length} live`);
    this.drawPick(replicas);
    this.drawRows(replicas, agreed);
    this.drawSum(live, total);
    this.drawAgreed(agreed);
  }

  keep(name, second) {
    const seconds = this.histories.get(name) ?? [];
    if (seconds.at(-1)?.at !== second.at) seconds.push(second);
    if (seconds.length > KEPT) seconds.shift();
    this.histories.set(name, seconds);
  }

  drawPick(replicas) {
    const named = replicas.filter((each) => each.name);
    const options = [["", `All ${replicas.filter((each) => each.state === "live").length} live, together`],
      ...named.map((each) => [each.name, each.self ? `${each.name} (this one)` : each.state === "live" ? each.name : `${each.name} (${WORDS[each.state].toLowerCase()})`])];
    const wanted = JSON.stringify(options);
    if (this.options === wanted) return;
    this.options = wanted;
    this.pick.replaceChildren(...options.map(([value, text]) => el("option", { value, text })));
    if (!named.some((each) => each.name === this.shown)) this.shown = "";
    this.pick.value = this.shown;
  }

  drawRows(replicas, agreed) {
    const keys = new Set(replicas.map(keyOf));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.node.remove();
      this.rows.delete(key);
    }
    const own = replicas[0];
    replicas.forEach((each, i) => {
      if (!this.rows.has(keyOf(each))) this.rows.set(keyOf(each), new Row(each));
      const row = this.rows.get(keyOf(each));
      row.show(each, own, agreed, this.tcp);
      if (this.list.children[i] !== row.node) this.list.insertBefore(row.node, this.list.children[i] ?? null);
    });
  }

  drawSum(live, total) {
    const known = live.filter((each) => each.endpoints !== null);
    const range = (name) => [...new Set(known.map((each) => each[name]))].sort((a, b) => a - b).join("–");
    const cells = total
      ? [count(total.requests), percent(failed(total, this.tcp)), seconds(total.latency[2]), count(total.in_flight), `${range("eligible")} of ${range("endpoints")}`, total.strategy]
      : ["–", "–", "–", "–", "–", "–"];
    const texts = ["All live", "", ...cells, "", ""];
    if (!this.sum.children.length) this.sum.append(...HEADS.map((_, i) => el(i ? "td" : "th", { class: NUMBERS.includes(i) ? "number" : "", ...(i ? {} : { scope: "row" }) })));
    texts.forEach((text, i) => setText(this.sum.children[i], text));
  }

  drawAgreed({ strategy, drained, at }) {
    const asked = at === null ? "" : `, asked ${duration(Date.now() / 1000 - at)} ago`;
    const what = [strategy && `strategy ${strategy}`, drained.length && `drained ${drained.join(", ")}`].filter(Boolean).join("; ");
    setText(document.getElementById("fleet-agreed"), what ? `Asked of all replicas: ${what}${asked}.` : "Nothing is asked of all replicas: each goes by its settings.");
  }
}

const keyOf = (each) => each.name || each.address;

class Row {
  constructor(replica) {
    this.name = el("b");
    this.about = el("span", { class: "quiet" });
    this.mark = el("i", { "aria-hidden": "true" });
    this.word = el("span");
    this.why = el("span", { class: "quiet why" });
    this.cells = HEADS.slice(2).map((_, i) => el("td", { class: NUMBERS.includes(i + 2) ? "number" : "" }));
    this.node = el("tr", {}, el("th", { scope: "row" }, this.name, " ", this.about),
      el("td", {}, el("span", { class: "state" }, this.mark, this.word), " ", this.why), ...this.cells);
    setText(this.name, replica.name || replica.address);
  }

  show(e, own, agreed, tcp) {
    setAttribute(this.node, "data-state", e.state);
    setText(this.mark, MARKS[e.state]);
    setText(this.word, WORDS[e.state]);
    setText(this.about, e.self ? "this one" : e.name ? e.address : "");
    const since = e.age !== null && e.state !== "live" ? `for ${duration(e.age)}` : "";
    setText(this.why, [since, e.problem].filter(Boolean).join(": "));
    const live = e.state === "live" && e.second ? { ...NOTHING, ...e.second } : null;
    const other = e.version !== own.version && e.state !== "refused";
    const texts = [
      live ? count(live.requests) : "–", live ? percent(failed(live, tcp)) : "–", live ? seconds(live.latency[2]) : "–",
      live ? count(live.in_flight) : "–",
      live && e.endpoints !== null ? `${e.eligible} of ${e.endpoints}` : "–",
      `${e.strategy ?? "–"}${live && agreed.strategy && e.strategy !== agreed.strategy ? " (not as asked)" : ""}`,
      `${e.version ?? (e.state === "live" ? "older" : "–")}${other && e.state === "live" ? ` (this one: ${own.version})` : ""}`,
      live && e.started ? duration(Date.now() / 1000 - e.started) : "–",
    ];
    texts.forEach((text, i) => setText(this.cells[i], text));
    this.cells[5].classList.toggle("odd", texts[5].includes("(not"));
    this.cells[6].classList.toggle("odd", texts[6].includes("(this") || texts[6] === "older");
  }
}
