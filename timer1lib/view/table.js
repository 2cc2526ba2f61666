// The table of samples: filter, sort, select. Every row carries a small timeline. Plain JavaScript for anywidget.
// Filtering and sorting happen here; the kernel hears which row is selected, which are left in order, and which two are compared.
// dom.js and cards.js stand before this file.

const ROW = 30;
const NOTES = { wrong_label: "wrong label", ambiguous: "ambiguous", note: "remark" };
const EMPTY = { text: "", type: "", split: "", tag: "", note: "", low: "", high: "", sort: "", way: 1 };

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

export const difference = (row, { a, b }) => (row.iou[b] ?? 0) - (row.iou[a] ?? 0);

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
  if (sort === "line") return (row) => row.truth[0]?.[0] ?? null;
  const [what, i, j] = sort.split(":");
  if (what === "delta") return (row) => difference(row, { a: Number(i), b: Number(j) });
  return what === "iou" ? (row) => row.iou[Number(i)] : (row) => row[sort];
}

/** A state as the part of an address after #, by names of checkpoints, so that it holds where their order is another one. */
export function toHash(state, names, anchor, key) {
  const found = new URLSearchParams();
  if (key) found.set(anchor, key);
  for (const name of ["text", "type", "split", "tag", "note", "low", "high", "sort"]) if (state[name] !== "") found.set(name, state[name]);
  const label = (i) => names[i]?.label ?? "";
  const numbered = /^(iou|delta):(\d+)(?::(\d+))?$/.exec(state.sort);
  if (numbered) found.set("sort", [numbered[1], label(numbered[2]), numbered[3] && label(numbered[3])].filter(Boolean).join(":"));
  if (state.sort && state.way < 0) found.set("way", "-1");
  if (names.length > 1) for (const name of ["of", "a", "b"]) found.set(name, label(state[name]));
  if (state.deltas.length) found.set("deltas", state.deltas.map((pair) => pair.map(label).join("~")).join(","));
  if (state.grid) found.set("grid", "1");
  return `#${found.toString().replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%7E", "~")}`;
}

/** What `toHash` wrote: {key, state}; null where the address is about something else. */
export function fromHash(hash, names, anchor) {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  if (!found.has(anchor)) return null;
  const number = (label) => { const i = names.findIndex((name) => name.label === label); return i < 0 ? null : i; };
  const state = { ...EMPTY, deltas: [] };
  for (const name of ["text", "type", "split", "tag", "note", "low", "high", "sort"]) if (found.has(name)) state[name] = found.get(name);
  const named = /^(iou|delta):(.+)$/.exec(state.sort);
  if (named) {
    const numbers = named[2].split(":").map(number);
    state.sort = numbers.includes(null) ? "" : [named[1], ...numbers].join(":");
  }
  if (found.get("way") === "-1") state.way = -1;
  for (const name of ["of", "a", "b"]) { const i = number(found.get(name)); if (i !== null) state[name] = i; }
  for (const pair of (found.get("deltas") ?? "").split(",").filter(Boolean)) {
    const both = pair.split("~").map(number);
    if (both.length === 2 && !both.includes(null)) state.deltas.push(both);
  }
  state.grid = found.get("grid") === "1";
  return { key: found.get(anchor), state };
}

