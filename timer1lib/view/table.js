// The table of samples: filter, sort, select. Every row carries a small timeline. Plain JavaScript for anywidget.
// Filtering and sorting happen here; the kernel hears only which row is selected and which rows are left, in order.

const ROW = 30;
const NOTES = { wrong_label: "wrong label", ambiguous: "ambiguous", note: "remark" };

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Rows that pass the filters, sorted. `state`: {text, type, split, tag, note, of, low, high, sort, way, a, b}. */
export function arrange(rows, state) {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const low = state.low === "" ? -Infinity : Number(state.low);
  const high = state.high === "" ? Infinity : Number(state.high);
  const kept = rows.filter((row) => {
    const value = row.iou[state.of] ?? 0;
    return (!state.type || row.type === state.type) && (!state.split || row.split === state.split) && (!state.tag || row.tags.includes(state.tag))
      && (!state.note || (state.note === "any" ? row.note : row.note === state.note)) && value >= low && value <= high
      && words.every((word) => row.query.toLowerCase().includes(word) || row.id.toLowerCase().includes(word));
  });
  const key = sortKey(state);
  return key ? kept.map((row, i) => [key(row), i, row]).sort((x, y) => (compare(x[0], y[0]) || 0) * state.way || x[1] - y[1]).map((x) => x[2]) : kept;
}

export const difference = (row, state) => (row.iou[state.b] ?? 0) - (row.iou[state.a] ?? 0);

function compare(x, y) {
  if (x === y) return 0;
  if (x === null || x === undefined) return 1;
  if (y === null || y === undefined) return -1;
  return x < y ? -1 : 1;
}

function sortKey({ sort, a, b }) {
  if (!sort) return null;
  if (sort === "difference") return (row) => difference(row, { a, b });
  if (sort === "tags") return (row) => row.tags.join();
  const iou = /^iou:(\d+)$/.exec(sort);
  return iou ? (row) => row.iou[Number(iou[1])] : (row) => row[sort];
}

