// Where the time of an episode went: a bar for each step, divided by who took it.

import { duration } from "./format.js";
import { h, svg } from "./dom.js";

const TAKERS = ["waiting", "model", "environment", "reward"];
const BAR = { height: 26, gap: 2, least: 4, top: 14 };

export function timelineBar(steps, choose) {
  const totals = Object.fromEntries(TAKERS.map((taker) => [taker, sumOf(steps, taker)]));
  const all = TAKERS.reduce((sum, taker) => sum + totals[taker], 0);
  const field = h("div", { class: "field" });
  new ResizeObserver(([entry]) =>
    field.replaceChildren(drawTimeline(steps, all, Math.max(200, entry.contentRect.width), choose)),
  ).observe(field);
  const legend = TAKERS.map((taker) =>
    h(
      "li",
      { class: taker },
      h("span", { class: "swatch", "aria-hidden": "true" }),
      taker,
      " ",
      h("b", {}, duration(totals[taker])),
    ),
  );
  return h(
    "figure",
    { class: "timeline", "aria-label": `Time by step, ${duration(all)} in all` },
    field,
    h("ul", { class: "legend" }, legend),
  );
}

function sumOf(steps, taker) {
  return steps.reduce((sum, step) => sum + step.seconds[taker], 0);
}

// A step is as wide as its time, and never so narrow that it cannot be clicked.
function drawTimeline(steps, all, width, choose) {
  const room = Math.max(0, width - steps.length * (BAR.least + BAR.gap));
  let left = 0;
  const bars = steps.map((step) => {
    const taken = TAKERS.reduce((sum, taker) => sum + step.seconds[taker], 0);
    const wide = BAR.least + room * (all > 0 ? taken / all : 1 / steps.length);
    const bar = stepBar(step, taken, left, wide, choose);
    left += wide + BAR.gap;
    return bar;
  });
  const height = BAR.top + BAR.height;
  const across = Math.max(width, left);
  return svg(
    "svg",
    { width: across, height, viewBox: `0 0 ${across} ${height}`, role: "group", "aria-label": "Steps" },
    bars,
  );
}

function stepBar(step, taken, left, wide, choose) {
  let at = left;
  const parts = TAKERS.filter((taker) => step.seconds[taker] > 0).map((taker) => {
    const part = (wide * step.seconds[taker]) / taken;
    at += part;
    return svg("rect", { class: taker, x: at - part, y: BAR.top, width: part, height: BAR.height });
  });
  const words = `Step ${step.index + 1}: ${
    TAKERS.filter((taker) => step.seconds[taker] > 0)
      .map((taker) => `${taker} ${duration(step.seconds[taker])}`)
      .join(", ") || "no time"
  }`;
  return svg(
    "g",
    { class: `bar${step.error ? " mistake" : ""}`, onclick: () => choose(step) },
    svg("title", {}, words),
    svg("rect", { class: "ground", x: left, y: BAR.top, width: wide, height: BAR.height }),
    parts,
    wide > 16
      ? svg("text", { x: left + wide / 2, y: BAR.top - 3, "text-anchor": "middle" }, String(step.index + 1))
      : null,
    step.error ? svg("path", { class: "flag", d: `M${left + wide / 2 - 4},${BAR.top + BAR.height}l4,-6l4,6z` }) : null,
  );
}
