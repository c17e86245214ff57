// A plot of the last minutes, drawn on a canvas by hand: lines or stacked areas, marks, and a cursor that tells values.

import { clock, el, setText } from "./format.js";

const MARGIN = { left: 54, right: 10, top: 12, bottom: 22 };

export class Plot {
  // series: [{name, colour (a CSS variable), value: second => number | null}]; kind: "lines" (logarithmic) or "stack".
  constructor({ title, unit, kind, series, format, floor }) {
    Object.assign(this, { title, unit, kind, series, format, floor });
    this.canvas = el("canvas", { tabindex: "0", role: "img" });
    this.tip = el("p", { class: "tip" });
    this.legend = el("ul", { class: "legend" });
    this.node = el("figure", { class: "panel plot" },
      el("figcaption", {}, el("h3", { text: title }), el("span", { class: "quiet", text: unit })),
      this.legend, el("div", { class: "canvas" }, this.canvas, this.tip));
    this.values = this.series.map((each) => {
      const value = el("b");
      const swatch = el("i", { "aria-hidden": "true", class: each.dashed ? "dashed" : "" });
      swatch.style.setProperty("--c", `var(${each.colour})`);
      this.legend.append(el("li", {}, swatch, `${each.name} `, value));
      return value;
    });
    this.styles = new Map();
    this.history = [];
    this.marks = [];
    this.span = 120;
    this.cursor = null;
    this.listen();
  }

