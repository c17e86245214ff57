// The stream of decisions, each opening to its scores, and what the other strategies would have chosen.

import { chip, clock, colour, el, percent, score, seconds, setText, shortName, spell } from "./format.js";
import { drawBar } from "./endpoints.js";

const LISTED = 40;
const COMPARED = 200;
const SIDE_BY_SIDE = 10;

export class Decisions {
  constructor() {
    this.place = document.getElementById("decisions");
    this.note = document.getElementById("decisions-note");
    this.pause = document.getElementById("decisions-pause");
    this.others = new Others(document.getElementById("others"));
    this.paused = false;
    this.waiting = [];
    this.compared = [];
    this.pause.addEventListener("click", () => this.setPaused(!this.paused));
    this.forget();
  }

  // The balancer has been restarted: the list begins again.
  forget() {
    this.last = 0;
    this.waiting = [];
    this.compared = [];
    this.place.replaceChildren(el("p", { class: "empty", text: "No decision recorded yet: send a request." }));
  }

  // The strategies in the order in which they are always listed.
  order(names) {
    this.others.names = names;
  }

  setPaused(paused) {
    this.paused = paused;
    this.pause.setAttribute("aria-pressed", String(paused));
    this.show([]);
  }

  show(decisions) {
    const fresh = decisions.filter((d) => d.at > this.last);
    if (fresh.length) this.last = fresh[0].at;
    this.compared = [...fresh, ...this.compared].slice(0, COMPARED);
    this.waiting = [...fresh, ...this.waiting].slice(0, LISTED);
    const reading = this.place.querySelector("details[open]") !== null;
    if (!this.paused && !reading) this.list();
    setText(this.pause, this.paused ? `Go on${this.waiting.length ? ` (${this.waiting.length} new)` : ""}` : "Pause");
    setText(this.note, reading && !this.paused
      ? `Waiting while one is open: ${this.waiting.length} new.`
      : "Why each request went where it went. Open one for its scores.");
    this.others.show(this.compared);
  }

  list() {
    if (!this.waiting.length) return;
    this.place.querySelector(".empty")?.remove();
    this.place.prepend(...this.waiting.map(item));
    while (this.place.children.length > LISTED) this.place.lastChild.remove();
    this.waiting = [];
  }
}

const asked = (d) => (d.method ? `${d.method} ${d.path}` : `connection from ${d.client}`);

function item(decision) {
  const request = asked(decision);
  const summary = el("summary", {},
    el("span", { class: "time", text: clock(decision.at) }),
    el("span", { class: "request", text: request, title: request }),
    decision.chosen ? chip(decision.chosen) : el("span", { class: "none", text: "none" }),
    el("span", { class: "by", text: decision.by }));
  const details = el("details", {}, summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(scores(decision));
  });
  return details;
}

function scores(decision) {
  const worst = Math.max(...decision.candidates.map((c) => c.score ?? 0), 1e-12);
  const followed = decision.candidates.some((c) => c.wait !== null);
  const rows = decision.candidates.map((c) => {
    const won = c.address === decision.chosen;
    const points = el("td", { class: "number score", text: score(c.score) });
    points.style.setProperty("--share", c.score === null ? "0" : Math.max(0.01, c.score / worst).toFixed(4));
    return el("tr", { class: won ? "won" : c.ineligible_reason ? "out" : "" },
      el("th", { scope: "row" }, chip(c.address), won ? el("b", { text: " won" }) : ""),
      c.ineligible_reason ? el("td", { text: c.ineligible_reason }) : points,
      el("td", { class: "number", text: String(c.in_flight) }),
      ...(followed ? [el("td", { class: "number", text: spell(c.wait) }), el("td", { class: "number", text: c.pace?.toFixed(2) ?? "–" })] : []),
      el("td", { class: "number", text: seconds(c.latency) }),
      el("td", { class: "number", text: score(c.weight) }));
  });
  const heads = ["Candidate", "Score, lowest wins", "In flight", ...(followed ? ["Wait", "Pace"] : []), "Peak EWMA", "Weight"];
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col", text: name })))),
    el("tbody", {}, ...rows));
  // A long path, such as that of a gRPC call, is cut in the line above.
  const about = `${decision.method ? `${asked(decision)}. ` : ""}${decision.strategy}, for ${decision.client || "an unknown client"}: ${decision.by}.${decision.cost === null ? "" : ` Expected to cost ${seconds(decision.cost)}.`}`;
  return el("div", { class: "scores" }, el("p", { class: "quiet", text: about }), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Candidates and scores" }, table));
}

