// How the policy came to its answer: one sample's groups over all logged steps, a line a step, a tick a rollout, coloured by reward.

const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis

/** A colour for a value between `low` and `high`. */
export function rewardColour(value, low, high) {
  const at = clamp(high > low ? (value - low) / (high - low) : 1, 0, 1) * (RAMP.length - 1);
  const [a, b] = [RAMP[Math.floor(at)], RAMP[Math.ceil(at)]];
  return `rgb(${a.map((x, i) => Math.round(x + (b[i] - x) * (at - Math.floor(at)))).join(" ")})`;
}

class History {
  /** `hands`: {choose(key), play(span), view}. */
  constructor(hands) {
    this.hands = hands;
    this.lines = h("div", { class: "t1-history-lines", role: "list", "aria-label": "this sample's rollouts over training" });
    this.legend = h("span", { class: "t1-history-legend" });
    this.title = h("b", {});
    this.truth = h("div", { class: "t1-history-truth" });
    this.node = h("section", { class: "t1-history", hidden: true }, h("div", { class: "t1-history-head" }, this.title, this.legend), this.lines);
  }

  /** `groups`: [{key, step, ticks: [{span, reward}], here}] in the order of training; null hides. */
  show(groups, truth) {
    this.node.hidden = !groups?.length;
    if (this.node.hidden) return;
    const rewards = groups.flatMap((group) => group.ticks.map((tick) => tick.reward));
    const [low, high] = [Math.min(...rewards), Math.max(...rewards)];
    this.title.textContent = groups.length === 1 ? "this sample was drawn in one step only" : `this sample over training: ${groups.length} groups, step ${groups[0].step} to ${groups.at(-1).step}`;
    this.legend.replaceChildren("reward ", low.toFixed(2), h("i", { class: "t1-ramp", style: `background:linear-gradient(90deg,${[0, 0.25, 0.5, 0.75, 1].map((x) => rewardColour(x, 0, 1)).join(",")})` }), high.toFixed(2));
    this.lines.replaceChildren(...groups.map((group) => this.line(group, low, high, truth)));
    this.place();
    this.lines.querySelector("[aria-current]")?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
  }

  line(group, low, high, truth) {
    const mean = group.ticks.reduce((sum, tick) => sum + tick.reward, 0) / Math.max(1, group.ticks.length);
    const height = 100 / Math.max(1, group.ticks.length);
    const marks = group.ticks.map((tick, i) => {
      if (!tick.span) return h("i", { class: "t1-tick t1-tick-none", style: `top:${i * height}%;height:${height}%;background:${rewardColour(tick.reward, low, high)}`, title: `no answer, reward ${tick.reward.toFixed(3)}` });
      return h("button", { type: "button", class: "t1-tick", "data-tick": `${group.step}:${i}`, "data-start": tick.span[0], "data-end": tick.span[1], style: `top:${i * height}%;height:max(2px,calc(${height}% - 0.5px));background:${rewardColour(tick.reward, low, high)}`,
        title: `${spanText(tick.span, this.hands.view.whole)}, reward ${tick.reward.toFixed(3)}: click to play`, "aria-label": `rollout at step ${group.step}: ${spanText(tick.span)}, reward ${tick.reward.toFixed(3)}`, onclick: (event) => { event.stopPropagation(); this.hands.play(tick.span); } });
    });
    const shades = truth.map((span) => h("i", { class: "t1-history-truth", "data-start": span[0], "data-end": span[1] }));
    return h("div", { class: "t1-history-line", role: "listitem", "aria-current": group.here ? "true" : null, "data-step": group.step },
      h("button", { type: "button", class: "t1-history-step", title: "show this group", onclick: () => this.hands.choose(group.key) }, `step ${group.step}`),
      h("div", { class: "t1-history-track" }, ...shades, ...marks), h("span", { class: "t1-history-mean", title: "mean reward of the group" }, mean.toFixed(2)));
  }

  place() {
    const { view } = this.hands;
    this.lines.querySelectorAll("[data-start]").forEach((node) => {
      const [start, end] = [Number(node.dataset.start), Number(node.dataset.end)];
      node.style.left = `${view.percent(Math.min(start, end))}%`;
      node.style.width = `max(3px, ${Math.abs(view.percent(end) - view.percent(start))}%)`;
    });
  }
}
