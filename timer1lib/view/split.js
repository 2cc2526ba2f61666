// The handle between table and scrubber: side by side or stacked, and both always in sight. Its neighbours are what the inspector's
// box holds: table, handle, scrubber and, where there is one, the scatter.

const BESIDE = 860; // pixels of width from which on they stand side by side
const KEPT = "timer1-inspector";

function kept() {
  try { return JSON.parse(localStorage.getItem(KEPT)) ?? {}; } catch { return {}; }
}

class Split {
  constructor(model, el) {
    this.el = el;
    this.state = { share: 44, table: 0.34, ...kept() }; // percent of the width; part of the height
    this.toggle = h("button", { type: "button", class: "t1h-toggle", onclick: () => this.turn() });
    this.bar = h("div", { class: "t1h-bar", role: "separator", tabindex: "0", "aria-label": "size of table and scrubber; arrow keys move it" }, h("i", {}));
    this.root = h("div", { class: "t1h-root", "data-lm-suppress-shortcuts": "true" }, this.bar, this.toggle);
    el.append(this.root);
    this.bar.addEventListener("pointerdown", (event) => this.grab(event));
    this.bar.addEventListener("keydown", (event) => this.key(event));
    this.heard = () => this.fit();
    this.seen = new ResizeObserver(this.heard);
    this.seen.observe(el);
    window.addEventListener("resize", this.heard);
  }

  /** Once the page has it: the box, what scrolls it, and the parts. */
  find() {
    this.box = this.el.closest(".t1-inspector");
    if (!this.box) return false;
    this.scrubber = this.box.querySelector(".t1-root");
    this.table = this.box.querySelector(".t1t-root");
    if (!this.scrubber || !this.table) { setTimeout(this.heard, 60); return false; }
    if (this.watching) return true;
    this.watching = true;
    // JupyterLab's outputs scroll too, but grow with what is in them: the notebook's own panel is what has a height
    this.scroller = this.box.closest(".jp-WindowedPanel-outer, .jp-NotebookPanel-notebook");
    for (let node = this.box.parentElement; node && !this.scroller; node = node.parentElement) {
      if (/(auto|scroll)/.test(getComputedStyle(node).overflowY) && node.scrollHeight > node.clientHeight + 8) this.scroller = node;
    }
    for (const node of [this.box, this.scrubber, this.scroller]) if (node) this.seen.observe(node);
    this.table.addEventListener("click", (event) => { if (event.target.closest(".t1t-row, .t1t-card")) this.bringIn(); });
    return true;
  }

  /** What a person chose holds for the kind of screen that it was chosen on. */
  get kind() { return this.box.clientWidth >= BESIDE ? "wide" : "narrow"; }
  get beside() { return this.state[this.kind] ?? this.kind === "wide"; }

  fit() {
    if (!this.el.isConnected || !this.find() || !this.box.clientWidth) return;
    const { box, beside } = this;
    const room = Math.max(420, (this.scroller?.clientHeight ?? window.innerHeight) - 24);
    const stage = this.scrubber.querySelector(".t1-stage").offsetHeight;
    const rest = this.scrubber.offsetHeight - stage;
    box.classList.toggle("t1-beside", beside);
    this.toggle.textContent = beside ? "⬓" : "◧";
    this.toggle.title = beside ? "table above the scrubber" : "table beside the scrubber";
    this.toggle.setAttribute("aria-label", this.toggle.title);
    this.bar.setAttribute("aria-orientation", beside ? "vertical" : "horizontal");
    const set = (name, value) => { if (box.style.getPropertyValue(name) !== value) box.style.setProperty(name, value); };
    set("--t1-share", `${this.state.share}%`);
    const most = beside ? room : room - Math.max(130, Math.min(room - 300, room * this.state.table)) - 14;
    set("--t1-stage", `${Math.round(clamp(most - rest, beside ? 100 : 104, 420))}px`);
    const scrubber = rest + clamp(most - rest, beside ? 100 : 104, 420);
    set("--t1t-height", `${Math.round(beside ? Math.max(scrubber - 2, 300) : Math.max(150, room - scrubber - 14))}px`);
  }

  bringIn() {
    if (!this.scroller) return;
    const [seen, box] = [this.scroller.getBoundingClientRect(), this.scrubber.getBoundingClientRect()];
    if (box.bottom > seen.bottom + 2 || box.top < seen.top - 2) this.box.scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  grab(event) {
    if (event.button !== 0 || !this.find()) return;
    event.preventDefault();
    const box = this.box.getBoundingClientRect();
    const room = Math.max(420, (this.scroller?.clientHeight ?? window.innerHeight) - 24);
    const moved = (e) => {
      if (this.beside) this.state.share = clamp((100 * (e.clientX - box.left)) / box.width, 18, 72);
      else this.state.table = clamp((e.clientY - this.box.getBoundingClientRect().top) / room, 0.15, 0.75);
      this.fit();
    };
    const done = () => { this.bar.removeEventListener("pointermove", moved); this.bar.removeEventListener("pointerup", done); this.keep(); };
    this.bar.setPointerCapture(event.pointerId);
    this.bar.addEventListener("pointermove", moved);
    this.bar.addEventListener("pointerup", done);
  }

  key(event) {
    const way = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!way || !this.find()) return;
    event.preventDefault();
    event.stopPropagation();
    if (this.beside) this.state.share = clamp(this.state.share + 3 * way, 18, 72);
    else this.state.table = clamp(this.state.table + 0.04 * way, 0.15, 0.75);
    this.fit();
    this.keep();
  }

  turn() {
    if (!this.find()) return;
    this.state[this.kind] = !this.beside;
    this.fit();
    this.keep();
  }

  keep() {
    try { localStorage.setItem(KEPT, JSON.stringify(this.state)); } catch { /* a browser without storage */ }
  }

  remove() {
    this.seen.disconnect();
    window.removeEventListener("resize", this.heard);
  }
}

function render({ model, el }) {
  const split = new Split(model, el);
  return () => split.remove();
}

export default { render };
