// The progress chart: every experiment, the kept ones named, the best as it is known with its interval, and how far luck alone reaches.

import { color, duration, gain, h, kind, named, score, time } from "./dom.js";

const HEIGHT = 420, NARROW = 620; // pixels
const WHISKERS = 600; // experiments in view beyond which intervals are not drawn
const LABELS = 24; // kept experiments that are named
const LINES = 8; // sessions whose best has a line of its own

export class Progress {
  constructor(choose, tall = HEIGHT) {
    this.choose = choose;
    this.tall = tall;
    this.tip = h("div", { class: "tip", hidden: true });
    this.box = h("div", { class: "chart", tabIndex: 0, role: "group", "aria-roledescription": "chart" }, this.tip);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("blur", () => this.point(null));
    this.box.__progress = this; // for whoever looks from outside: the drawing says nothing of itself
    this.element = h("figure", { class: "progress" }, this.box, this.caption = h("figcaption", {}));
    this.sizer = new ResizeObserver(() => this.fit());
    this.sizer.observe(this.box);
    this.rows = [];
    this.at = null;
  }

  close() { this.sizer.disconnect(); this.plot?.destroy(); }

  fit() {
    const width = Math.floor(this.box.clientWidth);
    if (!width || !this.plot) return;
    this.plot.setSize({ width, height: this.height() });
  }

  height() { return this.box.clientWidth < NARROW ? Math.min(320, this.tall) : this.tall; }

  update(store) {
    this.head = store.head;
    this.rows = store.order;
    this.byPlace = this.rows.filter((row) => row.score !== null);
    this.box.setAttribute("aria-label", this.told());
    const data = this.data();
    const shape = `${this.sessions.join("\n")}|${Boolean(this.sealed)}`;
    if (this.plot && this.shape === shape) {
      const zoomed = this.zoomed();
      this.plot.setData(data, false);
      if (!zoomed) this.plot.setScale("x", (this.before = this.span())); else this.plot.redraw();
    } else {
      this.shape = shape;
      this.build(data);
    }
    this.legend();
  }

  told() {
    const kept = this.rows.filter((row) => row.status === "keep").length;
    return `${this.rows.length} experiments, ${kept} kept. ${this.head.metric}: ${this.head.baseline ?? "no score"} at first, best `
      + `${this.head.best || "not known"}. Arrow keys go from experiment to experiment, Enter opens one; the table of experiments has the same.`;
  }

  span() {
    const last = this.rows.length ? this.rows.at(-1).number : 1, first = this.rows.length ? this.rows[0].number : 0;
    const room = Math.max(1, (last - first) * 0.02);
    return { min: first - room, max: last + room };
  }

  zoomed() {
    const { min, max } = this.plot.scales.x, whole = this.before;
    return whole && (Math.abs(min - whole.min) > 1e-6 || Math.abs(max - whole.max) > 1e-6);
  }

  // --- data ---

  data() {
    const { rows } = this, count = rows.length;
    const found = new Map();
    for (const row of rows) if (row.known !== null) found.set(row.session, (found.get(row.session) ?? 0) + 1);
    this.sessions = [...found.keys()].slice(0, LINES);
    const x = new Array(count), tried = new Array(count), kept = new Array(count), open = new Array(count);
    const lines = this.sessions.map(() => new Array(count));
    const low = new Array(count), high = new Array(count), luckLow = new Array(count), luckHigh = new Array(count);
    const best = new Map(), sealed = new Array(count);
    const alone = this.sessions.length === 1, { luck, interval } = this.head.noise;
    rows.forEach((row, place) => {
      x[place] = row.number;
      const is = kind(row.status);
      tried[place] = is === "tried" ? row.score : null;
      kept[place] = is === "kept" ? row.score : null;
      open[place] = is === "open" || (is === "on" && row.score !== null) ? row.score : null;
      if (row.known !== null) best.set(row.session, row);
      this.sessions.forEach((session, line) => { lines[line][place] = best.get(session)?.known ?? null; });
      const now = alone ? best.get(this.sessions[0]) : null;
      sealed[place] = now?.holdout ?? null;
      const reach = now ? (now.number === this.head.best_number ? interval : null) ?? now.reach ?? 0 : 0;
      low[place] = now ? now.known - reach : null;
      high[place] = now ? now.known + reach : null;
      luckLow[place] = now && luck ? now.known - luck : null;
      luckHigh[place] = now && luck ? now.known + luck : null;
    });
    this.sealed = sealed.some((value) => value !== null);
    return [x, luckLow, luckHigh, low, high, tried, open, kept, sealed, ...lines];
  }

