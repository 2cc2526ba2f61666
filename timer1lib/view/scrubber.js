// The segment scrubber: a video over a timeline of who says what happens when. Plain JavaScript for anywidget.
//
// The kernel sends `item` (what to show), then `media` with the bytes of a playable copy, the times of its frames and
// a strip of thumbnails. Everything that moves under the hand (seeking, edges, IoU, reward) is computed here.
// Of a long video it first sends a copy with few frames; where the timeline is zoomed in, `media.part` names the seconds of a fine one.
// dom.js, timeline.js and history.js stand before this file.

/** IoU of two segments in seconds: the same rules as timer1lib.spans.iou (a test holds them together). */
export function iou(a, b) {
  if (!a || !b || ![...a, ...b].every(Number.isFinite) || a[1] <= a[0] || b[1] <= b[0]) return 0;
  const intersection = Math.min(a[1], b[1]) - Math.max(a[0], b[0]);
  return intersection <= 0 ? 0 : intersection / (Math.max(a[1], b[1]) - Math.min(a[0], b[0]));
}

function tiou(span, truth, duration) {
  const overlap = iou(span, truth);
  if (overlap === 0 || duration <= 0) return 0;
  const start = Math.max(0, 1 - Math.abs(span[0] - truth[0]) / duration);
  const end = Math.max(0, 1 - Math.abs(span[1] - truth[1]) / duration);
  return overlap * start * end;
}

/** The union of segments as sorted, disjoint ones: timer1lib.spans.merge. */
function merged(spans) {
  const found = [];
  for (const [start, end] of spans.filter(([a, b]) => a <= b).sort((x, y) => x[0] - y[0])) {
    if (found.length && start <= found.at(-1)[1]) found.at(-1)[1] = Math.max(found.at(-1)[1], end);
    else found.push([start, end]);
  }
  return found;
}

/** IoU of an answer that is a set of segments with the set of true ones: shared seconds over covered seconds. */
export function setIou(spans, truths) {
  const [a, b] = [merged(spans), merged(truths)];
  const length = (all) => all.reduce((sum, [start, end]) => sum + end - start, 0);
  const shared = a.reduce((sum, x) => sum + b.reduce((part, y) => part + Math.max(0, Math.min(x[1], y[1]) - Math.max(x[0], y[0])), 0), 0);
  const covered = length(a) + length(b) - shared;
  return covered > 0 ? shared / covered : 0;
}

/** Rewards of timer1lib.rewards that depend on the segment: (span, truth, duration, form) -> number. */
export const REWARDS = {
  iou: (span, truth) => iou(span, truth),
  tiou: (span, truth, duration) => tiou(span, truth, duration),
  tiou_centered(span, truth, duration) {
    const value = tiou(span, truth, duration);
    if (value === 0) return 0;
    const [a, b] = [span[1] - span[0], truth[1] - truth[0]];
    return (value * Math.min(a, b)) / Math.max(a, b);
  },
  format: (span, truth, duration, form) => Number(form),
  tvg_r1: (span, truth, duration, form) => 0.9 * iou(span, truth) + 0.1 * Number(form),
};

