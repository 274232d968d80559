// A learning curve beside the best's.

import { color, h, short } from "./dom.js";

export class Curves {
  constructor(height = 200) {
    this.tall = height;
    this.box = h("div", { class: "curves", role: "img" });
    this.element = h("figure", { class: "learning" }, this.box, this.caption = h("figcaption", {}));
    this.sizer = new ResizeObserver(() => { if (this.plot && this.box.clientWidth) this.plot.setSize({ width: Math.floor(this.box.clientWidth), height: this.tall }); });
    this.sizer.observe(this.box);
  }

  close() { this.sizer.disconnect(); this.plot?.destroy(); }

  dress() { this.plot?.redraw(false); }

  // Points of both, and what they are called.
  update(ours, best, name, bestName) {
    this.element.hidden = ours.length < 2 && best.length < 2;
    if (this.element.hidden) return;
    const table = (points) => (points.length ? [points.map(([x]) => x), points.map(([, y]) => y)] : [[], []]);
    const data = uPlot.join([table(sorted(best)), table(sorted(ours))]);
    const last = ours.at(-1);
    this.box.setAttribute("aria-label", `Learning curve of ${name}${last ? `, now at ${short(last[1])}` : ""}${best.length ? `, beside that of ${bestName}` : ""}`);
    const entry = (kind, text) => h("span", { class: "key" }, h("i", { class: `swatch line ${kind}` }), text);
    this.caption.replaceChildren(entry("own", name), best.length ? entry("best", bestName) : "");
    this.range = () => {
      // The first tenth comes down from where nothing is known and would flatten the rest.
      const late = [ours, best].flatMap((points) => points.slice(Math.floor(points.length / 10)).map(([, y]) => y));
      const low = Math.min(...late), high = Math.max(...late), room = (high - low || Math.abs(low) * 0.01 || 1) * 0.08;
      return [low - room, high + room];
    };
    if (this.plot) { this.plot.setData(data); return; }
    const axis = { stroke: () => color("soft"), grid: { stroke: () => color("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const curve = (ink, width) => ({ stroke: () => color(ink), width, spanGaps: true, points: { show: false } });
    this.plot = new uPlot({
      width: Math.max(160, Math.floor(this.box.clientWidth)), height: this.tall, legend: { show: false }, padding: [10, 10, 0, 0],
      cursor: { show: false }, scales: { x: { time: false }, y: { range: () => this.range() } },
      axes: [{ ...axis, grid: { show: false }, size: 28 }, { ...axis, size: 52 }],
      series: [{}, curve("kept", 1.5), curve("own", 2)],
    }, data, this.box);
  }
}

const sorted = (points) => [...points].sort(([a], [b]) => a - b).filter(([x], place, all) => !place || x !== all[place - 1][0]);