  range(min, max) {
    const seen = this.byPlace.filter((row) => row.number >= min && row.number <= max);
    if (!seen.length) return [0, 1];
    const scores = seen.map((row) => row.score), own = seen.filter((row) => row.status === "keep").map((row) => row.score);
    const of = [...(own.length > 1 ? own : scores)], luck = this.head.noise.luck ?? 0;
    const spread = Math.max(...of) - Math.min(...of) || 3 * luck || Math.abs(of[0]) * 0.01 || 1;
    for (const row of seen) if (row.holdout !== null) of.push(row.holdout);
    let low = Math.min(...of) - 0.25 * spread, high = Math.max(...of) + 0.25 * spread;
    if (own.length > 1) { // a few wild ones must not flatten what was won
      low = Math.max(least(scores), Math.min(...of) - spread) - 0.15 * spread;
      high = Math.min(most(scores), Math.max(...of) + spread) + 0.2 * spread;
    }
    return [Math.min(low, Math.min(...of) - 1.1 * luck), Math.max(high, Math.max(...of) + 1.1 * luck)];
  }

  // --- drawing ---

  build(data) {
    this.plot?.destroy();
    const at = {
      x: (plot, min, max) => (this.seen = min === null ? [0, 1] : [min, max]), // asked before y
      y: () => this.range(...(this.seen ?? [0, 1])),
    };
    const axis = { stroke: () => color("soft"), grid: { stroke: () => color("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const dots = (name, size, edge) => ({
      paths: () => null, stroke: () => color(name),
      points: { show: true, size, width: edge ? 1.5 : 0, fill: () => color(name), stroke: () => color(edge ?? name) },
    });
    const stepped = uPlot.paths.stepped({ align: 1 });
    const none = { show: true, paths: stepped, stroke: "transparent", width: 0, points: { show: false } };
    const size = this.rows.length > 2000 ? 3 : this.rows.length > 300 ? 4.5 : 6;
    const options = {
      width: Math.max(200, Math.floor(this.box.clientWidth)), height: this.height(), legend: { show: false },
      padding: [44, 12, 4, 0],
      cursor: { drag: { x: true, y: false, uni: 20 }, points: { show: false }, x: true, y: false },
      scales: { x: { time: false, range: at.x }, y: { range: at.y } },
      axes: [
        { ...axis, grid: { show: false }, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000], size: 34 },
        { ...axis, size: 66, values: (plot, splits) => splits.map((value) => this.tick(value, splits)) },
      ],
      series: [
        {}, none, none, none, none, dots("dot", size), dots("amber", size + 1), dots("kept", size + 5, "paper"),
        { paths: stepped, stroke: () => color("own"), width: 2, dash: [6, 5], points: { show: false } },
        ...this.sessions.map((session, line) => ({ paths: stepped, stroke: () => color(line ? `line-${line}` : "kept"), width: 2, points: { show: false } })),
      ],
      bands: [{ series: [2, 1], fill: () => color("luck") }, { series: [4, 3], fill: () => color("band") }],
      hooks: {
        draw: [(plot) => this.marks(plot)],
        setCursor: [(plot) => this.hover(plot)],
        setScale: [(plot, key) => { if (key === "x" && !this.before) this.before = this.span(); }],
      },
    };
    this.plot = new uPlot(options, data, this.box);
    this.plot.setScale("x", (this.before = this.span()));
    this.plot.over.addEventListener("click", () => { if (this.near !== null && this.near !== undefined) this.choose(this.near.number); });
    this.plot.over.addEventListener("mouseleave", () => this.point(null));
    this.plot.over.addEventListener("dblclick", () => this.plot.setScale("x", (this.before = this.span())));
  }

