// Elements made from values. Text goes into text nodes alone: nothing that an agent or a run wrote is ever read as markup.

export function h(name, props = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (key === "style") for (const [rule, set] of Object.entries(value)) element.style.setProperty(rule, set);
    else if (key === "class") element.className = value;
    else if (key in element && !key.startsWith("aria") && key !== "role" && key !== "list") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const put = (element, ...children) => element.replaceChildren(...children.flat().filter(Boolean));

// The same where somebody may stand in it by keyboard: the focus stays where it was.
export function replace(element, ...children) {
  const within = () => [...element.querySelectorAll("a, button, select, input, summary, [tabindex]")];
  const place = element.contains(document.activeElement) ? within().indexOf(document.activeElement) : -1;
  put(element, ...children);
  if (place >= 0) within()[place]?.focus({ preventScroll: true });
}

// Six decimals as in results.tsv, or six digits where those would lose a small or large number.
export function score(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size < 1e6 && (size === 0 || size >= 0.0000005) ? value.toFixed(6) : Number(value.toPrecision(6)).toString();
}

// A score with as many decimals as its differences have something to say about.
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size >= 1000 || (size < 0.001 && size > 0) ? Number(value.toPrecision(4)).toString() : value.toFixed(size < 10 ? 4 : 2);
}

export function gain(figures) {
  if (!figures.length) return "";
  const [value, low, high] = figures;
  const reach = figures.length === 3 ? ` ± ${score((high - low) / 2)}` : "";
  return `${value >= 0 ? "+" : "−"}${score(Math.abs(value))}${reach}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
export const time = (at) => (Date.now() / 1000 - at < 20 * 3600 ? clock : day).format(new Date(at * 1000));

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// What a label of an experiment means for how it looks.
export const kind = (status) =>
  status === "keep" ? "kept" : status === "discard" ? "tried" : status === "running" || status === "pending" ? "on"
  : status === "scored" ? "open" : "failed";
export const named = (status) => ({ keep: "kept", discard: "discarded", scored: "awaits its verdict" })[status] ?? status;
