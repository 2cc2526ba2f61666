// The table's other face: a card a sample, with pictures and every answer's bar, to read fifty at a glance.

const PAGE = 50;

class Cards {
  /** `table` has rows in order (`shown`), names and select(key); the kernel is asked for pictures of what is near the screen. */
  constructor(table) {
    this.table = table;
    this.pictures = new Map();
    this.nodes = new Map();
    this.many = PAGE;
    this.node = h("div", { class: "t1t-cards", role: "listbox", tabindex: "0", "aria-label": "samples as pictures", hidden: true, onkeydown: (event) => table.key(event) });
    this.seen = new IntersectionObserver((entries) => {
      const keys = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target.dataset.key).filter((key) => !this.pictures.has(key));
      keys.forEach((key) => this.pictures.set(key, ""));
      if (keys.length) table.model.send({ type: "pictures", keys });
    }, { rootMargin: "200px" });
  }

  draw() {
    this.seen.disconnect();
    this.nodes.clear();
    const rows = this.table.shown.slice(0, this.many);
    const left = this.table.shown.length - rows.length;
    const more = left > 0 ? h("button", { type: "button", class: "t1t-more", onclick: () => { this.many += PAGE; this.draw(); } }, `${Math.min(PAGE, left)} more of ${left}`) : null;
    this.node.replaceChildren(...rows.map((row) => this.card(row)), ...(more ? [more] : []));
    this.mark(false);
  }

  card(row) {
    const table = this.table;
    const percent = (t) => clamp((100 * t) / row.duration, 0, 100);
    const lane = (spans, colour, name) => h("div", { class: "t1t-lane", title: name }, ...spans.map((span) => h("i", { style: `left:${percent(span[0])}%;width:max(2px,${percent(span[1]) - percent(span[0])}%);background:${colour}` })));
    const picture = h("div", { class: "t1t-picture" });
    const scores = table.rollouts ? [`step ${row.step}`, `reward ${row.mean.toFixed(2)}`]
      : row.iou.map((value, i) => h("span", { title: `IoU of ${table.names[i].label}` }, h("i", { class: "t1t-dot", style: `background:${table.names[i].colour}` }), row.spans[i].length ? value.toFixed(2) : "–"));
    const node = h("div", { class: "t1t-card", role: "option", "data-key": row.key, "aria-selected": "false", title: row.query, onclick: () => table.select(row.key) },
      picture, lane(row.truth, "var(--t1t-soft)", "truth"), ...row.spans.map((spans, i) => lane(spans, table.rollouts ? "#0072b2" : table.names[i].colour, table.rollouts ? "" : table.names[i].label)),
      h("div", { class: "t1t-said" }, row.query), h("div", { class: "t1t-scores" }, ...scores));
    this.nodes.set(row.key, node);
    this.paint(row.key);
    this.seen.observe(node);
    return node;
  }

  /** Pictures of one sample have come. */
  put(key, bytes) {
    this.pictures.set(key, bytes.byteLength ? URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })) : "");
    this.paint(key);
  }

  paint(key) {
    const url = this.pictures.get(key);
    const node = this.nodes.get(key);
    if (url && node) { node.querySelector(".t1t-picture").style.backgroundImage = `url(${url})`; node.dataset.painted = "1"; }
  }

  mark(scroll) {
    const key = this.table.model.get("selected");
    for (const [name, node] of this.nodes) node.setAttribute("aria-selected", String(name === key));
    if (scroll) this.nodes.get(key)?.scrollIntoView({ block: "nearest" });
  }

  remove() {
    this.seen.disconnect();
    for (const url of this.pictures.values()) if (url) URL.revokeObjectURL(url);
  }
}
