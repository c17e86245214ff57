// Numbers as people read them, and the few lines of DOM that every part of the page needs.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value) => (value >= 100 ? whole : one).format(value);

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${(value * 1000).toFixed(2)} ms`;
  if (value < 0.1) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 1) return `${(value * 1000).toFixed(0)} ms`;
  return value < 60 ? `${value.toFixed(2)} s` : duration(value);
}

// Work and waits are 0 more often than not, and that is not a small number of milliseconds.
export const spell = (value) => (value === 0 ? "0" : seconds(value));

export function duration(value) {
  const s = Math.max(0, Math.round(value));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function size(bytes) {
  const power = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toPrecision(power && bytes / 1000 ** power < 10 ? 2 : 3).replace(/\.0+$/, "")} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

export const percent = (share) =>
  share === null || share === undefined ? "–" : `${(share * 100).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;

export const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

export const score = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toString());

// An element with attributes, properties (class, text) and children.
export function el(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Writes only what has changed, so that nothing is laid out again, or read aloud again, for nothing.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// A colour for each endpoint, the same wherever it appears: the first eight well apart, then by the golden angle.
const HUES = [231, 172, 32, 330, 200, 92, 275, 4];
const known = new Map();

export function colour(address) {
  if (!known.has(address)) {
    const index = known.size;
    known.set(address, index < HUES.length ? HUES[index] : (index * 137.508) % 360);
  }
  return `hsl(${known.get(address).toFixed(0)} var(--tone))`;
}

// The shortest names that still tell the endpoints apart: a port, the end of an address, or of a pod's name.
let short = new Map();

export function nameEndpoints(endpoints) {
  for (const { address } of endpoints) colour(address);
  const split = endpoints.map(({ address, pod }) => {
    const at = address.lastIndexOf(":");
    return { address, pod, host: address.slice(0, at), port: address.slice(at + 1) };
  });
  const hosts = new Set(split.map((e) => e.host));
  const ends = new Set(split.map((e) => e.pod && e.pod.split("-").at(-1)));
  const name = (e) => {
    if (e.pod && ends.size === split.length) return e.pod.split("-").at(-1);
    if (hosts.size === 1 && split.length > 1) return `:${e.port}`;
    if (hosts.size === split.length && /^[0-9.]+$/.test(e.host)) return `…${e.host.split(".").slice(2).join(".")}`;
    return e.address;
  };
  short = new Map(split.map((e) => [e.address, name(e)]));
}

export const shortName = (address) => short.get(address) ?? address;

export function chip(address) {
  const made = el("span", { class: "chip", title: address }, el("i", { "aria-hidden": "true" }), shortName(address));
  made.style.setProperty("--c", colour(address));
  return made;
}
