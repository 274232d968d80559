// The panel inside a chat: what a host that knows MCP Apps shows for `status` and the score. It speaks to its host alone, by messages
// (specification 2026-01-26), and reads the night through it; where the host will not, it shows the answer's own words.

import { Progress } from "./chart.js";
import { Curves } from "./curves.js";
import { duration, h, put } from "./dom.js";

const VERSION = "2026-01-26", NIGHT = "autoresearch://night";
const EVERY_RUNNING = 3000, EVERY = 20000; // milliseconds between looks
const body = document.getElementById("panel");
const waiting = new Map();
const PATIENCE = 15000, IDLE = 60; // milliseconds for an answer, and looks in a row at which nothing runs, after which it rests
let asked = 0, answer = null, reads = false, timer = 0, over = false, seen = true, idle = 0;

// --- the host ---

const post = (message) => parent.postMessage({ jsonrpc: "2.0", ...message }, "*");
const tell = (method, params = {}) => post({ method, params });
const ask = (method, params) => new Promise((done, failed) => {
  asked += 1;
  waiting.set(asked, { done, failed });
  setTimeout(() => failed(new Error("no answer")), PATIENCE);
  post({ id: asked, method, params });
});

document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
addEventListener("message", ({ source, data }) => {
  if (source !== parent || data?.jsonrpc !== "2.0") return;
  if (data.method === undefined) {
    const one = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) one?.failed(new Error(data.error.message)); else one?.done(data.result);
  } else if (data.method === "ui/notifications/tool-result") { answer = data.params; look(); }
  else if (data.method === "ui/notifications/host-context-changed") dress(data.params);
  else if (data.id !== undefined) {
    if (data.method === "ui/resource-teardown") { over = true; clearTimeout(timer); }
    if (data.method === "ui/resource-teardown" || data.method === "ping") post({ id: data.id, result: {} });
    else post({ id: data.id, error: { code: -32601, message: "not known" } });
  }
});

function dress(context) {
  if (context?.theme) document.documentElement.dataset.theme = context.theme === "dark" ? "dark" : "light";
  chart.dress();
  curves.dress();
}

// --- what is shown ---

const chart = new Progress(() => {}, 270);
const curves = new Curves(130);
const stats = h("dl", { class: "stats" }), now = h("div", { class: "now" }), words = h("pre", { class: "log", tabIndex: 0 });
put(body, stats, chart.element, now, curves.element, words);
const figure = (name, value, more) => h("div", {}, h("dt", {}, name), h("dd", {}, h("strong", {}, value), more ? h("span", {}, more) : ""));

// While it is seen, and something may still happen: a chat keeps the panels of old answers.
new IntersectionObserver(([entry]) => { const before = seen; seen = entry.isIntersecting; if (seen && !before) look(); }).observe(body);

async function look() {
  clearTimeout(timer);
  if (over || !seen || document.hidden) return;
  let night = null;
  if (reads) {
    try { night = JSON.parse((await ask("resources/read", { uri: NIGHT })).contents[0].text); } catch { /* the words are there */ }
  }
  if (night) shown(night); else spoken();
  idle = night?.now.runs.length ? 0 : idle + 1;
  if (!over && idle < IDLE) timer = setTimeout(look, idle ? EVERY : EVERY_RUNNING);
}

function shown({ head, fields, rows, now: on }) {
  const order = rows.map((row) => Object.fromEntries(fields.map((name, place) => [name, row[place]])));
  const [best, reach] = head.best.split(" ± "), [gained, gainReach] = head.gain.split(" ± ");
  words.hidden = true;
  chart.element.hidden = !order.length;
  put(stats, figure(`best ${head.metric}`, best || "–", reach ? `± ${reach}` : ""), figure("gain", gained || "–", gainReach ? `± ${gainReach}` : ""), figure("experiments", String(head.experiments), `${head.kept} kept`));
  if (order.length) chart.update({ head, order });
  const [run] = on.runs;
  put(now, run ? h("p", {}, h("b", {}, `experiment ${run.number}`), ` ${run.description}: ${run.phase}, ${duration(run.elapsed)}${run.budget && run.phase === "training" ? ` of ${duration(run.budget)}` : ""}`) : "");
  curves.update(on.curve, on.best_curve, run ? `experiment ${run.number}` : "", "the best");
}

function spoken() {
  chart.element.hidden = curves.element.hidden = true;
  words.hidden = false;
  words.textContent = (answer?.content ?? []).map((part) => part.text ?? "").join("\n") || "Waiting for the answer …";
}

spoken();
new ResizeObserver(() => tell("ui/notifications/size-changed", { width: body.scrollWidth, height: Math.ceil(body.getBoundingClientRect().height) + 16 })).observe(body);

const begun = await ask("ui/initialize", { appInfo: { name: "autoresearch", version: "1" }, appCapabilities: { availableDisplayModes: ["inline", "fullscreen"] }, protocolVersion: VERSION });
reads = Boolean(begun.hostCapabilities?.serverResources);
dress(begun.hostContext);
tell("ui/notifications/initialized");
look();