class Table {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.names = model.get("names");
    this.rollouts = model.get("mode") === "rollouts";
    const last = Math.max(0, this.names.length - 1);
    this.state = { text: "", type: "", split: "", tag: "", note: "", of: this.rollouts ? 0 : last, low: "", high: "", sort: "", way: 1, a: model.get("compare")[0] ?? 0, b: model.get("compare")[1] ?? last };
    this.nodes = new Map();
    this.build();
    this.offs = [["change:rows", () => this.load()], ["change:selected", () => this.mark(true)]].map(([name, handler]) => { model.on(name, handler); return () => model.off(name, handler); });
    this.load();
  }

  columns() {
    const column = (key, label, width, title) => ({ key, label, width, title });
    const head = [column("note", "", "22px", "note"), column("query", "query", "minmax(140px, 1.4fr)"), column("type", "type", "minmax(70px, .6fr)")];
    if (this.rollouts) {
      return [column("step", "step", "52px"), ...head.slice(1), column("line", "rollouts over time", "minmax(150px, 1fr)"), column("mean", "reward", "62px", "mean reward of the group"),
        column("spread", "spread", "62px", "standard deviation of the group's rewards; 0 teaches nothing"), column("best", "best", "56px")];
    }
    return [...head, column("duration", "video s", "58px"), column("length", "window s", "66px"), column("line", "timeline", "minmax(150px, 1fr)"),
      ...this.names.map((name, i) => ({ ...column(`iou:${i}`, name.label, "58px", `IoU of ${name.label}`), iou: i })),
      ...(this.names.length > 1 ? [column("difference", "Δ", "62px", "difference of IoU between two checkpoints")] : []), column("tags", "signature", "minmax(80px, .6fr)")];
  }

  build() {
    const change = (key, read = (v) => v) => (event) => { this.state[key] = read(event.target.value); this.update(); };
    const select = (key, label, options, read) => h("label", {}, label, h("select", { "data-filter": key, onchange: change(key, read) }, ...options.map(([value, text, chosen]) => h("option", { value, selected: chosen }, text))));
    this.selects = {};
    for (const [key, label] of [["split", "split"], ["type", "type"], ["tag", "signature"]]) this.selects[key] = select(key, label, [["", "all"]]);
    const names = (of) => this.names.map((name, i) => [String(i), name.label, i === this.state[of]]);
    const bound = (key, label) => h("input", { type: "number", min: "0", max: "1", step: "0.05", placeholder: label, "aria-label": `IoU ${key === "low" ? "at least" : "at most"}`, "data-filter": key, oninput: change(key) });
    this.count = h("output", { class: "t1t-count", role: "status" });
    const filters = h("form", { class: "t1t-filters", onsubmit: (event) => event.preventDefault(), onreset: () => setTimeout(() => this.reset()) },
      h("label", {}, h("input", { type: "search", placeholder: "search query or id", "aria-label": "search query or id", "data-filter": "text", oninput: change("text") })),
      this.selects.split, this.selects.type, this.rollouts ? null : this.selects.tag,
      this.rollouts ? null : select("note", "note", [["", "all"], ["any", "any"], ...Object.entries(NOTES)]),
      this.rollouts ? null : h("span", { class: "t1t-group" }, select("of", "IoU of", names("of"), Number), bound("low", "0"), "–", bound("high", "1")),
      this.rollouts || this.names.length < 2 ? null : h("span", { class: "t1t-group" }, select("a", "Δ from", names("a"), Number), select("b", "to", names("b"), Number)),
      h("button", { type: "reset", class: "t1t-reset" }, "reset"), this.count);
    const columns = this.columns();
    this.template = columns.map((column) => column.width).join(" ");
    this.headers = columns.map((column) => h("button", { type: "button", role: "columnheader", title: column.title ?? `sort by ${column.label}`, "data-sort": column.key, onclick: () => this.sortBy(column.key) }, column.label || "✎"));
    this.canvas = h("div", { class: "t1t-canvas" });
    this.body = h("div", { class: "t1t-body", role: "rowgroup", tabindex: "0", "aria-label": "samples; up and down choose", onscroll: () => this.draw(), onkeydown: (event) => this.key(event) }, this.canvas);
    this.root = h("section", { class: "t1t-root", "aria-label": "table of samples", "data-lm-suppress-shortcuts": "true", style: `--t1t-columns: ${this.template}` }, filters,
      h("div", { class: "t1t-grid", role: "grid" }, h("div", { class: "t1t-head", role: "row" }, ...this.headers), this.body));
    this.el.append(this.root);
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.body);
  }

  load() {
    this.rows = this.model.get("rows");
    for (const [key, values] of [["split", (row) => [row.split]], ["type", (row) => [row.type]], ["tag", (row) => row.tags]]) {
      const node = this.selects[key].querySelector("select");
      const known = [...new Set(this.rows.flatMap(values))].filter(Boolean).sort((x, y) => x.localeCompare(y, undefined, { numeric: true }));
      node.replaceChildren(h("option", { value: "" }, "all"), ...known.map((value) => h("option", { value, selected: value === this.state[key] }, value)));
      this.selects[key].hidden = known.length < 2 && key !== "tag";
    }
    this.update();
    this.mark(false);
  }

  reset() {
    Object.assign(this.state, { text: "", type: "", split: "", tag: "", note: "", low: "", high: "", sort: "", way: 1 });
    for (const key of ["of", "a", "b"]) { const node = this.root.querySelector(`[data-filter="${key}"]`); if (node) node.value = String(this.state[key]); }
    this.update();
  }

  sortBy(key) {
    if (key === "line") return;
    if (this.state.sort !== key) Object.assign(this.state, { sort: key, way: 1 });
    else if (this.state.way === 1) this.state.way = -1;
    else Object.assign(this.state, { sort: "", way: 1 });
    this.update();
  }

  update() {
    this.shown = arrange(this.rows, this.state);
    this.count.textContent = this.shown.length === this.rows.length ? `${this.rows.length} samples` : `${this.shown.length} of ${this.rows.length} samples`;
    this.headers.forEach((node) => {
      const on = node.dataset.sort === this.state.sort;
      node.setAttribute("aria-sort", on ? (this.state.way > 0 ? "ascending" : "descending") : "none");
    });
    this.canvas.style.height = `${this.shown.length * ROW}px`;
    this.canvas.replaceChildren();
    this.nodes.clear();
    this.draw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.model.set("visible", this.shown.map((row) => row.key)); this.model.save_changes(); }, 60);
  }

  /** Only the rows in view exist as nodes: 17,000 rows are as quick as 20. */
  draw() {
    if (!this.shown) return;
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW) - 4);
    const last = Math.min(this.shown.length, Math.ceil((this.body.scrollTop + (this.body.clientHeight || 300)) / ROW) + 4);
    for (const [i, node] of this.nodes) if (i < first || i >= last) { node.remove(); this.nodes.delete(i); }
    for (let i = first; i < last; i++) if (!this.nodes.has(i)) {
      const node = this.row(this.shown[i], i);
      this.nodes.set(i, node);
      this.canvas.append(node);
    }
  }

  row(row, i) {
    const cells = this.columns().map((column) => this.cell(row, column));
    const node = h("div", { class: "t1t-row", role: "row", id: `t1t-${CSS.escape(row.key)}`, "data-key": row.key, "aria-rowindex": String(i + 2), "aria-selected": String(row.key === this.model.get("selected")), style: `top:${i * ROW}px`,
      onclick: () => this.select(row.key) }, ...cells);
    return node;
  }

  cell(row, column) {
    const wrap = (text, extra = "", title = null) => h("span", { role: "gridcell", class: extra, title }, text);
    if (column.key === "note") return wrap(row.note ? { wrong_label: "✗", ambiguous: "?", note: "✎" }[row.note] : "", "t1t-note", NOTES[row.note]);
    if (column.key === "query") return wrap(row.query, "", row.query);
    if (column.key === "line") return this.line(row);
    if (column.iou !== undefined) return this.number(row.iou[column.iou], row.spans[column.iou] === null);
    if (column.key === "difference") { const d = difference(row, this.state); return wrap(`${d > 0 ? "+" : d < 0 ? "−" : ""}${Math.abs(d).toFixed(2)}`, `t1t-num ${d > 0.005 ? "t1t-up" : d < -0.005 ? "t1t-down" : ""}`); }
    if (column.key === "tags") return wrap(row.tags.join(", "), "", row.tags.join(", "));
    const value = row[column.key];
    return typeof value === "number" ? wrap(Number.isInteger(value) ? String(value) : value.toFixed(2), "t1t-num") : wrap(value ?? "–", "", value);
  }

  number(value, none) {
    return h("span", { role: "gridcell", class: "t1t-num t1t-iou", style: `--v:${value}`, title: none ? "no answer" : null }, none ? "–" : value.toFixed(2));
  }

  line(row) {
    const percent = (t) => Math.min(100, Math.max(0, (100 * t) / row.duration));
    const mark = (span, y, height, colour, opacity = 1) => h("i", { style: `left:${percent(span[0])}%;width:max(2px, ${percent(span[1]) - percent(span[0])}%);top:${y}px;height:${height}px;background:${colour};opacity:${opacity}` });
    const height = 20 / Math.max(1, row.spans.length);
    return h("span", { role: "gridcell", class: "t1t-line" },
      ...row.truth.map((span) => mark(span, 1, 24, "var(--t1t-soft)", 0.32)),
      ...row.spans.map((span, i) => (span && span[1] > span[0] ? mark(span, 3 + i * height, Math.max(1.5, height - 1), this.rollouts ? "#0072b2" : this.names[i].colour) : null)));
  }

  select(key) {
    if (this.model.get("selected") === key) return;
    this.model.set("selected", key);
    this.model.save_changes();
    this.mark(false);
  }

  mark(scroll) {
    const key = this.model.get("selected");
    for (const node of this.nodes.values()) node.setAttribute("aria-selected", String(node.dataset.key === key));
    if (!scroll) return;
    const i = this.shown.findIndex((row) => row.key === key);
    if (i < 0) return;
    const top = i * ROW;
    if (top < this.body.scrollTop || top + ROW > this.body.scrollTop + this.body.clientHeight) this.body.scrollTop = Math.max(0, top - this.body.clientHeight / 2);
    this.draw();
  }

  key(event) {
    const i = this.shown.findIndex((row) => row.key === this.model.get("selected"));
    const page = Math.floor(this.body.clientHeight / ROW);
    const to = { ArrowDown: i + 1, ArrowUp: i - 1, n: i + 1, p: i - 1, PageDown: i + page, PageUp: i - page, Home: 0, End: this.shown.length - 1 }[event.key];
    if (to === undefined || !this.shown.length || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.select(this.shown[Math.min(this.shown.length - 1, Math.max(0, to))].key);
    this.mark(true);
  }

  remove() {
    this.offs.forEach((off) => off());
    this.resize.disconnect();
    clearTimeout(this.timer);
  }
}

function render({ model, el }) {
  const table = new Table(model, el);
  return () => table.remove();
}

export default { render };
