// A small plot library: lines with their intervals, bars, scales. It draws numbers and knows nothing of episodes.

import { MISSING, number, signed, withUnit } from "./format.js";
import { h, svg } from "./dom.js";

const EDGE = { left: 42, right: 10, top: 8, bottom: 20 };
const HEIGHT = 132;
const MOST_DOTS = 90;

// A line over batches, with a band where it has an interval. `pick(x)` is called for the point that is opened.
export function linePlot(curve, pick) {
  const readout = h("span", { class: "readout", "aria-live": "polite" });
  const field = h("div", {
    class: "field",
    tabindex: "0",
    role: "group",
    "aria-label": plotSummary(curve),
    "data-key": `curve-${curve.name}`,
    "data-open": true,
  });
  const figure = h(
    "figure",
    { class: "plot", "data-item": true, "data-key": `plot-${curve.name}` },
    h("figcaption", {}, h("span", { class: "name", title: curve.name }, curve.label), readout),
    field,
  );
  const plot = { curve, chosen: -1, points: [], marker: null };
  const show = (index) => {
    plot.chosen = index;
    readout.textContent = pointWords(curve, index < 0 ? lastKnown(curve.y) : index, index >= 0);
    placeMarker(plot);
  };
  new ResizeObserver(([entry]) => {
    drawLine(plot, field, Math.max(180, Math.round(entry.contentRect.width)));
    show(plot.chosen);
  }).observe(field);
  field.addEventListener("pointermove", (event) => show(nearestPoint(plot, event)));
  field.addEventListener("pointerleave", () => show(-1));
  field.addEventListener("blur", () => show(-1));
  field.addEventListener("click", (event) => {
    const index = event.detail === 0 ? plot.chosen : nearestPoint(plot, event);
    if (index >= 0) pick(curve.x[index]);
  });
  field.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move)
      show(Math.min(curve.x.length - 1, Math.max(0, (plot.chosen < 0 ? lastKnown(curve.y) : plot.chosen) + move)));
    else if (event.key === "Enter" && plot.chosen >= 0) pick(curve.x[plot.chosen]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  show(-1);
  return figure;
}

function plotSummary(curve) {
  const last = lastKnown(curve.y);
  const first = curve.y.findIndex((value) => Number.isFinite(value));
  if (last < 0) return `${curve.label}: no values yet`;
  const ends = `from ${withUnit(curve.y[first], curve.unit)} to ${withUnit(curve.y[last], curve.unit)}`;
  return `${curve.label} over ${curve.x.length} batches, ${ends}. Arrow keys choose a batch, Enter opens its episodes.`;
}

function lastKnown(values) {
  return values.findLastIndex((value) => value !== null && Number.isFinite(value));
}

function pointWords(curve, index, withBatch) {
  if (index < 0) return MISSING;
  const interval =
    curve.low?.length && Number.isFinite(curve.low[index])
      ? ` [${withUnit(curve.low[index], curve.unit)}, ${withUnit(curve.high[index], curve.unit)}]`
      : "";
  return `${withBatch ? `batch ${curve.x[index]}: ` : ""}${withUnit(curve.y[index], curve.unit)}${interval}`;
}

