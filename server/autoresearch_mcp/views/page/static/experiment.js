// One experiment in full: what it changed, why, what came of it, where its time went, and what it printed.

import { Curves } from "./curves.js";
import { duration, h, kind, named, put, time } from "./dom.js";
import { experiment } from "./store.js";

const dialog = document.getElementById("experiment");
let shown = null, from = "#/night", curves = null;

dialog.addEventListener("close", () => {
  shown = null;
  curves?.close();
  curves = null;
  if (location.hash.startsWith("#/experiment/")) history.replaceState(null, "", from); // so that back does not open it again
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("pre")) return; // which scrolls
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") step(event.key === "ArrowLeft" ? -1 : 1);
});
addEventListener("hashchange", (event) => { const before = new URL(event.oldURL).hash; if (before && !before.startsWith("#/experiment/")) from = before; });

let night = null;
function step(by) {
  const rows = night?.order ?? [], at = Number(location.hash.split("/")[2]); // the one asked for last, which may not be there yet
  const place = rows.findIndex((row) => row.number === at) + by;
  if (rows[place]) location.hash = `#/experiment/${rows[place].number}`;
}

export function closeExperiment() { shown = null; if (dialog.open) dialog.close(); }

export async function showExperiment(number, store) {
  night = store;
  shown = number;
  let told;
  try { told = await experiment(number); } catch (error) { told = { error: String(error.message ?? error) }; }
  if (shown !== number) return;
  curves?.close();
  put(dialog, ...(told.error ? failed(number, told.error) : page(told)));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  dialog.querySelector(".shut").focus();
  curves?.update(told.curve, told.best_curve, `experiment ${number}`, `the best, ${told.best_number}`);
}

const bar = (title, ...more) => h("header", {}, h("h2", { id: "experiment-title" }, title), h("span", { class: "steps" }, ...more,
  h("button", { type: "button", class: "quiet", "aria-label": "The one before", on: { click: () => step(-1) } }, "←"),
  h("button", { type: "button", class: "quiet", "aria-label": "The next one", on: { click: () => step(1) } }, "→"),
  h("button", { type: "button", class: "quiet shut", "aria-label": "Close", on: { click: () => dialog.close() } }, "✕")));

const failed = (number, words) => [bar(`Experiment ${number}`), h("p", { class: "waiting" }, words)];

const fact = (name, ...value) => (value.some((part) => part !== "" && part !== null && part !== undefined) ? h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, ...value)) : null);
const part = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

function page(told) {
  curves = new Curves(190);
  const parts = [
    bar(told.description || `Experiment ${told.number}`),
    h("p", { class: "under" }, h("span", { class: `badge ${kind(told.status)}` }, named(told.status)), ` experiment ${told.number} of ${told.session}, ${time(told.at)}, `, h("code", {}, told.commit.slice(0, 12))),
    h("dl", { class: "facts" },
      fact(told.metric, told.score ? h("strong", {}, told.score) : "no score"), fact("gain ± 95 %", told.simpler ? "shorter, no worse" : told.gain),
      fact("lines", `+${told.added} −${told.removed}`), fact("verdict", told.reason), fact("why it should help", told.hypothesis), fact("learned", told.learned),
      fact("in", told.places.join(", ")), fact("like", told.similar ? h("a", { href: `#/experiment/${told.similar}` }, `experiment ${told.similar}`) : null),
      ...Object.entries(told.checks).map(([name, said]) => fact(`check ${name}`, said)), ...Object.entries(told.limits).map(([name, said]) => fact(name, said))),
    part("Change against the best of its time", diff(told.diff)),
  ];
  if (told.curve.length > 1) parts.push(part("Learning curve", curves.element));
  parts.push(part(`Runs (${told.runs.length})`, told.runs.length ? runs(told.runs) : h("p", { class: "soft" }, "It has not run yet.")));
  if (told.excerpt) parts.push(part("Why it gave no score", h("pre", { class: "log", tabIndex: 0 }, told.excerpt)));
  parts.push(part("What it printed", h("p", { class: "soft" }, "Written by the run; nothing of it is trusted."), h("pre", { class: "log", tabIndex: 0 }, told.log || "(nothing)")));
  return parts;
}

function diff(text) {
  if (!text) return h("p", { class: "soft" }, "None: this is the file as it began.");
  const line = (words) => h("span", { class: words.startsWith("@@") ? "hunk" : /^(\+\+\+|---)/.test(words) ? "file" : words.startsWith("+") ? "add" : words.startsWith("-") ? "cut" : "" }, `${words}\n`);
  return h("pre", { class: "diff", tabIndex: 0, "aria-label": "The change" }, text.replace(/\n$/, "").split("\n").map(line));
}

const PHASES = ["queued", "compile", "startup", "check", "training", "export", "evaluation"];

function runs(all) {
  const longest = Math.max(1, ...all.map((run) => total(run)));
  return h("div", { class: "runs" }, all.map((run) => h("div", { class: "run" },
    h("p", {}, h("b", {}, `run ${run.run}`), ` ${run.purpose}, seed ${run.seed}, ${time(run.at)}: `, h("b", {}, run.score ?? run.outcome), run.holdout ? `, holdout ${run.holdout}` : ""),
    run.seconds ? h("div", { class: "phases", role: "img", "aria-label": words(run), style: { "--share": `${(100 * total(run)) / longest}%` } },
      PHASES.filter((name) => run.seconds[name] > 0).map((name) => h("i", { class: name, title: `${name} ${duration(run.seconds[name])}`, style: { "flex-grow": String(run.seconds[name]) } }))) : null,
    run.seconds ? h("p", { class: "soft" }, words(run)) : null,
    run.seconds ? h("p", { class: "soft" }, [run.hardware, `sandbox ${run.sandbox}`, run.memory ? `${(run.memory / 1024).toFixed(2)} GiB` : "", ...Object.entries(run.marks).map(([name, mark]) => `${name} ${mark}`),
      ...Object.entries(run.details).map(([name, value]) => `${name} ${value}`)].filter(Boolean).join(" · ")) : null,
    run.disturbed ? h("p", { class: "warn" }, `Disturbed: ${run.disturbed}`) : null)));
}

const total = (run) => Object.values(run.seconds ?? {}).reduce((sum, seconds) => sum + seconds, 0);
const words = (run) => PHASES.filter((name) => run.seconds[name] > 0.05).map((name) => `${name} ${duration(run.seconds[name])}`).join(", ");