  tick(value, splits) {
    const step = splits.length > 1 ? Math.abs(splits[1] - splits[0]) : 1;
    const decimals = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
    return decimals <= 6 ? value.toFixed(decimals) : value.toPrecision(4);
  }

  dress() { this.plot?.redraw(false); }

  marks(plot) {
    const { ctx, bbox } = plot, ratio = devicePixelRatio, { min, max } = plot.scales.x;
    const seen = this.rows.filter((row) => row.number >= min && row.number <= max);
    const x = (row) => plot.valToPos(row.number, "x", true), y = (value) => plot.valToPos(value, "y", true);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, 0, bbox.width, bbox.top + bbox.height);
    ctx.clip();
    if (seen.length <= WHISKERS) {
      ctx.lineWidth = ratio;
      for (const row of seen) {
        if (!row.reach || row.score === null) continue;
        ctx.strokeStyle = color(row.status === "keep" ? "kept" : "dot");
        ctx.beginPath();
        ctx.moveTo(x(row), y(row.score - row.reach));
        ctx.lineTo(x(row), y(row.score + row.reach));
        ctx.stroke();
      }
    }
    ctx.strokeStyle = color("red");
    ctx.lineWidth = 1.5 * ratio;
    const foot = bbox.top + bbox.height - 9 * ratio, arm = (seen.length > 300 ? 2 : 3.5) * ratio;
    ctx.beginPath();
    for (const row of seen) {
      if (row.score !== null || kind(row.status) !== "failed") continue;
      const cross = x(row);
      ctx.moveTo(cross - arm, foot - arm); ctx.lineTo(cross + arm, foot + arm);
      ctx.moveTo(cross - arm, foot + arm); ctx.lineTo(cross + arm, foot - arm);
    }
    ctx.stroke();
    this.names(ctx, plot, seen.filter((row) => row.status === "keep" && row.score !== null), x, y, ratio);
    if (this.at) {
      ctx.strokeStyle = color("ink");
      ctx.lineWidth = 2 * ratio;
      ctx.beginPath();
      ctx.arc(x(this.at), this.at.score === null ? foot : y(this.at.score), 8 * ratio, 0, 2 * Math.PI);
      ctx.stroke();
    }
    ctx.restore();
  }

  names(ctx, plot, kept, x, y, ratio) {
    // The latest first: where there is no room, what counts now is named.
    const taken = [];
    const narrow = plot.width < NARROW;
    ctx.font = `${(narrow ? 11 : 12) * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    for (const row of kept.slice(-LABELS).reverse()) {
      let text = row.description;
      const most = narrow ? 18 : 34;
      if (text.length > most) text = `${text.slice(0, most - 1)}…`;
      const width = ctx.measureText(text).width, tall = 15 * ratio;
      const beside = [[8, -14], [8, 14], [-8 - width / ratio, -14], [-8 - width / ratio, 14], [8, -30], [-8 - width / ratio, 30], [8, 30]];
      for (const [right, down] of beside) {
        const left = x(row) + right * ratio, middle = y(row.score) + down * ratio;
        const box = { left, right: left + width, top: middle - tall / 2, bottom: middle + tall / 2 };
        if (box.left < plot.bbox.left || box.right > plot.bbox.left + plot.bbox.width || box.top < 0 || box.bottom > plot.bbox.top + plot.bbox.height) continue;
        if (taken.some((other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top)) continue;
        taken.push(box);
        ctx.lineWidth = 3 * ratio;
        ctx.strokeStyle = color("paper");
        ctx.lineJoin = "round";
        ctx.strokeText(text, left, middle);
        ctx.fillStyle = color("kept-ink");
        ctx.fillText(text, left, middle);
        break;
      }
    }
  }

  // --- pointing ---

  hover(plot) {
    const { left, top } = plot.cursor;
    if (left < 0) return;
    const reach = 26, first = plot.posToVal(left - reach, "x"), last = plot.posToVal(left + reach, "x");
    let near = null, least = reach * reach;
    for (let place = lower(this.rows, first); place < this.rows.length && this.rows[place].number <= last; place += 1) {
      const row = this.rows[place];
      const down = row.score === null ? plot.over.clientHeight - 9 : plot.valToPos(row.score, "y");
      const distance = (plot.valToPos(row.number, "x") - left) ** 2 + (down - top) ** 2 - (row.status === "keep" ? 60 : 0);
      if (distance < least) { least = distance; near = row; }
    }
    this.point(near);
  }

  point(row) {
    if (row === this.at && row !== null) return;
    const before = this.at;
    this.near = this.at = row;
    this.tip.hidden = !row;
    if (row) this.say(row);
    if (this.plot) this.plot.over.classList.toggle("pointing", Boolean(row));
    if (before !== row) this.plot?.redraw(false, false);
  }

  say(row) {
    const { plot, tip } = this;
    tip.replaceChildren(
      h("b", {}, `${row.number} · ${named(row.status)}`), h("span", {}, row.description),
      h("span", { class: "figures" }, row.score === null ? "no score" : score(row.score), row.runs > 1 ? `, ${row.runs} runs` : "",
        row.gain.length ? `, ${gain(row.gain)}` : ""),
      h("span", { class: "soft" }, `${time(row.at)}${row.seconds ? `, ${duration(row.seconds)}` : ""}${this.head.everyone ? `, ${row.session}` : ""}`),
    );
    const ratio = devicePixelRatio, left = plot.bbox.left / ratio + plot.valToPos(row.number, "x");
    const top = plot.bbox.top / ratio + (row.score === null ? plot.over.clientHeight - 9 : plot.valToPos(row.score, "y"));
    const wide = tip.offsetWidth, tall = tip.offsetHeight;
    tip.style.left = `${Math.max(0, Math.min(left + 14, this.box.clientWidth - wide - 4))}px`;
    tip.style.top = `${top - tall - 14 < 0 ? top + 14 : top - tall - 14}px`;
  }

  key(event) {
    const place = this.at ? this.rows.findIndex((row) => row.number === this.at.number) : null;
    const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 20, PageUp: -20 }[event.key];
    if (step && this.rows.length) {
      const next = place === null ? this.rows.length - 1 : Math.max(0, Math.min(this.rows.length - 1, place + step));
      this.point(this.rows[next]);
      this.box.setAttribute("aria-label", `Experiment ${this.at.number}, ${named(this.at.status)}, ${score(this.at.score)}: ${this.at.description}`);
      event.preventDefault();
    } else if (event.key === "Enter" && this.at) this.choose(this.at.number);
    else if (event.key === "Escape") this.point(null);
  }

  legend() {
    const { head } = this, better = head.direction === "minimize" ? "lower" : "higher";
    const entry = (name, text) => h("span", { class: "key" }, h("i", { class: `swatch ${name}` }), text);
    const entries = [entry("kept", "kept"), entry("tried", "discarded")];
    if (this.rows.some((row) => kind(row.status) === "failed")) entries.push(entry("failed", "no score"));
    if (this.sessions.length > 1) this.sessions.forEach((session, line) => entries.push(entry(`line line-${line}`, `best of ${session}`)));
    else {
      entries.push(entry("line", head.noise.interval ? "best as it is known, 95 %" : "best"));
      if (this.sealed) entries.push(entry("line own", "the best on the sealed holdout"));
      if (head.noise.luck) entries.push(entry("luck", "where 95 % of single runs of the best would fall"));
    }
    this.caption.replaceChildren(h("span", { class: "axis" }, `${head.metric}, ${better} is better, by experiment`), ...entries);
  }
}

const least = (values) => values.reduce((one, other) => (other < one ? other : one), Infinity);
const most = (values) => values.reduce((one, other) => (other > one ? other : one), -Infinity);

function lower(rows, number) {
  let low = 0, high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].number < number) low = middle + 1; else high = middle;
  }
  return low;
}
