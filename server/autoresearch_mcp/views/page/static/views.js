// The other views: the night as it goes, the morning after, what was tried where, and the machines.

import { Progress } from "./chart.js";
import { Curves } from "./curves.js";
import { duration, h, kind, named, put, replace, score } from "./dom.js";

const openOne = (number) => { location.hash = `#/experiment/${number}`; };
// Whether what a view is made of has changed since it was last drawn: what has not is left alone, with whoever stands in it.
function changed(view, of) {
  const key = JSON.stringify(of);
  if (view.drawn === key) return false;
  view.drawn = key;
  return true;
}
const card = (title, ...children) => h("section", { class: "card" }, h("h2", {}, title), ...children);

// --- the night ---

export class Night {
  constructor(store) {
    this.store = store;
    this.stats = h("dl", { class: "stats" });
    this.chart = new Progress(openOne);
    this.curves = new Curves();
    this.now = h("section", { class: "card now", "aria-label": "Now" });
    this.latest = h("section", { class: "card" });
    this.means = h("p", { class: "means" });
    this.others = h("section", { class: "card", hidden: true });
    this.element = h("div", { class: "view night" }, h("h1", { class: "hidden" }, "The night"), this.stats, h("section", { class: "card wide", "aria-label": "Progress" }, this.chart.element, this.means, pictures()), this.others, this.now, this.latest);
  }

  close() { this.chart.close(); this.curves.close(); }

  dress() { this.chart.dress(); this.curves.dress(); }

  update(what) {
    if (what === "now") this.running();
    if (what !== "night") return;
    const { head, order } = this.store;
    const stat = (name, value, more) => h("div", {}, h("dt", {}, name), h("dd", {}, h("strong", {}, value), more ? h("span", {}, more) : ""));
    const [best, reach] = head.best.split(" ± "), [gained, gainReach] = head.gain.split(" ± ");
    put(this.stats,
      stat(`best ${head.metric}${head.everyone ? ` (${head.session})` : ""}${reach ? ", 95 %" : ""}`, best || "–", reach ? `± ${reach}` : ""),
      stat(gainReach ? "gain, 95 %" : "gain", gained || "–", gainReach ? `± ${gainReach}` : head.baseline ? `baseline ${head.baseline}` : ""),
      stat("experiments", String(head.experiments), `${head.kept} kept, ${head.runs} runs`),
      stat("luck of one run", head.noise.deviation === null ? "–" : score(head.noise.deviation), head.noise.deviation === null ? "not measured" : "standard deviation"));
    this.chart.update(this.store);
    this.means.textContent = head.noise.means;
    this.others.hidden = !head.everyone;
    if (head.everyone) put(this.others, h("h2", {}, "Sessions"), sessionsTable(head));
    replace(this.latest, h("h2", {}, "Latest"), order.length ? h("ol", { class: "latest" }, order.slice(-8).reverse().map((row) => h("li", {}, h("a", { href: `#/experiment/${row.number}` },
      h("span", { class: `badge ${kind(row.status)}` }, named(row.status)), h("span", { class: "what" }, row.description), h("span", { class: "figures" }, row.score === null ? "" : score(row.score)))))) : h("p", { class: "soft" }, "Nothing has run yet. The first run is the baseline."));
  }

  running() {
    const { now } = this.store;
    if (!now?.runs?.length) {
      put(this.now, h("h2", {}, "Now"), h("p", { class: "soft" }, "Nothing runs."), slots(now?.slots ?? []));
      return;
    }
    const [first, ...others] = now.runs;
    this.curves.update(now.curve, now.best_curve, `experiment ${first.number}`, "the best");
    if (!this.clock) { this.clock = h("div", {}); this.log = h("pre", { class: "log", tabIndex: 0, role: "region", "aria-label": "What the run prints" }); this.more = h("div", {}); }
    replace(this.clock, clock(first));
    const said = now.log || "(nothing printed yet)";
    if (this.log.textContent !== said) { this.log.textContent = said; this.log.scrollTop = this.log.scrollHeight; }
    replace(this.more, ...others.map(clock), slots(now.slots ?? []));
    if (!this.clock.isConnected) put(this.now, h("h2", {}, "Now"), this.clock, this.curves.element, h("details", {}, h("summary", {}, "What it prints"), this.log), this.more);
  }
}

