// The strategy and its switch, draining by hand, and the token that both need.

import { el, setText } from "./format.js";

export class Refused extends Error {}

// Asks for the admin token when a change needs it, and keeps it in memory alone.
export class Token {
  constructor() {
    this.value = null;
    this.dialog = document.getElementById("token-dialog");
    this.input = document.getElementById("token");
    document.getElementById("token-cancel").addEventListener("click", () => this.dialog.close(""));
  }

  ask(what, error = "") {
    setText(document.getElementById("token-what"), what);
    setText(document.getElementById("token-error"), error);
    this.input.value = "";
    this.dialog.returnValue = "";
    this.dialog.showModal();
    this.input.focus();
    return new Promise((done) => {
      this.dialog.addEventListener("close", () => done(this.dialog.returnValue === "ok" ? this.input.value.trim() : null), { once: true });
    });
  }

  // Calls the API; gives what it answers, or null when the person thought better of it. Throws Refused with the reason.
  async change(what, method, path, body) {
    let error = "";
    for (;;) {
      this.value ??= await this.ask(what, error);
      if (this.value === null) return null;
      const headers = { Authorization: `Bearer ${this.value}`, ...(body ? { "Content-Type": "application/json" } : {}) };
      const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
      const answer = response.status === 204 ? {} : await response.json();
      if (response.ok) return answer;
      if (response.status !== 401) throw new Refused(answer.error);
      this.value = null;
      error = answer.error;
    }
  }
}

export class Strategy {
  constructor(token, announce, fleet) {
    this.token = token;
    this.fleet = fleet;
    this.announce = announce;
    this.place = document.getElementById("strategies");
    this.button = document.getElementById("switch");
    this.note = document.getElementById("switch-note");
    document.getElementById("strategy-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.switch();
    });
    this.place.addEventListener("change", () => this.update());
  }

  show({ strategy, strategies, replica, note }, changeable) {
    this.current = strategy;
    this.changeable = changeable ?? this.changeable;
    setText(document.getElementById("strategy-note"), `This is ${replica}. ${note.replaceAll("`", "")}`);
    const picked = this.picked();
    const options = strategies.map(({ name, meaning }) => {
      const radio = el("input", { type: "radio", name: "strategy", value: name });
      radio.checked = name === (picked && picked !== this.before ? picked : strategy);
      return el("label", { class: `option${name === strategy ? " current" : ""}` }, radio,
        el("span", { class: "name" }, name, name === strategy ? el("em", { text: "in force" }) : ""),
        el("span", { class: "quiet", text: meaning }));
    });
    const focused = this.place.contains(document.activeElement) && document.activeElement.value;
    this.place.replaceChildren(this.place.querySelector("legend"), ...options);
    if (focused) this.place.querySelector(`input[value="${CSS.escape(focused)}"]`)?.focus();
    this.before = strategy;
    this.update();
  }

  picked() {
    return this.place.querySelector("input:checked")?.value;
  }

  update() {
    const picked = this.picked();
    const other = picked && picked !== this.current;
    this.button.disabled = !other || !this.changeable;
    setText(this.button, other ? `Switch to ${picked}` : "Switch");
    this.place.disabled = !this.changeable;
    setText(this.note, this.changeable ? "Asks for the admin token. Nothing known of the endpoints is lost." : "");
  }

  async switch() {
    const name = this.picked();
    try {
      const scope = this.fleet.scope;
      const what = `Switch ${scope ? "all replicas" : "this replica"} to ${name}.`;
      const answer = await this.token.change(what, "PUT", `/api/strategy${scope && "?scope=fleet"}`, { strategy: name });
      if (answer) this.show(answer);
    } catch (error) {
      setText(this.note, error instanceof Refused ? error.message : "The balancer did not answer. Try again.");
      this.announce(this.note.textContent);
    }
  }
}