/** Index of the frame on screen at `time`: the last one that does not start after it. */
export function frameAt(frames, time) {
  let low = 0, high = frames.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (frames[middle] <= time + 1e-6) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** A media time safely inside frame `index`, so that rounding in the decoder cannot show its neighbour. */
export function insideFrame(frames, index, duration) {
  const next = index + 1 < frames.length ? frames[index + 1] : Math.max(duration, frames[index] + 0.001);
  return (frames[index] + next) / 2;
}

const PATTERNS = {
  diagonal: "repeating-linear-gradient(45deg, #0000 0 4px, var(--t1-hatch) 4px 7px)",
  back: "repeating-linear-gradient(-45deg, #0000 0 4px, var(--t1-hatch) 4px 7px)",
  vertical: "repeating-linear-gradient(90deg, #0000 0 5px, var(--t1-hatch) 5px 8px)",
  cross: "repeating-linear-gradient(45deg, #0000 0 5px, var(--t1-hatch) 5px 7px), repeating-linear-gradient(-45deg, #0000 0 5px, var(--t1-hatch) 5px 7px)",
  dots: "radial-gradient(circle, var(--t1-hatch) 1.7px, #0000 2.2px) 0 0 / 8px 8px",
};
const REWARD_NAMES = { tiou: "tIoU", iou: "IoU", tiou_centered: "tIoU·len", format: "form", tvg_r1: "TVG-R1" };
const LABELS = [["", "no note"], ["wrong_label", "wrong label"], ["ambiguous", "ambiguous"], ["note", "remark"]];
const KEYS = [
  ["space", "play or pause"], ["← →", "one frame (Shift: one second)"], ["s  e", "start / end of the chosen row"],
  ["1 2 3 …", "choose a row (0: truth)"], ["n  p", "next / previous sample"], ["w", "next worst (Shift: back)", "worst"],
  ["c", "next that changed (Shift: back)", "changed"], ["d", "next that got worse (Shift: back)", "worse"], ["Enter on a bar", "play it"],
  ["← → on an edge", "move it one frame"], ["l", "loop the chosen row"], ["<  >", "slower / faster"], ["+  −", "zoom at the playhead"],
  ["z  a", "zoom to the chosen row / show all"], ["[  ]", "pan left / right"], ["wheel", "on pictures, ruler or map: zoom (on rows with Ctrl, or pinch); Shift: pan"], ["r", "undo edits"],
];

const SPEEDS = [0.25, 0.5, 1, 1.5, 2, 4];

class Scrubber {
  constructor(model, el) {
    this.model = model;
    this.item = null;
    this.frames = new Float64Array();
    this.urls = [];
    this.edits = new Map();
    this.chosen = null;
    this.time = 0;
    this.stopAt = null;
    this.loop = null;
    this.rate = 1;
    this.view = new View();
    this.build(el);
    this.listen("change:item", () => this.showItem());
    this.listen("change:media", () => this.showMedia());
    this.listen("change:saved", () => this.showSaved());
    this.listen("msg:custom", (message) => this.showValues(message));
    this.off.push(listenForFiles(model, (text) => { this.told.textContent = text; }));
    this.showItem();
    this.showMedia();
    model.send({ type: "ready" });
  }

  listen(name, handler) {
    this.model.on(name, handler);
    (this.off ??= []).push(() => this.model.off(name, handler));
  }

  build(el) {
    this.video = h("video", { muted: true, playsinline: true, preload: "auto", tabindex: "-1", "aria-label": "video" });
    this.video.muted = true;
    this.cover = h("div", { class: "t1-cover", role: "status" });
    this.clock = h("output", { class: "t1-clock", "aria-live": "off" });
    this.playButton = h("button", { type: "button", class: "t1-icon", title: "play or pause (space)", "aria-label": "play", onclick: () => this.toggle() }, drawn("play"));
    const icon = (text, label, action) => h("button", { type: "button", class: "t1-icon", title: label, "aria-label": label, onclick: action }, drawn(text));
    this.place = h("span", { class: "t1-place" });
    this.loopButton = icon("loop", "loop the chosen row (l)", () => this.toggleLoop());
    this.loopButton.setAttribute("aria-pressed", "false");
    this.speed = h("select", { class: "t1-speed", title: "speed (< and >)", "aria-label": "speed", onchange: () => this.setRate(Number(this.speed.value)) },
      ...SPEEDS.map((rate) => h("option", { value: rate, selected: rate === 1 }, `${rate}×`)));
    const zoom = h("div", { class: "t1-zoom", role: "toolbar", "aria-label": "zoom" },
      icon("wider", "show more (−)", () => this.zoomBy(2, this.time)), icon("closer", "zoom in (+)", () => this.zoomBy(0.5, this.time)), icon("whole", "show all (a)", () => this.showAll()));
    this.zoomTools = zoom;
    const transport = h("div", { class: "t1-transport", role: "toolbar", "aria-label": "playback" },
      icon("first", "start of the chosen row (s)", () => this.jump(0)), icon("back", "one frame back (left)", () => this.step(-1)), this.playButton,
      icon("on", "one frame on (right)", () => this.step(1)), icon("last", "end of the chosen row (e)", () => this.jump(1)), this.loopButton, this.speed,
      h("span", { class: "t1-grow" }), icon("up", "previous sample (p)", () => this.move(-1)), this.place, icon("down", "next sample (n)", () => this.move(1)));
    this.query = h("h3", { class: "t1-query" });
    this.facts = h("p", { class: "t1-facts" });
    this.tabs = h("div", { class: "t1-tabs", role: "tablist", "aria-label": "whose text" });
    this.text = h("div", { class: "t1-text", role: "tabpanel", tabindex: "0" });
    this.lanes = h("div", { class: "t1-lanes" });
    this.thumbs = h("div", { class: "t1-thumbs", "aria-hidden": "true" });
    this.part = h("span", { class: "t1-part" });
    this.axis = h("div", { class: "t1-axis", "aria-hidden": "true" });
    this.map = new MiniMap(this.view, () => this.looked());
    this.history = new History({ view: this.view, choose: (key) => this.model.send({ type: "select", key }), play: (span) => this.play(span) });
    this.head = h("div", { class: "t1-head", role: "slider", tabindex: "0", "aria-label": "playhead" });
    this.over = h("div", { class: "t1-over" }, this.head);
    this.grid = h("div", { class: "t1-grid", role: "group", "aria-label": "timeline" });
    this.note = this.noteForm();
    this.keys = h("dl", {});
    const help = h("details", { class: "t1-help" }, h("summary", {}, "keys"), this.keys);
    this.told = h("span", { class: "t1-told", role: "status" });
    const keep = h("div", { class: "t1-keep", role: "toolbar", "aria-label": "export" },
      h("button", { type: "button", title: "the timeline as it is shown, as an SVG file", "data-keep": "svg", onclick: () => this.keepSvg() }, "SVG"),
      h("button", { type: "button", title: "the chosen row's segment as an mp4 file, from the video itself", "data-keep": "mp4", onclick: () => this.keepClip() }, "mp4"), this.told);
    this.root = h("section", { class: "t1-root", tabindex: "0", "aria-label": "segment scrubber", "data-lm-suppress-shortcuts": "true" },
      h("div", { class: "t1-top" },
        h("div", { class: "t1-screen" }, h("div", { class: "t1-stage" }, this.video, this.cover, this.clock), transport),
        h("div", { class: "t1-side" }, this.query, this.facts, this.tabs, this.text)),
      this.grid, this.history.node, h("div", { class: "t1-bottom" }, this.note, keep, help));
    el.append(this.root);
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.video.addEventListener("seeked", () => { this.seeking = false; this.settle(); });
    this.video.addEventListener("play", () => this.playing(true));
    this.video.addEventListener("pause", () => this.playing(false));
    this.video.addEventListener("ended", () => { this.playing(false); this.again(); });
    this.video.addEventListener("error", () => this.video.src && this.say("the browser cannot play this copy"));
    this.resize = new ResizeObserver(() => { this.drawAxis(); this.align(); });
    this.resize.observe(this.root);
    this.grid.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.pinch();
  }

  noteForm() {
    this.labels = LABELS.map(([value, text]) => {
      const input = h("input", { type: "radio", name: `t1-label-${Math.random()}`, value });
      return { value, input, node: h("label", {}, input, text) };
    });
    for (const label of this.labels) label.input.name = this.labels[0].input.name;
    this.remark = h("textarea", { rows: "1", placeholder: "what you saw", "aria-label": "free text of the note" });
    this.repair = h("input", { type: "checkbox" });
    this.repairLabel = h("label", { class: "t1-repair", hidden: true }, this.repair, h("span", {}));
    this.saved = h("span", { class: "t1-saved", role: "status" });
    return h("form", { class: "t1-note", "aria-label": "note on this sample", onsubmit: (event) => { event.preventDefault(); this.saveNote(); } },
      h("fieldset", {}, h("legend", {}, "note"), ...this.labels.map((label) => label.node)), this.remark, this.repairLabel,
      h("button", { type: "submit", class: "t1-save" }, "Save"), this.saved);
  }

  // ---- what is shown

  showItem() {
    const item = this.model.get("item");
    if (!item || !item.key) { this.query.textContent = "choose a sample"; return; }
    const fresh = !this.item || this.item.key !== item.key;
    this.item = item;
    if (fresh) {
      this.video.pause();
      this.edits.clear();
      this.valued = null;
      this.stopAt = this.loop = null;
      this.loopButton.setAttribute("aria-pressed", "false");
      this.told.textContent = "";
      this.time = 0;
      this.view.fit(item.duration);
      const keep = item.rows.some((row) => row.key === this.chosen) && !item.rows.some((row) => row.reward !== null);
      this.chosen = keep ? this.chosen : (item.rows.find((row) => row.reward !== null) ?? item.rows.at(-1))?.key ?? "truth";
      if (this.model.get("media").key !== item.key) this.clearMedia("loading the video …");
      else if (this.root.dataset.media !== item.key) this.showMedia(); // came back before the other one's video was here
    }
    this.query.textContent = item.query || item.id;
    this.facts.replaceChildren(
      ...item.facts.map(([name, value]) => h("span", { title: name }, value)), ...item.tags.map((tag) => h("span", { class: "t1-tag" }, tag)));
    this.place.textContent = item.count > 1 ? `${item.index + 1} / ${item.count}` : "";
    this.drawLanes();
    this.drawText();
    this.showNote();
    this.showTime(this.time);
    this.history.show(item.history, item.truth);
    this.align();
    const known = [...(item.walks ?? [])].join();
    if (this.keys.dataset.walks !== known) {
      this.keys.dataset.walks = known;
      this.keys.replaceChildren(...KEYS.filter(([, , walk]) => !walk || known.includes(walk)).flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]));
    }
    this.root.dataset.key = item.key;
  }

  clearMedia(message, keepThumbs = false) {
    delete this.root.dataset.media;
    const old = this.urls.splice(0);
    if (keepThumbs) this.urls = old.filter((url) => this.thumbs.style.backgroundImage.includes(url));
    old.filter((url) => !this.urls.includes(url)).forEach((url) => URL.revokeObjectURL(url));
    this.frames = new Float64Array();
    this.video.removeAttribute("src");
    this.video.load();
    // A file that is taken away ends no seek and fires no pause.
    this.seeking = false;
    this.target = undefined;
    this.playing(false);
    if (!keepThumbs) this.thumbs.style.backgroundImage = "";
    this.say(message);
  }

  say(message) {
    this.cover.textContent = message;
    this.cover.hidden = !message;
  }

  showMedia() {
    const media = this.model.get("media");
    if (!media || !media.key || !this.item || media.key !== this.item.key) return;
    if (media.error) return this.clearMedia(media.error);
    this.clearMedia("", Boolean(media.part));
    const bytes = (name) => { const view = this.model.get(name); return new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength); };
    const url = (name, type) => { const made = URL.createObjectURL(new Blob([bytes(name)], { type })); this.urls.push(made); return made; };
    this.offset = media.part ? media.part[0] : 0;
    this.frames = new Float64Array(bytes("frames").slice().buffer).map((t) => t + this.offset);
    this.mediaDuration = this.offset + media.duration;
    this.root.style.setProperty("--t1-aspect", `${media.width} / ${media.height}`);
    this.root.classList.toggle("t1-pixels", media.width <= 160);
    this.video.src = url("video", media.mime);
    this.video.playbackRate = this.rate;
    if (media.thumbs && !media.part) {
      this.thumbs.style.backgroundImage = `url(${url("thumbs", "image/jpeg")})`;
      this.thumbs.style.aspectRatio = `${media.strip[0]} / ${media.strip[1]}`;
    }
    this.seek(this.time);
    this.root.dataset.media = media.key;
    this.root.dataset.part = media.part ? media.part.join("-") : "";
  }

  lane(key, label, cells, value, extra = "") {
    const pick = h("button", { type: "button", class: `t1-name ${extra}`, "aria-pressed": String(key === this.chosen), onclick: () => this.choose(key) }, ...label);
    const track = h("div", { class: `t1-track ${extra}`, "data-row": key }, ...cells);
    this.scrubbable(track);
    const number = h("div", { class: `t1-value ${extra}`, "data-value": key }, ...value);
    return [pick, track, number];
  }

  rowsShown() {
    return [{ key: "truth", label: "truth", colour: this.item.truth_colour, pattern: "solid", truth: true }, ...this.item.rows];
  }

  spans(row) {
    const own = row.truth ? this.item.truth : row.spans;
    return own.map((span, i) => this.edits.get(`${row.key}:${i}`) ?? span);
  }

  drawLanes() {
    const rows = this.rowsShown();
    const many = rows.length > 6;
    const cells = [];
    cells.push(h("div", { class: "t1-name t1-quiet" }, ""), this.thumbs, h("div", { class: "t1-value t1-quiet" }, this.part));
    cells.push(h("div", { class: "t1-name t1-quiet" }, this.zoomTools), this.axis,
      h("div", { class: "t1-value t1-quiet" }, h("span", { class: "t1-times" }, this.item.duration < LONG ? "start – end, s" : "start – end"), h("b", {}, "IoU"), h("span", { title: "the reward that is computed while an edge is dragged" }, REWARD_NAMES[this.item.reward] ?? this.item.reward),
        this.item.rows.some((row) => row.reward !== null) ? h("span", { title: "the reward that training gave, all its parts together" }, "logged") : null));
    for (const row of rows) {
      const swatch = h("i", { class: "t1-swatch", style: this.paint(row) });
      const bars = this.spans(row).map((span, i) => this.bar(row, span, i));
      const missing = bars.length ? null : h("em", { class: "t1-none" }, row.error ?? "no answer");
      cells.push(...this.lane(row.key, [swatch, h("span", { class: "t1-label", title: row.label }, row.label)], [...bars, missing], [], many ? "t1-slim" : ""));
    }
    this.thinking = h("div", { class: "t1-track t1-thinking", "data-row": "thinking" });
    this.scrubbable(this.thinking);
    cells.push(h("div", { class: "t1-name t1-quiet" }, "in the text"), this.thinking, h("div", { class: "t1-value t1-quiet" }, ""));
    this.map.beside = [h("div", { class: "t1-name t1-quiet" }, ""), h("div", { class: "t1-value t1-quiet" }, "")];
    cells.push(this.map.beside[0], this.map.node, this.map.beside[1]);
    cells.forEach((cell, i) => { cell.style.gridRow = String(Math.floor(i / 3) + 1); cell.style.gridColumn = String((i % 3) + 1); });
    const held = this.grid.contains(document.activeElement); // else the next key would be the page's own
    this.grid.replaceChildren(...cells, this.over);
    if (held) this.root.focus({ preventScroll: true });
    this.grid.classList.toggle("t1-logged", this.item.rows.some((row) => row.reward !== null));
    this.over.style.gridRow = `1 / span ${rows.length + 3}`;
    this.map.fill(rows.map((row) => ({ spans: this.spans(row), colour: row.colour })));
    for (const node of [this.thumbs, this.axis, this.head]) this.scrubbable(node);
    this.values();
    this.looked();
  }

  paint(row) {
    return `background: ${row.pattern === "solid" ? "" : `${PATTERNS[row.pattern]}, `}${row.colour}`;
  }

  bar(row, span, i) {
    const id = `${row.key}:${i}`;
    const edge = (side) => {
      const node = h("span", { class: `t1-edge t1-edge-${side}`, role: "slider", tabindex: "0", "data-edge": `${id}:${side}`,
        "aria-label": `${row.label}: ${side ? "end" : "start"} in seconds`, "aria-valuemin": "0", "aria-valuemax": String(this.item.duration) });
      this.draggable(node, row, i, side);
      node.addEventListener("keydown", (event) => this.edgeKey(event, row, i, side));
      return node;
    };
    const node = h("div", { class: "t1-bar", role: "button", tabindex: "0", "data-bar": id, style: this.paint(row),
      onkeydown: (event) => { if (event.key === "Enter" && event.target === node) { event.preventDefault(); event.stopPropagation(); this.play(this.spans(row)[i]); } } },
      edge(0), edge(1));
    node.addEventListener("focus", () => this.choose(row.key));
    this.placeBar(node, span);
    return node;
  }

  placeBar(node, span) {
    const percent = (t) => this.view.percent(t);
    const [start, end] = [clamp(span[0], 0, this.item.duration), clamp(span[1], 0, this.item.duration)];
    const backwards = span[1] <= span[0];
    node.placed = span;
    node.style.left = `${percent(Math.min(start, end))}%`;
    node.style.width = `${Math.max(0.25, Math.abs(percent(end) - percent(start)))}%`;
    node.classList.toggle("t1-backwards", backwards);
    const said = spanText(span, this.item.duration);
    node.title = `${said}${backwards ? " (ends before it starts)" : ""}: click to play, drag an edge to try`;
    const label = node.dataset.bar?.split(":")[0] ?? "named in the text";
    node.setAttribute("aria-label", `${label}: ${said}; Enter plays it`);
    node.querySelectorAll(".t1-edge").forEach((edge, side) => {
      edge.setAttribute("aria-valuenow", span[side].toFixed(3));
      edge.setAttribute("aria-valuetext", stamp(span[side], this.item.duration));
    });
  }

  /** Of an answer that is a set, the shared and covered seconds count; of a single segment, its best window. */
  scores(row) {
    const spans = this.spans(row);
    if (spans.length < 2) return this.score(row, spans[0] ?? null);
    const truths = this.spans({ truth: true, key: "truth" });
    const best = spans.map((span) => this.score(row, span)).reduce((most, one) => (one.reward > most.reward ? one : most));
    return { iou: setIou(spans, truths), reward: best.reward };
  }

  score(row, span) {
    const truths = this.spans({ truth: true, key: "truth" });
    if (!truths.length) return { iou: 0, reward: 0 };
    const best = truths.reduce((most, truth) => (iou(span, truth) > iou(span, most) ? truth : most));  // as spans.best_window
    const reward = REWARDS[this.item.reward];
    return { iou: iou(span, best), reward: reward ? reward(span, best, this.item.duration, row.form) : this.valueOf(row) };
  }

  /** Value of a reward that only the kernel can compute: a number, "…" while it is asked, a word where it cannot say. */
  valueOf(row) {
    const said = this.edits.size ? this.valued : this.item;
    if (this.edits.size && this.silent) return "kernel?";
    return said?.fails ? "fails" : said?.values?.[row.key] ?? "…";
  }

  /** Ask the kernel what the edited segments are worth; one question at a time, and then the newest. */
  askForValues() {
    this.moved = this.waiting;
    if (this.waiting) return;
    this.waiting = true;
    const edited = this.item.rows.filter((row) => this.spans(row).some((_, i) => this.edits.has(`${row.key}:${i}`)));
    const spans = Object.fromEntries(edited.map((row) => [row.key, this.spans(row)]));
    try { this.model.send({ type: "values", key: this.item.key, spans, truth: this.spans({ truth: true, key: "truth" }) }); } catch { this.silent = true; }
    this.patience = setTimeout(() => { this.silent = true; this.values(false); }, 3000);
  }

  showValues(message) {
    if (message?.type !== "values") return;
    clearTimeout(this.patience);
    this.waiting = this.silent = false;
    if (message.key === this.item?.key) this.valued = message;
    this.values(this.moved);
  }

  values(ask = true) {
    if (ask && this.edits.size && !REWARDS[this.item.reward]) this.askForValues();
    const touched = this.edits.size > 0;
    for (const row of this.rowsShown()) {
      const cell = this.grid.querySelector(`[data-value="${CSS.escape(row.key)}"]`);
      if (row.truth) {
        cell.replaceChildren(this.times(row));
        continue;
      }
      const now = this.scores(row);
      const parts = [this.times(row), h("b", { "data-iou": row.key }, now.iou.toFixed(3)), h("span", { "data-reward": row.key, title: this.explain(now.reward) }, now.reward.toFixed?.(3) ?? now.reward)];
      if (row.reward !== null) parts.push(h("span", { "data-logged": row.key }, row.reward.toFixed(3)));
      if (touched) {
        const before = row.spans.length > 1 ? setIou(row.spans, this.item.truth) : row.spans.length ? Math.max(0, ...this.item.truth.map((truth) => iou(row.spans[0], truth))) : 0;
        const change = now.iou - before;
        if (Math.abs(change) > 5e-4) parts.push(h("small", { class: change > 0 ? "t1-up" : "t1-down" }, `${change > 0 ? "▲ +" : "▼ −"}${Math.abs(change).toFixed(3)}`));
      }
      cell.replaceChildren(...parts);
      cell.title = row.form ? "form kept" : "form broken";
    }
    this.proposal();
    this.root.classList.toggle("t1-edited", touched);
  }

  explain(value) {
    if (value === "kernel?") return `${this.item.reward} is computed in Python: it needs a running kernel`;
    return value === "fails" ? (this.valued?.fails ?? this.item.fails) : null;
  }

  /** Start and end of a row's segments, as they are now. */
  times(row) {
    const spans = this.spans(row);
    const said = spans.map((span) => `${stamp(span[0], this.item.duration)} – ${stamp(span[1], this.item.duration)}`);
    return h("span", { class: "t1-times", "data-times": row.key, title: said.join(", ") || null }, spans.length > 1 ? `${spans.length} × ${said[0]} …` : said[0] ?? "–");
  }

  drawAxis() {
    if (!this.item) return;
    const { start, end, whole } = this.view;
    this.axis.replaceChildren(...ticks(start, end, this.axis.clientWidth || 600, whole).map(([t, text]) => h("span", { style: `left:${this.view.percent(t)}%` }, text)));
  }

  /** The shown part has changed: everything goes to its new place. */
  looked() {
    const { view } = this;
    this.grid.querySelectorAll(".t1-bar, .t1-ghost").forEach((node) => node.placed && this.placeBar(node, node.placed));
    this.thumbs.style.backgroundSize = `${(100 * view.whole) / view.span}% 100%`;
    this.thumbs.style.backgroundPositionX = view.zoomed ? `${(100 * view.start) / (view.whole - view.span)}%` : "0";
    this.part.textContent = view.zoomed ? `${stamp(view.start, view.whole)} – ${stamp(view.end, view.whole)}` : "";
    this.drawAxis();
    this.align();
    this.history.place();
    this.showTime(this.time);
    [this.root.dataset.viewStart, this.root.dataset.viewEnd] = [view.start.toFixed(4), view.end.toFixed(4)];
    clearTimeout(this.asking);
    this.asking = setTimeout(() => this.askForPart(), 250);
  }

  /** The history's tracks stand below those of the rows. */
  align() {
    const [track, root] = [this.axis, this.history.node].map((node) => node.getBoundingClientRect());
    if (!track.width || this.history.node.hidden) return;
    this.history.node.style.setProperty("--t1-left", `${track.left - root.left}px`);
    this.history.node.style.setProperty("--t1-wide", `${track.width}px`);
  }

  /** A long video's copy has few frames: of a short part of it the kernel makes one with all of them. */
  askForPart() {
    const media = this.model.get("media");
    if (!this.item || media.key !== this.item.key || media.error || !media.coarse) return;
    const { start, end, span } = this.view;
    const covered = media.part && start >= media.part[0] - 1e-6 && end <= media.part[1] + 1e-6;
    if (span <= media.fine_below) { if (!covered) this.model.send({ type: "look", key: media.key, start, end }); }
    else if (media.part) this.model.send({ type: "look", key: media.key });
  }

  zoomBy(factor, at) { this.view.zoom(factor, clamp(at, this.view.start, this.view.end)); this.looked(); }
  panBy(share) { this.view.pan(share * this.view.span); this.looked(); }
  showAll() { this.view.fit(this.item.duration); this.looked(); }

  zoomToRow() {
    const spans = this.spans(this.rowsShown().find((row) => row.key === this.chosen) ?? { truth: true, key: "truth" });
    if (!spans.length) return;
    const [start, end] = [Math.min(...spans.flat()), Math.max(...spans.flat())];
    const margin = Math.max(1, (end - start) * 0.6);
    this.view.show(start - margin, end + margin);
    this.looked();
    this.seek(start);
  }

  wheel(event) {
    if (!this.item) return;
    const free = event.target.closest(".t1-thumbs, .t1-axis, .t1-map, .t1-head");
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : 0;
    if (sideways && this.view.zoomed) {
      event.preventDefault();
      this.panBy(sideways / 800);
    } else if (!sideways && (event.ctrlKey || event.metaKey || free)) {
      event.preventDefault();
      const at = event.target.closest(".t1-map") ? this.time : this.timeAt(event);
      this.zoomBy(Math.exp(clamp(event.deltaY, -120, 120) * (event.ctrlKey ? 0.008 : 0.003)), at);
    }
  }

  /** Two fingers on the timeline: what lies under them stays under them. */
  pinch() {
    const fingers = new Map();
    let held = null;
    const share = (x) => { const box = this.over.getBoundingClientRect(); return (x - box.left) / box.width; };
    this.grid.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch") return;
      fingers.set(event.pointerId, event.clientX);
      if (fingers.size === 2) { held = [...fingers.values()].map((x) => this.view.time(share(x))); event.stopPropagation(); event.preventDefault(); }
    }, true);
    this.grid.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return;
      fingers.set(event.pointerId, event.clientX);
      if (!held || fingers.size < 2) return;
      event.stopPropagation();
      const [a, b] = [...fingers.values()].map(share);
      if (Math.abs(b - a) < 0.01) return;
      const span = Math.abs((held[1] - held[0]) / (b - a));
      const start = held[0] - a * span;
      this.view.show(start, start + span);
      this.looked();
    }, true);
    const lift = (event) => { fingers.delete(event.pointerId); if (fingers.size < 2) held = null; };
    for (const name of ["pointerup", "pointercancel"]) this.grid.addEventListener(name, lift, true);
  }

  choose(key) {
    this.chosen = key;
    this.grid.querySelectorAll("button.t1-name").forEach((node, i) => node.setAttribute("aria-pressed", String(this.rowsShown()[i].key === key)));
    this.grid.querySelectorAll(".t1-track[data-row]").forEach((node) => node.classList.toggle("t1-chosen", node.dataset.row === key));
    if (key !== "truth") this.drawText();
  }

  drawText() {
    const rows = this.item.rows;
    const row = rows.find((candidate) => candidate.key === this.chosen) ?? rows.at(-1);
    this.grid.querySelectorAll(".t1-track[data-row]").forEach((node) => node.classList.toggle("t1-chosen", node.dataset.row === this.chosen));
    this.tabs.replaceChildren(...rows.map((one) => h("button", { type: "button", role: "tab", tabindex: one === row ? "0" : "-1", "aria-selected": String(one === row), "data-tab": one.key,
      onclick: () => this.choose(one.key), onkeydown: (event) => this.tabKey(event, one) }, h("i", { class: "t1-swatch", style: this.paint(one) }), one.label)));
    this.thinking.replaceChildren();
    if (!row) { this.text.textContent = ""; return; }
    this.text.setAttribute("aria-label", `text of ${row.label}`);
    if (!row.pieces.length) { this.text.replaceChildren(h("em", {}, row.error ?? "no text was kept")); return; }
    const parts = Object.entries(row.parts ?? {}).map(([name, value]) => `${name} ${value === null ? "none" : value.toFixed(3)}`);
    this.text.replaceChildren(...row.pieces.flatMap((piece) => this.piece(piece, row)), parts.length ? h("p", { class: "t1-parts" }, parts.join(" · ")) : "");
  }

  piece(piece, row) {
    if (piece.start === undefined) {
      return piece.text.split(/(<[^<>]{1,20}>)/).filter(Boolean).map((part) => (part.startsWith("<") ? h("span", { class: "t1-mark" }, part) : part));
    }
    const span = [piece.start, piece.end];
    const link = h("button", { type: "button", class: `t1-link t1-${piece.kind}`, title: `${spanText(span, this.item.duration)}: click to play`, onclick: () => this.play(span) }, piece.text);
    if (piece.kind === "thinking") {
      const bar = h("div", { class: "t1-bar t1-named", role: "button", tabindex: "0", onkeydown: (event) => { if (event.key === "Enter") { event.preventDefault(); this.play(span); } } });
      this.placeBar(bar, span);
      this.thinking.append(bar);
      this.clickable(bar, () => span);
      for (const [one, other] of [[link, bar], [bar, link]]) {
        for (const on of ["pointerenter", "focus"]) one.addEventListener(on, () => other.classList.add("t1-lit"));
        for (const off of ["pointerleave", "blur"]) one.addEventListener(off, () => other.classList.remove("t1-lit"));
      }
    } else {
      const bar = () => this.grid.querySelector(`[data-bar="${CSS.escape(row.key)}:0"]`);
      link.addEventListener("pointerenter", () => bar()?.classList.add("t1-lit"));
      link.addEventListener("pointerleave", () => bar()?.classList.remove("t1-lit"));
    }
    return [link];
  }

  // ---- time

  showTime(time) {
    this.time = time;
    if (!this.item) return;
    const percent = this.view.percent(clamp(time, 0, this.item.duration));
    this.head.style.left = `${percent}%`;
    this.head.hidden = percent < -0.01 || percent > 100.01;
    this.map.place(clamp(time, 0, this.item.duration));
    const frame = this.frames.length ? frameAt(this.frames, time) : null;
    const unit = this.item.duration < LONG ? " s" : "";
    const shown = frame === null ? time : Math.max(this.frames[frame], this.offset ?? 0);
    this.clock.textContent = frame === null ? `${stamp(time, this.item.duration, 2)}${unit}` : `${stamp(shown, this.item.duration, 2)}${unit}  ·  frame ${frame + 1} / ${this.frames.length}`;
    for (const [name, value] of [["valuemin", 0], ["valuemax", this.item.duration.toFixed(3)], ["valuenow", time.toFixed(3)], ["valuetext", this.clock.textContent]]) this.head.setAttribute(`aria-${name}`, value);
    this.root.dataset.time = time.toFixed(4);
  }

  seek(time) {
    const wanted = clamp(time, 0, this.item?.duration ?? 0);
    if (!this.frames.length) return this.showTime(wanted);
    const frame = frameAt(this.frames, wanted);
    const inside = wanted < this.mediaDuration && wanted >= this.offset;
    this.showTime(inside ? Math.max(this.frames[frame], 0) : wanted);
    if (!inside && this.model.get("media").part) this.model.send({ type: "look", key: this.item.key });
    this.target = insideFrame(this.frames, frame, this.mediaDuration);
    this.settle();
  }

  /** One seek at a time; while one runs, only the newest wish is kept. */
  settle() {
    if (this.seeking || this.target === undefined || !this.video.src) return;
    const wanted = clamp(this.target - this.offset, 0, Math.max(0, this.mediaDuration - this.offset));
    if (Math.abs(this.video.currentTime - wanted) < 1e-4) { this.target = undefined; return; }
    this.seeking = true;
    this.video.currentTime = wanted;
    this.target = undefined;
  }

  step(frames) {
    this.video.pause();
    if (!this.frames.length) return this.seek(this.time + 0.1 * frames);
    this.seek(this.frames[clamp(frameAt(this.frames, this.time) + frames, 0, this.frames.length - 1)]);
  }

  jump(side) {
    const row = this.rowsShown().find((candidate) => candidate.key === this.chosen);
    const span = row && this.spans(row)[0];
    if (!span) return;
    this.video.pause();
    this.stopAt = null;
    this.seek(span[side]);
  }

  toggle() {
    this.stopAt = null;
    if (this.video.paused && this.loop) this.play(this.loop);
    else if (this.video.paused) this.start();
    else this.video.pause();
  }

  play(span) {
    if (!span || span[1] <= span[0]) return;
    if (this.loop) this.loop = span;
    this.bringIn(span[0], span[1]);
    this.video.pause();
    this.seek(span[0]);
    this.stopAt = span[1];
    this.start();
  }

  start() {
    if (!this.video.src) return;
    if (this.stopAt === null && this.offset + this.video.currentTime >= this.mediaDuration - 0.05) this.seek(this.offset);
    this.video.playbackRate = this.rate;
    this.video.play().catch(() => {});
  }

  /** A segment outside the shown part moves it there. */
  bringIn(start, end) {
    const { view } = this;
    if (!view.zoomed || (start >= view.start && start <= view.end)) return;
    view.pan((start + Math.min(end, start + view.span)) / 2 - (view.start + view.end) / 2);
    this.looked();
  }

  toggleLoop() {
    const row = this.rowsShown().find((candidate) => candidate.key === this.chosen);
    const span = row && this.spans(row)[0];
    this.loop = this.loop ? null : span ?? null;
    this.loopButton.setAttribute("aria-pressed", String(Boolean(this.loop)));
    if (this.loop) this.play(this.loop);
    else this.stopAt = null;
  }

  /** Once more from the start of what is looped. */
  again() {
    if (!this.loop) return false;
    this.seek(this.loop[0]);
    this.stopAt = this.loop[1];
    this.start();
    return true;
  }

  setRate(rate) {
    this.rate = rate;
    this.video.playbackRate = rate;
    this.speed.value = String(rate);
  }

  faster(way) { this.setRate(SPEEDS[clamp(SPEEDS.indexOf(this.rate) + way, 0, SPEEDS.length - 1)]); }

  playing(on) {
    this.playButton.replaceChildren(drawn(on ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", on ? "pause" : "play");
    if (!on) return;
    const follow = (mediaTime) => {
      if (this.video.paused) return;
      const time = this.offset + mediaTime;
      if (this.stopAt !== null && time >= this.stopAt) {
        const stop = this.stopAt;
        if (this.loop) { this.seek(this.loop[0]); this.next(follow); return; }
        this.stopAt = null;
        this.video.pause();
        const last = Math.max(0, frameAt(this.frames, Math.max(0, stop - 2e-6)));
        this.seek(this.frames[last] ?? stop);
        return;
      }
      if (this.view.zoomed && time > this.view.end && !this.video.seeking) { this.view.pan(time - this.view.start); this.looked(); }
      if (!this.video.seeking) this.showTime(this.frames.length ? this.frames[frameAt(this.frames, time)] : time);
      this.next(follow);
    };
    this.next(follow);
  }

  next(callback) {
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback((_, frame) => callback(frame.mediaTime));
    else requestAnimationFrame(() => callback(this.video.currentTime));
  }

  move(delta, how = "next") { if (how === "next" || this.item.walks.includes(how)) this.model.send({ type: "move", delta, how }); }

  // ---- files

  keepSvg() {
    const edits = Object.fromEntries([...this.edits].map(([id, span]) => [id, span]));
    this.told.textContent = "drawing …";
    this.model.send({ type: "svg", key: this.item.key, edits, start: this.view.start, end: this.view.end });
  }

  keepClip() {
    const row = this.rowsShown().find((candidate) => candidate.key === this.chosen);
    const span = row && this.spans(row)[0];
    if (!span || span[1] <= span[0]) { this.told.textContent = "this row has no segment"; return; }
    this.told.textContent = "cutting …";
    this.model.send({ type: "clip", key: this.item.key, row: row.key, start: span[0], end: span[1] });
  }

  // ---- hands

  timeAt(event) {
    const box = this.over.getBoundingClientRect();
    return this.view.time(clamp((event.clientX - box.left) / box.width, 0, 1));
  }

  drag(node, { start, move, end }) {
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.item || start?.(event) === false) return;
      event.preventDefault();
      event.stopPropagation();
      this.root.focus({ preventScroll: true });
      node.setPointerCapture(event.pointerId);
      const moved = (e) => move(e, Math.abs(e.clientX - event.clientX) > 3);
      const done = (e) => {
        node.removeEventListener("pointermove", moved);
        node.removeEventListener("pointerup", done);
        node.removeEventListener("pointercancel", done);
        end?.(e, Math.abs(e.clientX - event.clientX) > 3);
      };
      node.addEventListener("pointermove", moved);
      node.addEventListener("pointerup", done);
      node.addEventListener("pointercancel", done);
    });
  }

  scrubbable(node) {
    if (node.dataset.scrub) return;
    node.dataset.scrub = "1";
    this.drag(node, {
      start: (event) => { if (event.target.closest(".t1-bar")) return false; this.video.pause(); this.stopAt = null; this.seek(this.timeAt(event)); return true; },
      move: (event) => this.seek(this.timeAt(event)),
    });
    node.querySelectorAll(":scope > .t1-bar[data-bar]").forEach((bar) => {
      const [key, i] = bar.dataset.bar.split(/:(?=\d+$)/);
      this.clickable(bar, () => this.spans(this.rowsShown().find((row) => row.key === key))[Number(i)], key);
    });
  }

  /** A click plays the segment, a drag scrubs through it. */
  clickable(bar, span, key) {
    this.drag(bar, {
      start: (event) => { if (event.target.closest(".t1-edge")) return false; this.video.pause(); if (key) this.choose(key); return true; },
      move: (event, far) => { if (far) this.seek(this.timeAt(event)); },
      end: (event, far) => { if (!far) this.play(span()); },
    });
  }

  draggable(edge, row, i, side) {
    this.drag(edge, {
      start: () => { this.video.pause(); this.choose(row.key); edge.focus({ preventScroll: true }); return true; },
      move: (event) => this.setEdge(row, i, side, this.timeAt(event)),
      end: () => edge.focus({ preventScroll: true }),
    });
  }

  setEdge(row, i, side, time) {
    const span = [...this.spans(row)[i]];
    const gap = 0.01;
    span[side] = side ? clamp(time, span[0] + gap, this.item.duration) : clamp(time, 0, span[1] - gap);
    const id = `${row.key}:${i}`;
    if (!this.edits.has(id)) this.ghost(row, i);
    this.edits.set(id, span);
    this.placeBar(this.grid.querySelector(`[data-bar="${CSS.escape(`${row.key}:${i}`)}"]`), span);
    this.values();
    this.seek(span[side]);
  }

  /** The outline of what was there before the edge was moved. */
  ghost(row, i) {
    const before = this.spans(row)[i];
    const node = h("div", { class: "t1-ghost", "aria-hidden": "true" });
    this.placeBar(node, before);
    node.removeAttribute("aria-label");
    this.grid.querySelector(`.t1-track[data-row="${CSS.escape(row.key)}"]`).append(node);
  }

  edgeKey(event, row, i, side) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    event.stopPropagation();
    const way = (event.key === "ArrowRight" ? 1 : -1) * (event.shiftKey ? 10 : 1);
    const now = this.spans(row)[i][side];
    const media = this.model.get("media");
    const framed = this.frames.length > 1 && now >= this.frames[0] - 1e-6 && now <= this.mediaDuration && !(media.coarse && !media.part);
    const to = framed
      ? this.frames[clamp(frameAt(this.frames, now) + way + (way < 0 && now > this.frames[frameAt(this.frames, now)] + 1e-6 ? 1 : 0), 0, this.frames.length - 1)]
      : now + 0.1 * way;
    this.setEdge(row, i, side, side && way > 0 && to <= now ? this.item.duration : to);
  }

  tabKey(event, row) {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const rows = this.item.rows;
    const next = rows[(rows.indexOf(row) + way + rows.length) % rows.length];
    this.choose(next.key);
    this.tabs.querySelector(`[data-tab="${CSS.escape(next.key)}"]`).focus();
  }

  key(event) {
    if (event.target.closest("textarea, input, select") || event.ctrlKey || event.metaKey || event.altKey || !this.item) return;
    const button = event.target.closest("button, summary");
    const act = {
      " ": button ? null : () => this.toggle(), n: () => this.move(1), p: () => this.move(-1),
      w: () => this.move(1, "worst"), W: () => this.move(-1, "worst"), c: () => this.move(1, "changed"), C: () => this.move(-1, "changed"), d: () => this.move(1, "worse"), D: () => this.move(-1, "worse"),
      "+": () => this.zoomBy(0.5, this.time), "=": () => this.zoomBy(0.5, this.time), "-": () => this.zoomBy(2, this.time), z: () => this.zoomToRow(), a: () => this.showAll(),
      "[": () => this.panBy(-0.5), "]": () => this.panBy(0.5), l: () => this.toggleLoop(), "<": () => this.faster(-1), ">": () => this.faster(1), s: () => this.jump(0), e: () => this.jump(1), r: () => this.undo(),
      ArrowLeft: () => this.nudge(event, -1), ArrowRight: () => this.nudge(event, 1), Home: () => this.seek(0), End: () => this.seek(this.item.duration),
    }[event.key] ?? (/^\d$/.test(event.key) && this.rowsShown()[Number(event.key)] ? () => this.choose(this.rowsShown()[Number(event.key)].key) : null);
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  nudge(event, way) {
    this.video.pause();
    if (event.shiftKey) this.seek(this.time + way);
    else this.step(way);
  }

  undo() {
    this.edits.clear();
    this.drawLanes();
    this.drawText();
    this.looked();
  }

  // ---- notes

  showNote() {
    const note = this.item.note;
    for (const label of this.labels) label.input.checked = label.value === (note?.label ?? "");
    this.remark.value = note?.text ?? "";
    this.repair.checked = Boolean(note?.window);
    this.proposal();
    this.saved.textContent = note ? (note.window ? `kept; repair ${spanText(note.window, this.item.duration)}` : "kept in notes.jsonl") : "";
  }

  /** The window that a note would propose: the dragged truth, else the one it has; the only source of one. */
  proposal() {
    const window = this.edits.get("truth:0") ?? this.item.note?.window ?? null;
    this.repairLabel.hidden = !window;
    if (window) this.repairLabel.lastChild.textContent = `propose the edited truth, ${spanText(window, this.item.duration)}, as the repair`;
    return window;
  }

  saveNote() {
    const label = this.labels.find((one) => one.input.checked)?.value ?? "";
    const window = this.repair.checked ? this.proposal() : null;
    this.saved.textContent = "saving …";
    this.model.send({ type: "note", key: this.item.key, id: this.item.id, label, text: this.remark.value, window });
  }

  showSaved() {
    const saved = this.model.get("saved");
    if (saved.key === this.item?.key) this.saved.textContent = saved.message;
  }

  remove() {
    this.off.forEach((off) => off());
    clearTimeout(this.patience);
    clearTimeout(this.asking);
    this.resize.disconnect();
    this.video.pause();
    this.urls.forEach((url) => URL.revokeObjectURL(url));
  }
}

function render({ model, el }) {
  const scrubber = new Scrubber(model, el);
  return () => scrubber.remove();
}

export default { render };