/** The address's part after #, also where JupyterLab has taken it away before this cell ran. */
function linked(anchor) {
  const entry = performance.getEntriesByType?.("navigation")[0]?.name ?? "";
  return [location.hash, entry.slice(entry.indexOf("#") + 1 || entry.length)].find((hash) => new URLSearchParams(hash.replace(/^#/, "")).has(anchor)) ?? "";
}

class Table {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.names = model.get("names");
    this.rollouts = model.get("mode") === "rollouts";
    this.anchor = this.rollouts ? "group" : "sample";
    const last = Math.max(0, this.names.length - 1);
    const [a, b] = model.get("compare");
    this.state = { ...EMPTY, of: this.rollouts ? 0 : last, a: a ?? 0, b: b ?? last, deltas: [], grid: false };
    this.nodes = new Map();
    this.cards = new Cards(this);
    this.build();
    const heard = [["change:rows", () => this.load()], ["change:selected", () => this.mark(true)], ["change:views", () => this.drawViews()]];
    this.offs = heard.map(([name, handler]) => { model.on(name, handler); return () => model.off(name, handler); });
    const said = (message, buffers) => { if (message?.type === "picture") this.cards.put(message.key, buffers[0] ?? new Uint8Array()); };
    model.on("msg:custom", said);
    this.offs.push(() => model.off("msg:custom", said), listenForFiles(model, (text) => { this.told.textContent = text; }));
    const moved = () => this.follow(location.hash);
    window.addEventListener("hashchange", moved);
    this.offs.push(() => window.removeEventListener("hashchange", moved));
    this.load();
    this.drawViews();
    this.follow(linked(this.anchor));
  }

  /** Shows what an address names. */
  follow(hash) {
    const found = fromHash(hash, this.names, this.anchor);
    if (!found) return;
    Object.assign(this.state, found.state);
    this.showState();
    const row = this.rows.find((one) => one.key === found.key || (found.key && one.id === found.key));
    if (row) { this.select(row.key); this.mark(true); this.el.scrollIntoView?.({ block: "nearest" }); }
    else if (found.key) this.told.textContent = `no sample ${found.key} here`;
  }

  columns() {
    const column = (key, label, width, min, drop, title) => ({ key, label, width, min, drop, title });
    const head = [column("note", "", "22px", 22, 0, "note"), column("query", "query", "minmax(96px, 1.6fr)", 96, 0), column("type", "type", "minmax(70px, .6fr)", 70, 5)];
    if (this.rollouts) {
      return [column("step", "step", "46px", 46, 0), ...head.slice(1), column("line", "rollouts over time", "minmax(90px, 1fr)", 90, 2, "sort by the truth's start"), column("mean", "reward", "58px", 58, 0, "mean reward of the group"),
        column("spread", "spread", "58px", 58, 0, "standard deviation of the group's rewards; 0 teaches nothing"), column("best", "best", "52px", 52, 3)];
    }
    const { a, b } = this.state;
    const named = (i) => this.names[i]?.label ?? "";
    return [...head, column("duration", "video s", "54px", 54, 7), column("length", "window s", "64px", 64, 6), column("line", "timeline", "minmax(90px, 1fr)", 90, 1, "sort by the truth's start"),
      ...this.names.map((name, i) => ({ ...column(`iou:${i}`, name.label, "48px", 48, i === a || i === b ? 0 : 2, `IoU of ${name.label}`), iou: i })),
      ...(this.names.length > 1 ? [column("difference", "Δ", "54px", 54, 0, `IoU of ${named(b)} minus that of ${named(a)}`)] : []),
      ...this.state.deltas.map(([x, y]) => ({ ...column(`delta:${x}:${y}`, "Δ", "66px", 66, 0, `IoU of ${named(y)} minus that of ${named(x)}`), pair: [x, y] })),
      column("tags", "signature", "minmax(70px, .6fr)", 70, 8)];
  }

  build() {
    const change = (key, read = (v) => v) => (event) => { this.state[key] = read(event.target.value); this.changed(key); };
    const select = (key, label, options, read) => h("label", {}, label, h("select", { "data-filter": key, "aria-label": label, onchange: change(key, read) }, ...options.map(([value, text, chosen]) => h("option", { value, selected: chosen }, text))));
    this.selects = {};
    for (const [key, label] of [["split", "split"], ["type", "type"], ["tag", "signature"]]) this.selects[key] = select(key, label, [["", "all"]]);
    const names = (of) => this.names.map((name, i) => [String(i), name.label, i === this.state[of]]);
    const bound = (key, label) => h("input", { type: "number", min: "0", max: "1", step: "0.05", placeholder: label, "aria-label": `IoU ${key === "low" ? "at least" : "at most"}`, "data-filter": key, oninput: change(key) });
    this.count = h("output", { class: "t1t-count", role: "status" });
    this.told = h("span", { class: "t1t-told", role: "status" });
    const add = h("button", { type: "button", class: "t1t-button", "data-do": "delta", title: "keep this difference as a column of its own", onclick: () => this.addDelta() }, "+ column");
    const walk = (how, text, title) => h("button", { type: "button", class: "t1t-button", "data-walk": how, title, onclick: () => this.walk(how, 1) }, text);
    this.face = h("button", { type: "button", class: "t1t-button", "data-do": "grid", "aria-pressed": "false", title: "pictures instead of rows", onclick: () => { this.state.grid = !this.state.grid; this.showState(); } }, "pictures");
    this.search = h("input", { type: "search", placeholder: "search query or id", "aria-label": "search query or id", "data-filter": "text", oninput: change("text") });
    this.more = h("details", { class: "t1t-more-filters" }, h("summary", {}, "filters"), h("div", { class: "t1t-panel" },
      this.selects.split, this.selects.type, this.rollouts ? null : this.selects.tag,
      this.rollouts ? null : select("note", "note", [["", "all"], ["any", "any"], ...Object.entries(NOTES)]),
      this.rollouts ? null : h("span", { class: "t1t-group" }, select("of", "IoU of", names("of"), Number), bound("low", "0"), "–", bound("high", "1"))));
    this.viewList = h("div", { class: "t1t-views" });
    const name = h("input", { type: "text", placeholder: "name of this view", "aria-label": "name of this view", maxlength: "60" });
    const keep = () => { if (name.value.trim()) { this.model.send({ type: "view", name: name.value.trim(), hash: this.hash() }); name.value = ""; } };
    name.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); keep(); } });
    this.link = h("input", { type: "text", readonly: true, "aria-label": "link to this sample and these filters", "data-do": "link", onfocus: () => this.link.select() });
    const views = h("details", { class: "t1t-menu", ontoggle: () => { this.link.value = this.address(); } }, h("summary", {}, "views"), h("div", { class: "t1t-panel" }, this.viewList,
      h("span", { class: "t1t-group" }, name, h("button", { type: "button", class: "t1t-button", "data-do": "save-view", onclick: keep }, "save")),
      h("span", { class: "t1t-group" }, "link", this.link, h("button", { type: "button", class: "t1t-button", "data-do": "copy-link", onclick: () => this.copy() }, "copy"))));
    const export_ = (format, text, title) => h("button", { type: "button", class: "t1t-button", "data-export": format, title, onclick: () => { this.told.textContent = "writing …"; this.model.send({ type: "export", format, keys: this.shown.map((row) => row.key) }); } }, text);
    const files = this.rollouts ? null : h("details", { class: "t1t-menu" }, h("summary", {}, "export"), h("div", { class: "t1t-panel" }, export_("csv", "CSV", "the rows shown, as a table"),
      export_("label-studio", "Label Studio", "the rows shown, as tasks of Label Studio"), export_("fiftyone", "FiftyOne", "the rows shown, as temporal detections of FiftyOne")));
    const pair = this.rollouts || this.names.length < 2 ? null : h("span", { class: "t1t-group" }, select("a", "Δ from", names("a"), Number), select("b", "to", names("b"), Number), this.names.length > 2 ? add : null);
    const walks = this.rollouts ? null : h("span", { class: "t1t-group t1t-walks" }, "next", walk("worst", "worst", `next lowest IoU (w; Shift: back)`),
      ...(pair ? [walk("changed", "changed", "next whose IoU moved by more than 0.1 (c)"), walk("worse", "worse", "next whose IoU fell by more than 0.1 (d)")] : []));
    const filters = h("form", { class: "t1t-filters", onsubmit: (event) => event.preventDefault(), onreset: () => setTimeout(() => this.reset()) },
      this.search, this.more, pair, walks, this.face, views, files, h("button", { type: "reset", class: "t1t-reset" }, "reset"), this.told, this.count);
    this.head = h("div", { class: "t1t-head", role: "row" });
    this.canvas = h("div", { class: "t1t-canvas" });
    this.none = h("div", { class: "t1t-none", hidden: true }, "nothing matches ", h("button", { type: "button", class: "t1t-button", "data-do": "reset", onclick: () => filters.reset() }, "reset the filters"));
    this.body = h("div", { class: "t1t-body", role: "rowgroup", tabindex: "0", "aria-label": "samples; up and down choose", onscroll: () => this.draw(), onkeydown: (event) => this.key(event) }, this.canvas);
    this.grid = h("div", { class: "t1t-grid", role: "grid" }, this.head, this.body);
    this.root = h("section", { class: "t1t-root", "aria-label": "table of samples", "data-lm-suppress-shortcuts": "true" }, filters, this.grid, this.cards.node, this.none);
    this.el.append(this.root);
    this.root.addEventListener("keydown", (event) => { if (event.key === "Escape") this.root.querySelectorAll("details.t1t-menu[open]").forEach((node) => { node.open = false; }); });
    this.resize = new ResizeObserver(() => { const kept = this.sighted; this.layout(); this.draw(); if (kept) this.mark(true); });
    this.resize.observe(this.root);
    this.resize.observe(this.body);
  }

  /** Columns that have room; the others are left out in an order, so that nothing has to be scrolled sideways. */
  layout() {
    const width = (this.root.clientWidth || 900) - 34;
    const all = this.columns();
    const room = () => fits.reduce((sum, column) => sum + column.min + 6, 0);
    let fits = all;
    while (room() > width && fits.some((column) => column.drop)) {
      const most = Math.max(...fits.map((column) => column.drop));
      fits = fits.filter((column) => column !== fits.findLast((one) => one.drop === most));
    }
    const asked = fits.map((column) => column.key + column.title).join();
    if (asked === this.asked) return;
    this.asked = asked;
    this.fits = fits;
    const hidden = all.filter((column) => !fits.includes(column)).map((column) => column.label || column.key);
    this.count.title = hidden.length ? `no room for ${hidden.join(", ")}: make the table wider` : "";
    this.root.style.setProperty("--t1t-columns", fits.map((column) => column.width).join(" "));
    this.head.replaceChildren(...fits.map((column) => this.header(column)));
    this.canvas.replaceChildren();
    this.nodes.clear();
    this.markSort();
  }

  header(column) {
    const parts = column.iou === undefined ? [] : [h("i", { class: "t1t-dot", style: `background:${this.names[column.iou].colour}` })];
    const [run, checkpoint] = column.iou === undefined ? ["", ""] : column.label.split(/\/(?=[^/]*$)/);
    const text = checkpoint ? h("span", { class: "t1t-two" }, h("small", {}, run), checkpoint) : h("span", {}, column.label || "✎");
    const dots = column.pair ? h("span", { class: "t1t-pair" }, ...column.pair.map((i) => h("i", { class: "t1t-dot", style: `background:${this.names[i].colour}` })))
      : column.key === "difference" ? h("span", { class: "t1t-pair" }, ...[this.state.a, this.state.b].map((i) => h("i", { class: "t1t-dot", style: `background:${this.names[i]?.colour}` }))) : null;
    const numeric = /^(iou|delta|difference|length|duration|mean|spread|best|step)/.test(column.key);
    const node = h("button", { type: "button", role: "columnheader", class: numeric ? "t1t-right" : null, title: column.title ?? `sort by ${column.label}`, "data-sort": column.key, onclick: () => this.sortBy(column.key) }, dots, ...parts, text);
    if (!column.pair) return node;
    const drop = () => { this.state.deltas = this.state.deltas.filter((pair) => pair.join() !== column.pair.join()); if (this.state.sort === column.key) this.state.sort = ""; this.showState(); };
    return h("span", { class: "t1t-delta" }, node, h("button", { type: "button", class: "t1t-drop", title: "take this column away", "aria-label": `take away ${column.title}`, onclick: drop }, "×"));
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
    Object.assign(this.state, EMPTY);
    this.showState();
  }

  /** The whole state goes to the screen: after a reset, a link, or a view that was kept. */
  showState() {
    for (const key of ["text", "type", "split", "tag", "note", "low", "high", "of", "a", "b"]) {
      const node = this.root.querySelector(`[data-filter="${key}"]`);
      if (node) node.value = String(this.state[key]);
    }
    this.changed("a");
  }

  changed(key) {
    if (key === "a" || key === "b") {
      const pair = [this.state.a, this.state.b];
      if (this.model.get("compare").join() !== pair.join()) { this.model.set("compare", pair); this.model.save_changes(); }
    }
    this.update();
    this.mark(true);
  }

  addDelta() {
    const pair = [this.state.a, this.state.b];
    if (pair[0] !== pair[1] && !this.state.deltas.some((one) => one.join() === pair.join())) this.state.deltas.push(pair);
    this.showState();
  }

  hash() { return toHash(this.state, this.names, this.anchor, this.model.get("selected")); }
  address() { return location.href.split("#")[0] + this.hash(); }

  copy() {
    this.link.value = this.address();
    this.link.select();
    navigator.clipboard?.writeText(this.link.value).then(() => { this.told.textContent = "link copied"; }, () => { this.told.textContent = "copy the link from its field"; });
  }

  drawViews() {
    const views = Object.entries(this.model.get("views") ?? {}).filter(([, hash]) => new URLSearchParams(hash.replace(/^#/, "")).has(this.anchor));
    this.viewList.replaceChildren(...(views.length ? views.map(([name, hash]) => h("span", { class: "t1t-view" },
      h("button", { type: "button", class: "t1t-button", "data-view": name, onclick: () => this.follow(hash) }, name),
      h("button", { type: "button", class: "t1t-drop", "aria-label": `forget view ${name}`, onclick: () => this.model.send({ type: "view", name, hash: "" }) }, "×"))) : ["no view kept yet"]));
  }

  walk(how, way) { this.model.send({ type: "walk", how, delta: way }); }

  sortBy(key) {
    if (this.state.sort !== key) Object.assign(this.state, { sort: key, way: 1 });
    else if (this.state.way === 1) this.state.way = -1;
    else Object.assign(this.state, { sort: "", way: 1 });
    this.body.scrollTop = 0;
    this.update();
  }

  markSort() {
    this.head.querySelectorAll("[data-sort]").forEach((node) => {
      const on = node.dataset.sort === this.state.sort;
      node.setAttribute("aria-sort", on ? (this.state.way > 0 ? "ascending" : "descending") : "none");
    });
  }

  update() {
    this.shown = arrange(this.rows, this.state);
    this.count.textContent = this.shown.length === this.rows.length ? `${this.rows.length} ${this.rollouts ? "groups" : "samples"}` : `${this.shown.length} of ${this.rows.length} ${this.rollouts ? "groups" : "samples"}`;
    const set = ["split", "type", "tag", "note", "low", "high"].filter((key) => this.state[key] !== "").length;
    this.more.querySelector("summary").textContent = set ? `filters (${set})` : "filters";
    this.face.setAttribute("aria-pressed", String(this.state.grid));
    this.none.hidden = this.shown.length > 0;
    this.grid.hidden = this.state.grid || !this.shown.length;
    this.cards.node.hidden = !this.state.grid || !this.shown.length;
    this.asked = null;
    this.layout();
    this.canvas.style.height = `${this.shown.length * ROW}px`;
    this.canvas.replaceChildren();
    this.nodes.clear();
    this.draw();
    if (this.state.grid) this.cards.draw();
    if (this.shown.length && !this.shown.some((row) => row.key === this.model.get("selected"))) {
      clearTimeout(this.choosing);
      this.choosing = setTimeout(() => { if (this.shown.length && !this.shown.some((row) => row.key === this.model.get("selected"))) { this.body.scrollTop = 0; this.select(this.shown[0].key); } }, 120);
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.model.set("visible", this.shown.map((row) => row.key)); this.model.save_changes(); }, 60);
  }

  /** Only the rows in view exist as nodes: 17,000 rows are as quick as 20. */
  draw() {
    if (!this.shown || this.grid.hidden) return;
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW) - 4);
    const last = Math.min(this.shown.length, Math.ceil((this.body.scrollTop + (this.body.clientHeight || 300)) / ROW) + 4);
    for (const [i, node] of this.nodes) if (i < first || i >= last) { node.remove(); this.nodes.delete(i); }
    for (let i = first; i < last; i++) if (!this.nodes.has(i)) {
      const node = this.row(this.shown[i], i);
      this.nodes.set(i, node);
      this.canvas.append(node);
    }
    this.sighted = this.chosen().inside; // a table that gets smaller keeps it so
  }

  /** Where the chosen row stands, and whether all of it is in sight. */
  chosen() {
    const key = this.model.get("selected");
    const i = this.shown.findIndex((row) => row.key === key);
    const top = i * ROW;
    return { i, top, inside: i >= 0 && top >= this.body.scrollTop && top + ROW <= this.body.scrollTop + this.body.clientHeight };
  }

  row(row, i) {
    const cells = this.fits.map((column) => this.cell(row, column));
    const node = h("div", { class: "t1t-row", role: "row", id: `t1t-${CSS.escape(row.key)}`, "data-key": row.key, "aria-rowindex": String(i + 2), "aria-selected": String(row.key === this.model.get("selected")), style: `top:${i * ROW}px`,
      onclick: () => this.select(row.key) }, ...cells);
    return node;
  }

  cell(row, column) {
    const wrap = (text, extra = "", title = null) => h("span", { role: "gridcell", class: extra, title }, text);
    const change = (d) => wrap(`${d > 0 ? "+" : d < 0 ? "−" : ""}${Math.abs(d).toFixed(2)}`, `t1t-num ${d > 0.005 ? "t1t-up" : d < -0.005 ? "t1t-down" : ""}`);
    if (column.key === "note") return wrap(row.note ? { wrong_label: "✗", ambiguous: "?", note: "✎" }[row.note] : "", "t1t-note", NOTES[row.note]);
    if (column.key === "query") return wrap(row.query, "", row.query);
    if (column.key === "line") return this.line(row);
    if (column.iou !== undefined) return this.number(row.iou[column.iou], !row.spans[column.iou].length);
    if (column.key === "difference") return change(difference(row, this.state));
    if (column.pair) return change(difference(row, { a: column.pair[0], b: column.pair[1] }));
    if (column.key === "tags") return wrap(row.tags.join(", "), "", row.tags.join(", "));
    const value = row[column.key];
    return typeof value === "number" ? wrap(column.key === "step" ? String(value) : value.toFixed(2), "t1t-num") : wrap(value ?? "–", column.key === "length" ? "t1t-num" : "", value);
  }

  number(value, none) {
    return h("span", { role: "gridcell", class: "t1t-num t1t-iou", style: `--v:${value}`, title: none ? "no answer" : null }, none ? "–" : value.toFixed(2));
  }

  /** The truth stands above the answers, and no bar lies over it. */
  line(row) {
    const percent = (t) => Math.min(100, Math.max(0, (100 * t) / row.duration));
    const mark = (span, y, height, colour, name) => h("i", { class: name, style: `left:${percent(span[0])}%;width:max(2px, ${percent(span[1]) - percent(span[0])}%);top:${y}px;height:${height}px;background:${colour}` });
    const height = 17 / Math.max(1, row.spans.length);
    return h("span", { role: "gridcell", class: "t1t-line" },
      ...row.truth.map((span) => mark(span, 1, 6, "var(--t1t-soft)", "t1t-truth")),
      ...row.spans.flatMap((spans, i) => spans.filter((span) => span[1] > span[0]).map((span) => mark(span, 8 + i * height, Math.max(1.5, height - 0.7), this.rollouts ? "#0072b2" : this.names[i].colour, "t1t-answer"))));
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
    this.cards.mark(scroll);
    if (!scroll) return;
    const { i, top, inside } = this.chosen();
    if (i < 0) return;
    if (!inside) this.body.scrollTop = Math.max(0, top - this.body.clientHeight / 2);
    this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const how = { w: "worst", c: "changed", d: "worse" }[event.key.toLowerCase()];
    const i = this.shown.findIndex((row) => row.key === this.model.get("selected"));
    const page = Math.max(1, Math.floor(this.body.clientHeight / ROW));
    const to = { ArrowDown: i + 1, ArrowUp: i - 1, ...(this.state.grid ? { ArrowRight: i + 1, ArrowLeft: i - 1 } : {}), n: i + 1, p: i - 1, PageDown: i + page, PageUp: i - page, Home: 0, End: this.shown.length - 1 }[event.key];
    if ((to === undefined && (!how || this.rollouts)) || !this.shown.length) return;
    event.preventDefault();
    event.stopPropagation();
    if (how) { this.walk(how, event.shiftKey ? -1 : 1); return; }
    this.select(this.shown[Math.min(this.shown.length - 1, Math.max(0, to))].key);
    this.mark(true);
  }

  remove() {
    this.offs.forEach((off) => off());
    this.resize.disconnect();
    this.cards.remove();
    clearTimeout(this.timer);
    clearTimeout(this.choosing);
  }
}

function render({ model, el }) {
  const table = new Table(model, el);
  return () => table.remove();
}

export default { render };