function drawLine(plot, field, width) {
  const { x, y, low, high, unit } = plot.curve;
  const values = [...y, ...(low ?? []), ...(high ?? [])].filter((value) => value !== null && Number.isFinite(value));
  const [bottom, top] = rangeOf(values, unit);
  const across = (value) =>
    EDGE.left + (width - EDGE.left - EDGE.right) * (x.length < 2 ? 0.5 : (value - x[0]) / (x.at(-1) - x[0]));
  const up = (value) => EDGE.top + (HEIGHT - EDGE.top - EDGE.bottom) * (1 - (value - bottom) / (top - bottom));
  plot.points = x.map((value, i) => (y[i] === null || !Number.isFinite(y[i]) ? null : [across(value), up(y[i])]));
  plot.marker = svg("circle", { class: "marker", r: 4 });
  const runs = unbrokenRuns(plot.points);
  field.replaceChildren(
    svg(
      "svg",
      { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
      ticks(bottom, top, 3).map((value) => [
        svg("line", { class: "rule", x1: EDGE.left, x2: width - EDGE.right, y1: up(value), y2: up(value) }),
        svg(
          "text",
          { class: "tick", x: EDGE.left - 6, y: up(value) + 3.5, "text-anchor": "end" },
          tickWords(value, unit),
        ),
      ]),
      xTicks(x, width).map((value) =>
        svg("text", { class: "tick", x: across(value), y: HEIGHT - 5, "text-anchor": "middle" }, String(value)),
      ),
      low?.length ? svg("path", { class: "band", d: bandPath(plot.curve, across, up) }) : null,
      runs.map((run) => svg("path", { class: "line", d: `M${run.map((point) => point.join(",")).join("L")}` })),
      x.length <= MOST_DOTS
        ? plot.points.filter(Boolean).map(([cx, cy]) => svg("circle", { class: "dot", r: 2, cx, cy }))
        : null,
      plot.marker,
    ),
  );
}

function unbrokenRuns(points) {
  const runs = [[]];
  for (const point of points) point ? runs.at(-1).push(point) : runs.push([]);
  return runs.filter((run) => run.length);
}

function bandPath({ x, low, high }, across, up) {
  const known = x.map((_, i) => i).filter((i) => Number.isFinite(low[i] ?? NaN) && Number.isFinite(high[i] ?? NaN));
  if (!known.length) return "";
  const over = known.map((i) => `${across(x[i])},${up(high[i])}`);
  const under = known.reverse().map((i) => `${across(x[i])},${up(low[i])}`);
  return `M${over.concat(under).join("L")}Z`;
}

function rangeOf(values, unit) {
  if (!values.length) return [0, 1];
  let [bottom, top] = [Infinity, -Infinity];
  for (const value of values) [bottom, top] = [Math.min(bottom, value), Math.max(top, value)];
  if (unit === "share" && bottom >= 0 && top <= 1) return [0, top > 0.5 ? 1 : Math.max(0.1, top * 1.1)];
  if (bottom >= 0 && bottom < 0.4 * top) bottom = 0;
  const room = (top - bottom || Math.abs(top) || 1) * 0.08;
  return [bottom === 0 ? 0 : bottom - room, top + room];
}

function ticks(bottom, top, wanted) {
  const rough = (top - bottom) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= rough * 0.999);
  const found = [];
  for (let value = Math.ceil(bottom / size) * size; value <= top + size * 1e-6; value += size) {
    found.push(Math.abs(value) < size * 1e-6 ? 0 : Number(value.toPrecision(12)));
  }
  return found;
}

function tickWords(value, unit) {
  if (unit === "share") return `${Number((100 * value).toFixed(1))}%`;
  const size = Math.abs(value);
  if (size >= 1e6) return `${number(value / 1e6, 2)}M`;
  return size >= 1e4 ? `${number(value / 1e3, 2)}k` : number(value);
}

function xTicks(x, width) {
  if (x.length < 2) return x;
  const whole = x.length <= 6 ? x : ticks(x[0], x.at(-1), Math.max(2, Math.floor(width / 48)));
  return whole.filter((value) => Number.isInteger(value) && value >= x[0]);
}

function nearestPoint(plot, event) {
  const at = event.clientX - event.currentTarget.getBoundingClientRect().left;
  let best = -1;
  plot.points.forEach((point, i) => {
    if (point && (best < 0 || Math.abs(point[0] - at) < Math.abs(plot.points[best][0] - at))) best = i;
  });
  return best;
}

function placeMarker(plot) {
  const point = plot.points[plot.chosen];
  if (!plot.marker) return;
  plot.marker.classList.toggle("on", Boolean(point));
  if (point) {
    plot.marker.setAttribute("cx", point[0]);
    plot.marker.setAttribute("cy", point[1]);
  }
}

// A list of labelled bars; each is a link where `href` is given.
export function barList(bars, label) {
  const most = Math.max(1, ...bars.map((bar) => bar.count));
  return h(
    "ul",
    { class: "bars", "aria-label": label },
    bars.map((bar) =>
      h(
        "li",
        { "data-item": true, "data-key": `bar-${bar.name}` },
        h(
          "a",
          { href: bar.href, class: bar.tone, title: bar.note, "data-open": true },
          h("span", { class: "mark", "aria-hidden": "true" }, bar.mark),
          h("span", { class: "name" }, bar.label),
          h("span", { class: "track" }, h("span", { class: "fill", vars: { "--share": String(bar.count / most) } })),
          h("span", { class: "count" }, bar.count.toLocaleString("en")),
          h("span", { class: "part" }, bar.part),
        ),
      ),
    ),
  );
}

// A colour scale with its numbers: `kind` is `diverging` (negative, 0, positive) or `rising` (from `low` to `high`).
export function scaleBar(kind, low, high, words) {
  const ends = kind === "diverging" ? [signed(low), "0", signed(high)] : [number(low), number(high)];
  return h(
    "span",
    { class: "scale" },
    h("span", { class: `ramp ${kind}`, "aria-hidden": "true" }),
    h(
      "span",
      { class: "ends" },
      ends.map((end) => h("span", {}, end)),
    ),
    words ? h("span", { class: "words" }, words) : null,
  );
}
