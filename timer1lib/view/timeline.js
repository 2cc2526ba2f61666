// The part of a video that the timeline shows: zoom, pan, ticks, and a map of the whole.

const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
const CLOSEST = 0.25; // seconds across the timeline at most zoom

export function tickStep(seconds, width) {
  const most = Math.max(2, width / 74);
  return STEPS.find((step) => seconds / step <= most) ?? 14400;
}

/** Ticks between two times: [[seconds, text]]. `whole` decides between seconds, mm:ss and h:mm:ss. */
export function ticks(start, end, width, whole) {
  const step = tickStep(end - start, width);
  const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
  const found = [];
  for (let i = Math.ceil(start / step - 1e-9); i * step <= end + 1e-9; i++) found.push([i * step, stamp(i * step, whole, digits)]);
  return found;
}

/** The shown part [start, end] of `whole` seconds. */
export class View {
  constructor() { this.fit(1); }
  fit(whole) { this.whole = whole; this.show(0, whole); }
  get span() { return this.end - this.start; }
  get zoomed() { return this.span < this.whole * 0.9995; }
  percent(t) { return (100 * (t - this.start)) / this.span; }
  time(share) { return this.start + share * this.span; }
  show(start, end) {
    const span = clamp(end - start, Math.min(CLOSEST, this.whole), this.whole);
    this.start = clamp((start + end - span) / 2, 0, this.whole - span);
    this.end = this.start + span;
  }
  /** Times `factor` as much time is shown; the time `at` keeps its place. */
  zoom(factor, at) {
    const span = clamp(this.span * factor, Math.min(CLOSEST, this.whole), this.whole);
    const start = clamp(at - ((at - this.start) / this.span) * span, 0, this.whole - span);
    [this.start, this.end] = [start, start + span];
  }
  pan(seconds) {
    const start = clamp(this.start + seconds, 0, this.whole - this.span);
    [this.start, this.end] = [start, start + this.span];
  }
}

/** The whole video in one line, with a window that can be dragged and pulled at both ends. */
class MiniMap {
  constructor(view, changed) {
    this.view = view;
    this.changed = changed;
    this.marks = h("div", { class: "t1-map-marks" });
    this.ends = [0, 1].map((side) => h("i", { class: `t1-map-end t1-map-end-${side}`, "data-map": side ? "end" : "start" }));
    this.window = h("div", { class: "t1-map-window", role: "slider", tabindex: "0", "aria-label": "part of the video that is shown", "data-map": "window" }, ...this.ends);
    this.head = h("i", { class: "t1-map-head" });
    this.node = h("div", { class: "t1-map", title: "the whole video: drag the window, or pull at its ends" }, this.marks, this.head, this.window);
    this.node.addEventListener("pointerdown", (event) => this.grab(event));
    this.window.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      this.view.pan(way * this.view.span * 0.25);
      this.changed();
    });
  }

  grab(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation();
    const box = this.node.getBoundingClientRect();
    const at = (e) => (clamp((e.clientX - box.left) / box.width, 0, 1)) * this.view.whole;
    const side = this.ends.indexOf(event.target);
    if (side < 0 && !this.window.contains(event.target)) { this.view.pan(at(event) - (this.view.start + this.view.end) / 2); this.changed(); }
    let [from, start, end] = [at(event), this.view.start, this.view.end];
    const moved = (e) => {
      const t = at(e);
      if (side === 0) this.view.show(Math.min(t, end - CLOSEST), end);
      else if (side === 1) this.view.show(start, Math.max(t, start + CLOSEST));
      else { this.view.pan(t - from); from = t; }
      this.changed();
    };
    const done = () => { this.node.removeEventListener("pointermove", moved); this.node.removeEventListener("pointerup", done); this.node.removeEventListener("pointercancel", done); };
    this.node.setPointerCapture(event.pointerId);
    this.node.addEventListener("pointermove", moved);
    this.node.addEventListener("pointerup", done);
    this.node.addEventListener("pointercancel", done);
  }

  /** `rows`: [{spans, colour}], the truth first. */
  fill(rows) {
    const percent = (t) => (100 * t) / this.view.whole;
    const height = 100 / Math.max(1, rows.length);
    this.marks.replaceChildren(...rows.flatMap(({ spans, colour }, i) => spans.map(([start, end]) =>
      h("i", { style: `left:${percent(start)}%;width:max(2px,${percent(Math.max(0, end - start))}%);top:${i * height}%;height:${height}%;background:${colour}` }))));
  }

  place(time) {
    const percent = (t) => (100 * t) / this.view.whole;
    this.window.style.left = `${percent(this.view.start)}%`;
    this.window.style.width = `${percent(this.view.span)}%`;
    this.window.setAttribute("aria-valuetext", `${stamp(this.view.start, this.view.whole)} to ${stamp(this.view.end, this.view.whole)}`);
    this.head.style.left = `${percent(time)}%`;
    for (const node of [this.node, ...(this.beside ?? [])]) node.hidden = !this.view.zoomed && this.view.whole < LONG;
  }
}