function clock(run) {
  const whole = run.phase === "training" ? run.budget : run.limit;
  const share = whole ? Math.min(1, run.elapsed / whole) : null;
  const how = run.repeat > 1 ? `, run ${run.repeat} of it` : "";
  return h("div", { class: "clock" },
    h("p", {}, h("a", { href: `#/experiment/${run.number}` }, `experiment ${run.number}`), `${how}: ${run.description}`),
    h("div", { class: "bar-of", role: "progressbar", "aria-label": `${run.phase} of experiment ${run.number}`, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": share === null ? null : String(Math.round(100 * share)) }, h("i", { class: run.phase, style: { width: `${100 * (share ?? 0)}%` } })),
    h("p", { class: "soft" }, `${run.phase}, ${duration(run.elapsed)}${whole ? ` of ${run.phase === "training" ? "" : "at most "}${duration(whole)}` : ""}${run.slot ? ` · ${run.slot}` : ""}${run.note ? ` · ${run.note}` : ""}`));
}

const slots = (all) => (all.length ? h("p", { class: "slots" }, all.map((use) => h("span", {}, `${use.kind}: ${use.used} of ${use.there} in use${use.waiting ? `, ${use.waiting} waiting` : ""}`))) : null);

function pictures() {
  const query = location.search, link = (name, form, text) => h("a", { href: `/${name}.${form}${query}`, download: `autoresearch-${name}.${form}` }, text);
  return h("p", { class: "take" }, "Take it with you: ", link("card", "png", "a card to share"), " (", link("card", "svg", "svg"), "), ", link("progress", "png", "the picture"), " (", link("progress", "svg", "svg"), ")");
}

const sessionsTable = (head) => h("div", { class: "scroller", tabIndex: 0, role: "region", "aria-label": "Sessions" }, h("table", {}, h("thead", {}, h("tr", {}, ["session", "experiments", "kept", "best", "gain"].map((name) => h("th", { scope: "col" }, name)))),
  h("tbody", {}, head.sessions.map((one) => h("tr", {}, h("th", { scope: "row" }, one.tag, one.running ? " ●" : ""), h("td", {}, String(one.experiments)), h("td", {}, String(one.kept)), h("td", {}, one.best || "–"), h("td", {}, one.gain || "–"))))));

// --- the morning ---

const REAL = { yes: ["Verified", "kept"], no: ["Not real", "failed"], unclear: ["Not shown", "open"], spoilt: ["Not verified", "open"], "not asked": ["Not verified yet", "open"], nothing: ["Nothing to verify", "tried"] };

export class Morning {
  constructor(store) { this.store = store; this.element = h("div", { class: "view morning" }); }

  update(what) {
    if (what !== "night") return;
    const { head } = this.store, { morning } = head, [title, tone] = REAL[morning.real.state];
    if (!changed(this, [head.best, head.gain, head.experiments, morning, head.lessons, head.session])) return;
    const changes = morning.changes, widest = Math.max(1e-12, ...changes.flatMap((one) => one.gain.map(Math.abs)));
    replace(this.element, h("h1", {}, "Good morning"), head.sessions.length > 1 ? h("p", { class: "soft" }, `Session ${head.session}${head.everyone ? ", which has the best of all" : ""}`) : null,
      h("p", { class: "lead" }, head.gain ? `${head.metric} went from ${head.baseline} to ${head.best}: a gain of ${head.gain}.` : head.baseline ? `${head.metric} stands at ${head.best || head.baseline}. Nothing better has been found yet.` : "There is no score yet."),
      card("Is it real?", h("p", {}, h("span", { class: `badge ${tone}` }, title), ` ${morning.real.words}`), command(morning.real.command),
        morning.holdout ? h("p", {}, `Sealed holdout: baseline ${morning.holdout.baseline ?? "–"}, best ${morning.holdout.best ?? "–"}; looked at by verify ${morning.holdout.looks} times.`) : null,
        h("p", { class: "soft" }, head.noise.means)),
      card("What it cost", h("p", {}, [`${head.experiments} experiments in ${head.runs} runs, ${duration(morning.hours * 3600)}`, morning.saved, morning.sandbox ? `sandbox: ${morning.sandbox}` : "", morning.disturbed ? `${morning.disturbed} runs were disturbed` : ""].filter(Boolean).join(" · "))),
      card("What each kept change is worth", changes.length ? h("ol", { class: "worth" }, changes.map((one) => h("li", {}, h("a", { href: `#/experiment/${one.number}` }, h("b", {}, `${one.number}`), ` ${one.description}`),
        h("span", { class: "figures" }, one.worth || "–"), interval(one.gain, widest), one.learned ? h("p", { class: "soft" }, one.learned) : null))) : h("p", { class: "soft" }, "Nothing was kept but the baseline."),
        changes.length ? h("p", { class: "soft" }, "As it was judged when it was kept, less than was seen, since it was chosen for its luck as well.") : null),
      morning.merge.length ? card("How to take it", ...morning.merge.map((step) => h("div", {}, h("p", {}, `${step.does}:`), command(step.command)))) : null,
      head.lessons.length ? card("What was learned", h("ul", {}, head.lessons.map((one) => h("li", {}, one.text, " ", h("a", { href: `#/experiment/${one.number}` }, `(${one.number})`))))) : null);
  }
}

function interval([value, low, high], widest) {
  if (value === undefined) return null;
  const place = (figure) => `${50 + (50 * figure) / widest}%`;
  return h("div", { class: "interval", "aria-hidden": "true" }, h("i", { class: "zero" }), low === undefined ? null : h("i", { class: "reach", style: { left: place(low), width: `${(50 * (high - low)) / widest}%` } }), h("i", { class: "value", style: { left: place(value) } }));
}

function command(text) {
  if (!text) return null;
  const copy = h("button", { type: "button", class: "quiet", "aria-label": "Copy the command", on: { click: async () => { await navigator.clipboard?.writeText(text); copy.textContent = "copied"; setTimeout(() => { copy.textContent = "copy"; }, 1500); } } }, "copy");
  return h("div", { class: "command" }, h("pre", { tabIndex: 0 }, text), copy);
}

// --- what was tried ---

export class Places {
  constructor(store) { this.store = store; this.element = h("div", { class: "view places" }); }

  update(what) {
    if (what !== "night") return;
    const { head } = this.store, most = Math.max(1, ...head.places.map((one) => one.tried));
    if (!changed(this, [head.places, head.counts])) return;
    replace(this.element, h("h1", {}, "What was tried"),
      card(`By place in ${head.file}`, head.places.length ? h("ul", { class: "bars" }, head.places.map((one) => h("li", {}, h("code", {}, one.place),
        h("span", { class: "tried-bar", "aria-hidden": "true" }, h("i", { class: "all", style: { width: `${(100 * one.tried) / most}%` } }), h("i", { class: "own", style: { width: `${(100 * one.kept) / most}%` } })),
        h("span", { class: "figures" }, `${one.tried} tried, ${one.kept} kept`),
        one.best_experiment ? h("a", { href: `#/experiment/${one.best_experiment}` }, `best: ${one.best_experiment}, ${score(one.best_score)}`) : h("span", {})))) : h("p", { class: "soft" }, "Nothing has been changed yet.")),
      card("How it ended", h("ul", { class: "bars" }, Object.entries(head.counts).map(([name, count]) => h("li", {}, h("span", { class: `badge ${kind(name)}` }, named(name)),
        h("span", { class: "tried-bar", "aria-hidden": "true" }, h("i", { class: "all", style: { width: `${(100 * count) / head.experiments}%` } })), h("span", { class: "figures" }, String(count)))))));
  }
}

// --- machines ---

export class Machines {
  constructor(store) { this.store = store; this.slots = h("div", {}); this.element = h("div", { class: "view machines" }); }

  update(what) {
    const { head, now } = this.store;
    if (what === "now") put(this.slots, ...(now?.slots ?? []).map((use) => h("div", { class: "slot" }, h("p", {}, h("b", {}, use.kind), ` ${use.used} of ${use.there} in use${use.waiting ? `, ${use.waiting} waiting` : ""}`),
      h("div", { class: "cells", "aria-hidden": "true" }, Array.from({ length: Math.min(use.there, 64) }, (_, place) => h("i", { class: place < use.used ? "used" : "" }))))));
    if (what !== "night" || !changed(this, [head.machines, head.noise])) return;
    replace(this.element, h("h1", {}, "Machines"), card("Slots", this.slots), card("Noise", h("p", {}, `Deviation of one run: ${head.noise.words}.`), h("p", { class: "soft" }, head.noise.means)),
      card("Where runs took place", head.machines.runs.length ? h("div", { class: "scroller", tabIndex: 0, role: "region", "aria-label": "Where runs took place" }, h("table", {}, h("thead", {}, h("tr", {}, ["hardware", "machine", "sandbox", "runs", "disturbed"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, head.machines.runs.map((one) => h("tr", {}, h("th", { scope: "row" }, one.hardware), h("td", {}, h("code", {}, one.machine)), h("td", {}, one.sandbox), h("td", {}, String(one.runs)), h("td", {}, String(one.disturbed))))))) : h("p", { class: "soft" }, "Nothing has run yet."),
        ...head.machines.told.map((words) => h("p", { class: "soft" }, words))));
  }
}
