// A scatter of samples: click a point, or move with the arrow keys, to choose one. Plain JavaScript for anywidget.

const NS = "http://www.w3.org/2000/svg";
const [LEFT, TOP, RIGHT, BOTTOM, HEIGHT] = [56, 34, 16, 44, 360];

function s(tag, attributes, ...children) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

function ticks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= rough);
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-6; t += step) found.push(Math.round(t / step) * step);
  return found;
}

class Scatter {
  constructor(model, el) {
    this.model = model;
    this.nodes = new Map();
    this.tip = Object.assign(document.createElement("div"), { className: "t1s-tip", hidden: true });
    this.root = Object.assign(document.createElement("section"), { className: "t1s-root", tabIndex: 0 });
    this.root.dataset.lmSuppressShortcuts = "true";
    this.svg = s("svg", { width: "100%", height: HEIGHT, role: "img" });
    this.root.append(this.svg, this.tip);
    el.append(this.root);
    this.offs = [["change:selected", () => this.mark()], ["change:visible", () => this.dim()], ["change:points", () => { this.width = 0; this.name(); this.draw(); }]].map(([name, handler]) => { model.on(name, handler); return () => model.off(name, handler); });
    this.name();
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.root);
  }

  name() {
    this.root.setAttribute("aria-label", `${this.model.get("title")}; left and right arrows choose`);
    this.svg.setAttribute("aria-label", this.model.get("title"));
  }

  range(axis) {
    const given = this.model.get(`${axis}_range`);
    if (given.length) return given;
    const values = this.model.get("points").map((point) => point[axis]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = (high - low) * 0.06 || 1;
    return [low - pad, high + pad];
  }

  draw() {
    const width = this.root.clientWidth;
    if (!width || width === this.width) return;
    this.width = width;
    const [x0, x1] = this.range("x"), [y0, y1] = this.range("y");
    const wide = Math.min(width - LEFT - RIGHT, this.model.get("diagonal") ? 620 : 1e6);
    this.x = (v) => LEFT + (wide * (v - x0)) / (x1 - x0);
    this.y = (v) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (v - y0)) / (y1 - y0);
    const round = (t) => String(Number(t.toFixed(6)));
    const parts = [s("text", { x: LEFT, y: 18, class: "t1s-title" }, this.model.get("title"))];
    for (const t of ticks(x0, x1)) parts.push(s("path", { d: `M${this.x(t)} ${TOP}V${HEIGHT - BOTTOM}`, class: "t1s-line" }), s("text", { x: this.x(t), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, round(t)));
    for (const t of ticks(y0, y1)) parts.push(s("path", { d: `M${LEFT} ${this.y(t)}H${LEFT + wide}`, class: "t1s-line" }), s("text", { x: LEFT - 8, y: this.y(t) + 4, "text-anchor": "end" }, round(t)));
    if (this.model.get("diagonal")) parts.push(s("path", { d: `M${this.x(0)} ${this.y(0)}L${this.x(1)} ${this.y(1)}`, class: "t1s-diagonal" }));
    parts.push(s("text", { x: LEFT + wide / 2, y: HEIGHT - 8, "text-anchor": "middle" }, this.model.get("x_label")),
      s("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(14 ${(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)` }, this.model.get("y_label")));
    this.nodes.clear();
    for (const point of this.model.get("points")) {
      const node = s("circle", { cx: this.x(point.x), cy: this.y(point.y), r: point.r ?? 5, class: "t1s-point", "data-key": point.key });
      node.addEventListener("click", () => this.select(point.key));
      node.addEventListener("pointerenter", () => this.show(point));
      node.addEventListener("pointerleave", () => { this.tip.hidden = true; });
      this.nodes.set(point.key, node);
      parts.push(node);
    }
    this.ring = s("circle", { r: 10, class: "t1s-ring" });
    parts.push(this.ring);
    this.svg.replaceChildren(...parts);
    this.dim();
    this.mark();
  }

  show(point) {
    this.tip.textContent = point.text;
    this.tip.hidden = false;
    this.tip.style.left = `${Math.min(this.x(point.x) + 12, this.root.clientWidth - 260)}px`;
    this.tip.style.top = `${this.y(point.y) + 10}px`;
  }

  select(key) {
    if (this.model.get("selected") === key) return;
    this.model.set("selected", key);
    this.model.save_changes();
    this.mark();
  }

  mark() {
    const node = this.nodes.get(this.model.get("selected"));
    if (!node || !this.ring) return;
    for (const name of ["cx", "cy"]) this.ring.setAttribute(name, node.getAttribute(name));
    this.ring.setAttribute("r", String(Number(node.getAttribute("r")) + 5));
  }

  dim() {
    const kept = new Set(this.model.get("visible"));
    for (const [key, node] of this.nodes) node.classList.toggle("t1s-off", !kept.has(key));
  }

  key(event) {
    const way = { ArrowRight: 1, ArrowDown: 1, n: 1, ArrowLeft: -1, ArrowUp: -1, p: -1 }[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const kept = this.model.get("visible");
    const at = kept.indexOf(this.model.get("selected"));
    if (kept.length) this.select(kept[Math.min(kept.length - 1, Math.max(0, at + way))]);
  }

  remove() {
    this.offs.forEach((off) => off());
    this.resize.disconnect();
  }
}

function render({ model, el }) {
  const scatter = new Scatter(model, el);
  return () => scatter.remove();
}

export default { render };
