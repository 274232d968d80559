// The frame: which view is shown, the session that is looked at, light or dark, and keys.

import { h, put } from "./dom.js";
import { closeExperiment, showExperiment } from "./experiment.js";
import { connect, listen, store } from "./store.js";
import { Experiments } from "./table.js";
import { Machines, Morning, Night, Places } from "./views.js";

const VIEWS = [
  ["night", "Night", Night],
  ["experiments", "Experiments", Experiments],
  ["morning", "Morning", Morning],
  ["places", "Tried", Places],
  ["machines", "Machines", Machines],
];
const main = document.getElementById("main");
const tabs = document.getElementById("tabs");
const picker = document.getElementById("sessions");
let shown = null;
let view = null;
let chosen = new URLSearchParams(location.search).get("session");
let everyone = new URLSearchParams(location.search).get("everyone") === "1";

// --- which view ---

put(tabs, ...VIEWS.map(([name, title]) => h("a", { href: `#/${name}`, id: `tab-${name}` }, title)));

function route() {
  const [, name = "night", number] = location.hash.match(/^#\/([a-z]+)(?:\/(\d+))?/) ?? [];
  if (name === "experiment" && number) {
    if (!shown) open("night");
    showExperiment(Number(number), store);
    return;
  }
  closeExperiment();
  open(VIEWS.some(([known]) => known === name) ? name : "night");
}

function open(name) {
  for (const link of tabs.children) link.toggleAttribute("aria-current", link.id === `tab-${name}`);
  for (const link of tabs.querySelectorAll("[aria-current]")) link.setAttribute("aria-current", "page");
  if (shown === name) return;
  shown = name;
  view?.close?.();
  view = null;
  draw("night");
}

function draw(what) {
  if (!store.head) {
    if (store.words) put(main, h("p", { class: "waiting" }, store.words, chosen ? h("span", {}, " ", h("a", { href: location.pathname }, "Show the latest session.")) : ""));
    return;
  }
  if (!view) {
    const [, , Made] = VIEWS.find(([name]) => name === shown);
    view = new Made(store);
    put(main, view.element);
    view.update("night");
    view.update("now");
    return;
  }
  view.update(what);
}

// --- the session ---

function sessions() {
  const { head } = store;
  const options = head.sessions.map((one) => h("option", { value: one.tag, selected: !everyone && one.tag === head.session },
    `${one.tag}, ${one.experiments}${one.running ? ", running" : ""}`));
  if (head.sessions.length > 1) options.push(h("option", { value: "*", selected: everyone }, "all sessions"));
  const shape = JSON.stringify([head.sessions, head.session, everyone]);
  if (picker.dataset.shape !== shape && document.activeElement !== picker) { picker.dataset.shape = shape; put(picker, ...options); }
  picker.parentElement.hidden = options.length < 2 && document.activeElement !== picker;
  document.getElementById("title").textContent = head.task;
  document.title = `${head.best || "no score yet"} · ${head.task}`;
}

picker.addEventListener("change", () => {
  everyone = picker.value === "*";
  if (!everyone) chosen = picker.value;
  const query = new URLSearchParams();
  if (chosen) query.set("session", chosen);
  if (everyone) query.set("everyone", "1");
  history.replaceState(null, "", `?${query}${location.hash}`);
  store.head = null;
  view?.close?.();
  view = null;
  put(main, h("p", { class: "waiting" }, "Reading the record …"));
  connect(chosen, everyone);
});

// --- light or dark ---

const theme = document.getElementById("theme");
function dress(wanted) {
  if (wanted) document.documentElement.dataset.theme = wanted;
  const dark = wanted ? wanted === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  theme.textContent = dark ? "☀" : "☾";
  view?.dress?.();
}
theme.addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
  const wanted = dark ? "light" : "dark";
  try { localStorage.setItem("theme", wanted); } catch { /* a private window */ }
  dress(wanted);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dress(document.documentElement.dataset.theme));

// --- keys ---

document.addEventListener("keydown", (event) => {
  const writing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
  if (event.ctrlKey || event.metaKey || event.altKey || writing) return;
  const place = Number(event.key);
  if (place >= 1 && place <= VIEWS.length) location.hash = `#/${VIEWS[place - 1][0]}`;
  else if (event.key === "/") {
    location.hash = "#/experiments";
    route(); // now: whoever types on would lose letters until the page has heard of the new hash
    document.getElementById("filter")?.focus();
    event.preventDefault();
  }
});

// --- begin ---

listen((what) => {
  const link = document.getElementById("link");
  if (what === "live") {
    link.textContent = store.live ? "live" : "reconnecting";
    link.classList.toggle("off", !store.live);
    return;
  }
  if (what === "trouble") { link.textContent = store.words; link.title = store.words; link.classList.add("off"); return; }
  if (what !== "empty") { link.textContent = "live"; link.title = ""; link.classList.remove("off"); }
  if (what === "night") sessions();
  draw(what);
});
addEventListener("hashchange", route);
let saved = null;
try { saved = localStorage.getItem("theme"); } catch { /* a private window */ }
dress(saved ?? undefined);
connect(chosen, everyone);
route();