// What another strategy would have chosen is an address, or words for why that cannot be said.
const isAddress = (choice) => /^\S+:\d+$/.test(choice ?? "");

class Others {
  constructor(place) {
    this.bars = el("div", { class: "others-bars" });
    this.table = el("table", { class: "others" });
    this.empty = el("p", { class: "empty", text: "No decision recorded yet." });
    const more = el("details", { class: "side" }, el("summary", { text: "The latest requests, side by side" }),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The latest requests, side by side" }, this.table));
    more.addEventListener("toggle", () => this.show(this.decisions));
    this.more = more;
    this.rows = new Map();
    this.names = [];
    place.append(this.empty, this.bars, more);
  }

  show(decisions) {
    this.decisions = decisions;
    const known = decisions.filter((d) => d.chosen && Object.keys(d.others).length);
    this.empty.hidden = known.length > 0;
    this.more.hidden = this.bars.hidden = !known.length;
    if (!known.length) return;
    const seen = new Set(known.flatMap((d) => [d.strategy, ...Object.keys(d.others)]));
    const names = [...new Set([...this.names, ...seen])].filter((name) => seen.has(name));
    const choice = (d, name) => (name === d.strategy ? d.chosen : d.others[name]);
    for (const name of names) this.bar(name, known, choice);
    for (const [name, row] of this.rows) if (!names.includes(name)) row.node.remove(), this.rows.delete(name);
    if (this.more.open) this.sideBySide(names, known.slice(0, SIDE_BY_SIDE), choice);
  }

  bar(name, known, choice) {
    if (!this.rows.has(name)) {
      const row = { name: el("span", { class: "name", text: name }), same: el("span", { class: "quiet" }), bar: el("div", { class: "share-bar", role: "img" }) };
      row.node = el("div", { class: "other" }, el("p", {}, row.name, " ", row.same), row.bar);
      this.rows.set(name, row);
      this.bars.append(row.node);
    }
    const row = this.rows.get(name);
    const judged = known.filter((d) => isAddress(choice(d, name)));
    if (!judged.length) {
      setText(row.same, choice(known[0], name) ?? "");
      row.bar.hidden = true;
      return;
    }
    row.bar.hidden = false;
    const same = judged.filter((d) => choice(d, name) === d.chosen).length / Math.max(1, judged.length);
    const current = known[0].strategy === name;
    row.node.classList.toggle("current", current);
    setText(row.same, current ? "in force" : `the same in ${percent(same)}`);
    const tally = new Map();
    for (const d of judged) tally.set(choice(d, name), (tally.get(choice(d, name)) ?? 0) + 1);
    const ranked = [...tally].sort((a, b) => b[1] - a[1]);
    const kept = ranked.slice(0, 8).sort((a, b) => (a[0] < b[0] ? -1 : 1));
    const parts = kept.map(([address, n]) => ({ name: shortName(address), share: n / judged.length, fill: colour(address), title: address }));
    const rest = 1 - parts.reduce((sum, part) => sum + part.share, 0);
    if (rest > 0.001) parts.push({ name: "others", share: rest, fill: "var(--rest)", title: "others" });
    drawBar(row.bar, parts);
    row.bar.setAttribute("aria-label", `${name}: ${parts.map((p) => `${p.title} ${percent(p.share)}`).join(", ")}`);
  }

  sideBySide(names, latest, choice) {
    const head = el("tr", {}, el("th", { scope: "col", text: "Request" }), ...names.map((name) => el("th", { scope: "col", text: name })));
    const rows = latest.map((d) => el("tr", {}, el("th", { scope: "row", text: `${clock(d.at)} ${d.path || d.client}` }),
      ...names.map((name) => {
        const address = choice(d, name);
        return el("td", { class: address === d.chosen ? "same" : "" }, isAddress(address) ? chip(address) : "–");
      })));
    this.table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows));
  }
}
