// The first screen: what came out, how sure that is, what went wrong, how to do it again.

import { MISSING, OUTCOME_NAMES, outcomeWords, percent } from "./format.js";
import { commandLine } from "./command.js";
import { barList, linePlot } from "./plot.js";
import { h, withCode } from "./dom.js";
import { routeTo } from "./route.js";

const CURVES_AT_FIRST = 9;

export const overviewScreen = {
  key: () => "overview",
  title: () => "Overview",
  load: async (app) => app.overview,
  draw: (app, overview) =>
    h(
      "div",
      { class: "overview" },
      h(
        "section",
        { class: "verdict", "aria-label": "Verdict" },
        h("p", { class: "sentence" }, withCode(overview.verdict)),
        factList(overview.facts),
      ),
      healthList(overview.health),
      h(
        "div",
        { class: overview.curves.length || overview.kind === "run" ? "columns" : null },
        curvePanel(app, overview),
        h(
          "section",
          { class: "panel", "aria-label": "What became of the episodes" },
          h("h2", {}, "Episodes by outcome ", h("small", {}, "a bar opens them")),
          failureMap(overview),
        ),
      ),
      settingsPanel(overview),
      commandPanel(app, overview),
    ),
};

export function factList(facts) {
  return h(
    "dl",
    { class: "facts" },
    facts.map((fact) =>
      h(
        "div",
        { class: `fact ${fact.tone}` },
        h("dt", {}, fact.label),
        h("dd", {}, fact.value),
        fact.note ? h("dd", { class: "note" }, fact.note) : null,
      ),
    ),
  );
}

function healthList(lines) {
  if (!lines.length) return null;
  return h(
    "section",
    { class: "health", "aria-label": "Health" },
    h("h2", {}, "Health"),
    h(
      "ul",
      {},
      lines.map((line) => h("li", {}, withCode(line))),
    ),
  );
}

// An evaluation has no batches, so no curves.
function curvePanel(app, { curves, kind }) {
  if (!curves.length && kind !== "run") return null;
  const note = curves.length ? "a point opens the episodes of its batch" : "";
  return h(
    "section",
    { class: "panel", "aria-label": "Curves" },
    h("h2", {}, "Curves ", h("small", {}, note)),
    curveGrid(app, curves),
  );
}

function curveGrid(app, curves) {
  const known = curves.filter((curve) => curve.y.some((value) => value !== null));
  if (!known.length) return h("p", { class: "empty" }, "No batch was written yet.");
  // Batch 0 is the policy before training: it was measured, and no batch holds its episodes.
  const open = (batch) =>
    batch > 0 ? app.go(routeTo("episodes", "", { batch })) : app.say("Before training: no batch to open.");
  const [first, rest] = [known.slice(0, CURVES_AT_FIRST), known.slice(CURVES_AT_FIRST)];
  return [
    h(
      "div",
      { class: "plots" },
      first.map((curve) => linePlot(curve, open)),
    ),
    rest.length
      ? h(
          "details",
          { "data-key": "more-curves" },
          h("summary", {}, `${rest.length} more`),
          h(
            "div",
            { class: "plots" },
            rest.map((curve) => linePlot(curve, open)),
          ),
        )
      : null,
  ];
}

function failureMap(overview) {
  const total = Object.values(overview.outcomes).reduce((sum, count) => sum + count, 0);
  if (!total) return h("p", { class: "empty" }, "No episode has ended yet.");
  const names = [...OUTCOME_NAMES, ...Object.keys(overview.outcomes).filter((name) => !OUTCOME_NAMES.includes(name))];
  const there = names.filter((name) => overview.outcomes[name] > 0);
  const bars = there.map((name) => ({
    name,
    ...outcomeWords(name),
    count: overview.outcomes[name],
    part: percent(overview.outcomes[name] / total),
    href: routeTo("episodes", "", { outcome: name }),
  }));
  const absent = OUTCOME_NAMES.filter((name) => !there.includes(name)).map((name) => outcomeWords(name).label);
  return [
    barList(bars, "Episodes by outcome"),
    absent.length ? h("p", { class: "absent" }, `None: ${absent.join(", ")}.`) : null,
  ];
}

function settingsPanel(overview) {
  const compared = overview.runs.length > 1;
  const differs = (setting) => compared && JSON.stringify(setting.value) !== JSON.stringify(setting.baseline);
  const first = overview.settings.filter((setting) => setting.changed || differs(setting));
  const rest = overview.settings.filter((setting) => !first.includes(setting));
  first.sort((a, b) => differs(b) - differs(a));
  const table = (settings) => settingsTable(settings, compared ? overview.runs[1] : "", differs);
  return h(
    "section",
    { class: "panel", "aria-label": "Settings" },
    h(
      "h2",
      {},
      "Settings ",
      h("small", {}, compared ? "what differs from the other run comes first" : "changed ones first"),
    ),
    first.length ? table(first) : h("p", { class: "empty" }, "Every setting is at its default."),
    rest.length
      ? h(
          "details",
          { "data-key": "default-settings" },
          h("summary", {}, `${rest.length} at their defaults`),
          table(rest),
        )
      : null,
  );
}

function settingsTable(settings, other, differs) {
  const defaults = settings.some((setting) => setting.default !== null);
  return h(
    "div",
    { class: "scroller" },
    h(
      "table",
      { class: "settings" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["key", "value", other ? `in ${other}` : null, defaults ? "default" : null]
            .filter(Boolean)
            .map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h(
        "tbody",
        {},
        settings.map((setting) =>
          h(
            "tr",
            { class: differs(setting) ? "differs" : null },
            h("th", { scope: "row" }, setting.key),
            h("td", {}, settingWords(setting.value)),
            other ? h("td", {}, settingWords(setting.baseline)) : null,
            defaults ? h("td", { class: "dim" }, settingWords(setting.default)) : null,
          ),
        ),
      ),
    ),
  );
}

function settingWords(value) {
  if (value === null || value === undefined) return MISSING;
  return typeof value === "string" ? value : JSON.stringify(value);
}

function commandPanel(app, overview) {
  return h(
    "section",
    { class: "panel", "aria-label": "Do it again" },
    h("h2", {}, "Do it again"),
    commandLine(app, overview.command, "again"),
    h("p", { class: "dim folder" }, overview.folder),
  );
}
