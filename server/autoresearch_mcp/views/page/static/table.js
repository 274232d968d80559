// The list of experiments: filter, sort, and rows made only where they are seen, so that ten thousand are as fast as ten.

import { duration, gain, h, kind, named, put, score, time } from "./dom.js";

const COLUMNS = [
  // name, title, how rows compare, what a cell shows, whether it is a number
  ["number", "#", (row) => row.number, (row) => String(row.number), true],
  ["status", "verdict", (row) => row.status, (row) => h("span", { class: `badge ${kind(row.status)}` }, named(row.status)), false],
  ["score", "score", (row) => row.score, (row) => score(row.score), true],
  ["gain", "gain ± 95 %", (row) => row.gain[0] ?? null, (row) => gain(row.gain), true],
  ["runs", "runs", (row) => row.runs, (row) => (row.runs ? String(row.runs) : ""), true],
  ["seconds", "took", (row) => row.seconds, (row) => duration(row.seconds), true],
  ["at", "when", (row) => row.at, (row) => time(row.at), true],
  ["description", "what was tried", (row) => row.description.toLowerCase(), (row) => row.description, false],
];
const KINDS = [["kept", "kept"], ["tried", "discarded"], ["failed", "no score"], ["on", "running"]];
const SPARE = 8; // rows above and below those that are seen

export class Experiments {
  constructor(store) {
    this.store = store;
    this.sort = ["number", -1];
    this.hidden = new Set();
    this.active = null;
    const filter = h("input", { id: "filter", type: "search", placeholder: "Filter: words, a number", "aria-label": "Filter experiments", autocomplete: "off", spellcheck: false,
      on: { input: () => this.arrange(), keydown: (event) => { if (event.key === "Escape") { filter.value = ""; this.arrange(); filter.blur(); } } } });
    this.filter = filter;
    this.chips = KINDS.map(([name, title]) => h("button", { type: "button", class: `chip ${name}`, "aria-pressed": "true", on: { click: (event) => this.toggle(name, event.currentTarget) } }, title));
    this.heads = COLUMNS.map(([name, title, , , number]) => h("th", { scope: "col", class: `${name}${number ? " number" : ""}` },
      h("button", { type: "button", on: { click: () => this.by(name) } }, title)));
    this.above = h("tr", { class: "space", "aria-hidden": "true" }, h("td", { colSpan: COLUMNS.length }));
    this.below = h("tr", { class: "space", "aria-hidden": "true" }, h("td", { colSpan: COLUMNS.length }));
    this.body = h("tbody", {});
    this.table = h("table", { class: "experiments" }, h("caption", { class: "hidden" }, "Experiments"), h("thead", {}, h("tr", {}, this.heads)), this.body);
    this.scroller = h("div", { class: "scroller", tabIndex: 0, role: "region", "aria-label": "Experiments: arrow keys choose, Enter opens", on: { scroll: () => this.draw(), keydown: (event) => this.key(event) } }, this.table);
    this.count = h("span", { class: "soft", role: "status" });
    this.element = h("section", { class: "view list" }, h("h1", { class: "hidden" }, "Experiments"), h("div", { class: "bar" }, filter, ...this.chips, this.count), this.scroller);
    this.sizer = new ResizeObserver(() => this.draw());
    this.sizer.observe(this.scroller);
  }

  close() { this.sizer.disconnect(); }

  update(what) { if (what === "night") this.arrange(); }

  toggle(name, chip) {
    if (!this.hidden.delete(name)) this.hidden.add(name);
    chip.setAttribute("aria-pressed", String(!this.hidden.has(name)));
    this.arrange();
  }

  by(name) {
    const first = name === "score" && this.store.head.direction === "minimize" ? 1 : { description: 1, status: 1 }[name] ?? -1; // the best first
    this.sort = [name, this.sort[0] === name ? -this.sort[1] : first];
    this.arrange();
  }

  arrange() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean), [name, sign] = this.sort;
    const value = COLUMNS.find(([column]) => column === name)[2];
    const shown = (row) => { const is = kind(row.status); return !this.hidden.has(is === "open" ? "on" : is) && words.every((word) => row.text.includes(word)); };
    this.rows = this.store.order.filter(shown);
    this.rows.sort((one, other) => {
      const a = value(one), b = value(other);
      if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1; // what has none comes last
      return (a < b ? -sign : a > b ? sign : other.number - one.number);
    });
    COLUMNS.forEach(([column], place) => this.heads[place].setAttribute("aria-sort", column === name ? (sign > 0 ? "ascending" : "descending") : "none"));
    this.count.textContent = this.rows.length === this.store.order.length ? `${this.rows.length} experiments` : `${this.rows.length} of ${this.store.order.length}`;
    this.table.setAttribute("aria-rowcount", String(this.rows.length + 1));
    this.drawn = null;
    this.draw();
  }

  draw() {
    if (!this.rows) return;
    const tall = this.tall ??= parseFloat(getComputedStyle(this.table).getPropertyValue("--row")) || 38;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / tall) - SPARE);
    const last = Math.min(this.rows.length, Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / tall) + SPARE);
    if (this.drawn === `${first}-${last}-${this.active}`) return;
    this.drawn = `${first}-${last}-${this.active}`;
    this.above.firstChild.style.height = `${first * tall}px`;
    this.below.firstChild.style.height = `${(this.rows.length - last) * tall}px`;
    put(this.body, first ? this.above : null, ...this.rows.slice(first, last).map((row, place) => this.row(row, first + place)), last < this.rows.length ? this.below : null);
    if (!this.rows.length) put(this.body, h("tr", {}, h("td", { colSpan: COLUMNS.length, class: "soft none" }, this.store.order.length ? "No experiment matches." : "Nothing has run yet.")));
  }

  row(row, place) {
    return h("tr", { class: `${kind(row.status)}${row.number === this.active ? " active" : ""}`, "aria-rowindex": place + 2, on: { click: () => this.open(row) } },
      COLUMNS.map(([name, , , cell, number]) => h("td", { class: `${name}${number ? " number" : ""}` },
        name === "description" ? h("a", { href: `#/experiment/${row.number}`, tabIndex: -1, on: { click: (event) => event.stopPropagation() } }, cell(row), this.store.head.everyone ? h("em", {}, ` ${row.session}`) : "") : cell(row))));
  }

  open(row) { this.active = row.number; location.hash = `#/experiment/${row.number}`; }

  key(event) {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 15, PageUp: -15, Home: -1e9, End: 1e9 }[event.key];
    const place = this.rows.findIndex((row) => row.number === this.active);
    if (step) {
      const next = Math.max(0, Math.min(this.rows.length - 1, (place < 0 ? (step > 0 ? -1 : this.rows.length) : place) + step));
      this.active = this.rows[next]?.number ?? null;
      const top = next * this.tall, head = this.table.tHead.offsetHeight;
      if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
      else if (top + this.tall + head > this.scroller.scrollTop + this.scroller.clientHeight) this.scroller.scrollTop = top + this.tall + head - this.scroller.clientHeight;
      this.draw();
      event.preventDefault();
    } else if (event.key === "Enter" && place >= 0 && event.target === this.scroller) this.open(this.rows[place]);
  }
}
