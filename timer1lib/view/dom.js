// What the widgets share: elements, icons, times in words, files to keep. Stands before each widget's own script (view/scripts.py).

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

const ICONS = {
  play: "M4 2.5v11l9-5.5z", pause: "M4 3h3v10H4zM9 3h3v10H9z", first: "M3 3h2v10H3zM13 3v10L6 8z", last: "M11 3h2v10h-2zM3 3v10l7-5z",
  back: "M10.5 3v10L4 8z", on: "M5.5 3v10L12 8z", up: "M8 4l5 7H3z", down: "M8 12l5-7H3z",
  loop: "M4 4h7V1.8L15 5l-4 3.2V6H4v3H2V4zM12 12H5v2.2L1 11l4-3.2V10h7V7h2v5z", closer: "M7 3h2v4h4v2H9v4H7V9H3V7h4z", wider: "M3 7h10v2H3z",
  whole: "M1 3h2v10H1zM13 3h2v10h-2zM4 8l3-3v2h2V5l3 3-3 3V9H7v2z",
};
function drawn(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of [["viewBox", "0 0 16 16"], ["width", "15"], ["height", "15"], ["fill", "currentColor"], ["aria-hidden", "true"]]) svg.setAttribute(key, value);
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const LONG = 120; // seconds from which on times are written as minutes and hours

/** A time as it is read on a clock: 7.50, 12:07.5, 1:02:07.5; `whole` is the length of what it stands in, in seconds. */
export function stamp(t, whole = 0, digits = whole >= LONG ? 1 : 2) {
  if (whole < LONG) return t.toFixed(digits);
  const unit = 10 ** digits, all = Math.round(t * unit), s = all % (60 * unit), m = Math.floor(all / (60 * unit));
  const rest = (s / unit).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return whole >= 3600 ? `${Math.floor(m / 60)}:${String(m % 60).padStart(2, "0")}:${rest}` : `${String(m).padStart(2, "0")}:${rest}`;
}

const spanText = (span, whole = 0) => (span ? `${stamp(span[0], whole)} – ${stamp(span[1], whole)}${whole < LONG ? " s" : ""}` : "no answer");

/** A file that the kernel made, into the browser's folder of downloads. */
function keepFile(name, type, parts) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  const link = h("a", { href: url, download: name, style: "display:none" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Listens for files ({type: "file", name, mime} with one buffer) and words ({type: "said", text}) of the kernel. */
function listenForFiles(model, say) {
  const heard = (message, buffers) => {
    if (message?.type === "file") {
      keepFile(message.name, message.mime, [buffers[0]]);
      say(`saved ${message.name}`);
    } else if (message?.type === "said") say(message.text);
  };
  model.on("msg:custom", heard);
  return () => model.off("msg:custom", heard);
}