  listen() {
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("blur", () => this.point(null));
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") this.point(null);
      if (!step || !this.history.length) return;
      event.preventDefault();
      const last = this.history.length - 1;
      const index = this.cursor === null ? last : this.history.indexOf(this.cursor) + step;
      this.cursor = this.history[Math.min(last, Math.max(0, index))];
      this.draw();
    });
    // Size and colours are kept: to ask for them in each drawing would lay out the whole page each time.
    new ResizeObserver(([{ contentRect }]) => {
      this.width = contentRect.width;
      this.height = contentRect.height;
      this.draw();
    }).observe(this.canvas.parentElement);
  }

  css(name) {
    if (!this.styles.has(name)) this.styles.set(name, getComputedStyle(this.node).getPropertyValue(name).trim());
    return this.styles.get(name);
  }

  // The theme is another.
  restyle() {
    this.styles.clear();
    this.draw();
  }

  point(x) {
    this.cursor = null;
    if (x !== null && this.history.length) {
      const at = this.from + ((x - MARGIN.left) / this.plotWidth) * this.span;
      this.cursor = this.history.reduce((a, b) => (Math.abs(b.at - at) < Math.abs(a.at - at) ? b : a));
    }
    this.draw();
  }

  // `until`: where the axis ends (Unix time), though what is shown may have ended before.
  show(history, marks, span, until) {
    this.history = history;
    this.marks = marks;
    this.span = span;
    this.until = until;
    if (this.cursor && !history.includes(this.cursor)) this.cursor = null;
    const last = history.at(-1);
    this.series.forEach((each, i) => setText(this.values[i], last ? this.format(each.value(last)) : "–"));
    this.draw();
  }

  describe() {
    const last = this.history.at(-1);
    if (!last) {
      this.canvas.setAttribute("aria-label", `${this.title}, ${this.unit}. Nothing is known yet.`);
      return;
    }
    const values = this.series.map((each) => `${each.name} ${this.format(each.value(last))}`).join(", ");
    this.canvas.setAttribute("aria-label", `${this.title}, ${this.unit}. Now: ${values}. Arrow keys read earlier values.`);
  }

  draw() {
    const { width, height } = this;
    if (!width || !height || document.hidden) return;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${this.css("font-family")}`;
    this.plotWidth = width - MARGIN.left - MARGIN.right;
    this.plotHeight = height - MARGIN.top - MARGIN.bottom;
    this.from = (this.until ?? Date.now() / 1000) - this.span;
    this.visible = this.history.filter((second) => second.at >= this.from - 1.5);
    this.x = (at) => MARGIN.left + ((at - this.from) / this.span) * this.plotWidth;
    this.scale();
    this.grid(pen);
    pen.save();
    pen.beginPath();
    pen.rect(MARGIN.left, 0, this.plotWidth + 1, height - MARGIN.bottom + 1);
    pen.clip();
    if (this.kind === "stack") this.stack(pen);
    else this.lines(pen);
    this.drawMarks(pen);
    pen.restore();
    this.drawCursor(pen);
  }

  scale() {
    const bottom = MARGIN.top + this.plotHeight;
    if (this.kind === "stack") {
      const stacked = this.series.filter((each) => !each.dashed);
      const totals = this.visible.map((s) => stacked.reduce((sum, each) => sum + (each.value(s) ?? 0), 0));
      const dashed = this.series.filter((each) => each.dashed).flatMap((each) => this.visible.map((s) => each.value(s) ?? 0));
      const step = niceStep(Math.max(this.floor, ...totals, ...dashed) / 4);
      const top = step * Math.max(1, Math.ceil(Math.max(this.floor, ...totals, ...dashed) / step));
      this.ticks = [];
      for (let tick = 0; tick <= top + step / 2; tick += step) this.ticks.push(tick);
      this.y = (value) => bottom - (value / top) * this.plotHeight;
      return;
    }
    const values = this.visible.flatMap((s) => this.series.map((each) => each.value(s))).filter((value) => value > 0);
    const low = Math.min(this.floor * 10, ...values) * 0.8;
    const high = Math.max(low * 20, ...values) * 1.25;
    this.ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const digit of [1, 3]) {
        const tick = digit * 10 ** power;
        if (tick >= low && tick <= high) this.ticks.push(tick);
      }
    }
    if (this.ticks.length > 6) this.ticks = this.ticks.filter((tick) => /^1/.test(tick.toExponential(0)));
    this.y = (value) => bottom - (Math.log(Math.max(value, low) / low) / Math.log(high / low)) * this.plotHeight;
  }

  grid(pen) {
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const tick of this.ticks) {
      const y = Math.round(this.y(tick)) + 0.5;
      pen.strokeStyle = this.css("--grid");
      pen.beginPath();
      pen.moveTo(MARGIN.left, y);
      pen.lineTo(MARGIN.left + this.plotWidth, y);
      pen.stroke();
      pen.fillStyle = this.css("--quiet");
      pen.fillText(this.format(tick).replace(/\.0+ /, " "), MARGIN.left - 8, y);
    }
    pen.textBaseline = "alphabetic";
    const every = this.span / 4;
    for (let ago = 0; ago <= this.span; ago += every) {
      pen.textAlign = ago === 0 ? "right" : ago === this.span ? "left" : "center";
      const text = ago === 0 ? "now" : ago < 60 || ago % 60 ? `−${ago} s` : `−${ago / 60} min`;
      pen.fillText(text, MARGIN.left + this.plotWidth * (1 - ago / this.span), MARGIN.top + this.plotHeight + 16);
    }
  }

  // Seconds that are missing (the balancer was away) are a gap, not a slope.
  runs(value) {
    const runs = [[]];
    let before = null;
    for (const second of this.visible) {
      const reading = value(second);
      if (reading === null || (before !== null && second.at - before > 2.5)) runs.push([]);
      if (reading !== null) runs.at(-1).push([this.x(second.at), this.y(reading)]);
      before = second.at;
    }
    return runs.filter((run) => run.length);
  }

  stack(pen) {
    const base = new Map();
    for (const each of this.series.filter((series) => !series.dashed)) {
      const below = (second) => base.get(second) ?? 0;
      const upper = this.runs((second) => below(second) + (each.value(second) ?? 0));
      const lower = this.runs(below);
      pen.fillStyle = this.css(each.colour);
      upper.forEach((run, i) => {
        pen.globalAlpha = 0.32;
        pen.beginPath();
        [...run, ...lower[i].toReversed()].forEach(([x, y]) => pen.lineTo(x, y));
        pen.fill();
        pen.globalAlpha = 1;
      });
      this.strokeRuns(pen, this.runs(this.where(each, (second) => below(second) + (each.value(second) ?? 0))), each);
      for (const second of this.visible) base.set(second, below(second) + (each.value(second) ?? 0));
    }
    for (const each of this.series.filter((series) => series.dashed)) {
      this.strokeRuns(pen, this.runs(this.where(each, each.value)), each);
    }
  }

  // `value` where the series has something to show, or is about to: a line along nothing would hide the one below it.
  where(each, value) {
    const some = new Set();
    this.visible.forEach((second, i) => {
      if (each.value(second)) for (const near of this.visible.slice(Math.max(0, i - 1), i + 2)) some.add(near);
    });
    return (second) => (some.has(second) ? value(second) : null);
  }

  lines(pen) {
    for (const each of this.series) this.strokeRuns(pen, this.runs(each.value), each);
  }

  strokeRuns(pen, runs, each) {
    pen.strokeStyle = this.css(each.colour);
    pen.lineWidth = each.width ?? 1.6;
    pen.lineJoin = "round";
    pen.setLineDash(each.dashed ? [4, 3] : []);
    for (const run of runs) {
      pen.beginPath();
      run.forEach(([x, y]) => pen.lineTo(x, y));
      if (run.length === 1) pen.lineTo(run[0][0] + 1, run[0][1]);
      pen.stroke();
    }
    pen.setLineDash([]);
  }

  drawMarks(pen) {
    let free = -Infinity;
    for (const { at, text } of this.marks) {
      const x = Math.round(this.x(at)) + 0.5;
      if (x < MARGIN.left - 200) continue;
      pen.strokeStyle = this.css("--mark");
      pen.setLineDash([2, 3]);
      pen.beginPath();
      pen.moveTo(x, MARGIN.top - 6);
      pen.lineTo(x, MARGIN.top + this.plotHeight);
      pen.stroke();
      pen.setLineDash([]);
      const width = pen.measureText(text).width + 10;
      const leftward = x + width > MARGIN.left + this.plotWidth;
      const left = leftward ? x - width : x;
      if (left < free) continue;
      free = left + width;
      pen.fillStyle = this.css("--mark");
      pen.beginPath();
      pen.roundRect(left, 0, width, 16, 4);
      pen.fill();
      pen.fillStyle = this.css("--on-mark");
      pen.textAlign = "left";
      pen.textBaseline = "middle";
      pen.fillText(text, left + 5, 8.5);
    }
  }

  drawCursor(pen) {
    const second = this.cursor;
    this.tip.hidden = second === null;
    if (second === null) return;
    const x = Math.round(this.x(second.at)) + 0.5;
    pen.strokeStyle = this.css("--quiet");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x, MARGIN.top);
    pen.lineTo(x, MARGIN.top + this.plotHeight);
    pen.stroke();
    const values = this.series.map((each) => `${each.name} ${this.format(each.value(second))}`);
    this.tip.textContent = [clock(second.at), ...values].join(" · ");
    this.tip.setAttribute("role", document.activeElement === this.canvas ? "status" : "none");
    this.tip.style.setProperty("--x", `${Math.min(Math.max(x, 110), this.width - 110)}px`);
  }
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((digit) => digit * power >= rough * 0.999) * power;
}
