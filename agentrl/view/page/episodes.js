// The list of episodes: filtered, sorted, a page at a time. It never holds more lines than it shows.

import { MISSING, OUTCOME_NAMES, duration, number, outcomeWords, plural } from "./format.js";
import { h } from "./dom.js";
import { routeTo } from "./route.js";

const PAGE = 100;
const FILTERS = ["batch", "task", "group", "source"];
const COLUMNS = [
  ["outcome", "outcome", ""],
  ["task", "task", ""],
  ["batch", "batch", "n"],
  ["reward", "reward", "n"],
  ["steps", "steps", "n"],
  ["tokens", "tokens", "n"],
  ["calls", "calls", "n"],
  ["wrong_calls", "wrong", "n"],
  ["seconds", "time", "n"],
];

export const episodesScreen = {
  key: (route) => routeTo("episodes", "", route.query),
  title: () => "Episodes",
  async load(app, route) {
    const query = { ...route.query, offset: pageOffset(route.query), limit: PAGE };
    delete query.page;
    const page = await app.source.episodes(query);
    return { page, query };
  },
  draw(app, { page, query }, route) {
    app.listed = { query, lines: page.lines, offset: page.offset };
    return h(
      "div",
      { class: "episodes" },
      h("h1", { class: "unseen" }, "Episodes"),
      outcomeChips(app.overview.outcomes, route.query),
      h("div", { class: "under-chips" }, filterChips(route.query), pager(page, route.query)),
      page.cut
        ? h(
            "p",
            { class: "notice" },
            "The search inside the episodes stopped at its bound: there may be more that fit.",
          )
        : null,
      page.unlisted
        ? h(
            "p",
            { class: "notice" },
            `${plural(page.unlisted, "episode")} more are not listed in this file. \`agentrl view\` on the folder lists every one.`,
          )
        : null,
      page.lines.length ? episodeTable(app, page, route.query) : nothingFits(route.query),
    );
  },
};

function pageOffset(query) {
  return PAGE * (Math.max(1, Number.parseInt(query.page ?? "1", 10) || 1) - 1);
}

// Filters change the list, so they begin at its first page.
function filtered(query, changes) {
  return routeTo("episodes", "", { ...query, page: "", ...changes });
}

function outcomeChips(outcomes, query) {
  const chosen = query.outcome ? query.outcome.split(",") : [];
  const total = Object.values(outcomes).reduce((sum, count) => sum + count, 0);
  const names = [
    ...OUTCOME_NAMES.filter((name) => outcomes[name]),
    ...Object.keys(outcomes).filter((name) => !OUTCOME_NAMES.includes(name)),
  ];
  const toggled = (name) =>
    (chosen.includes(name) ? chosen.filter((other) => other !== name) : [...chosen, name]).join(",");
  return h(
    "nav",
    { class: "chips", "aria-label": "Filter by outcome" },
    chip("all", total, filtered(query, { outcome: "" }), !chosen.length, ""),
    names.map((name) =>
      chip(
        outcomeWords(name).label,
        outcomes[name],
        filtered(query, { outcome: toggled(name) }),
        chosen.includes(name),
        outcomeWords(name).tone,
        name,
      ),
    ),
  );
}

function chip(label, count, href, on, tone, name = "all") {
  return h(
    "a",
    { class: `chip ${tone}`, href, "aria-current": on ? "true" : null, "data-key": `chip-${name}` },
    h("span", {}, label),
    h("span", { class: "count" }, count.toLocaleString("en")),
  );
}

function filterChips(query) {
  const set = FILTERS.filter((name) => query[name]);
  const removable = (name, words) =>
    h(
      "a",
      {
        class: "chip set",
        href: filtered(query, { [name]: "" }),
        title: "Remove this filter",
        "data-key": `filter-${name}`,
      },
      words,
      h("span", { "aria-hidden": "true" }, " ×"),
    );
  return h(
    "div",
    { class: "chips" },
    set.map((name) => removable(name, `${name} ${query[name]}`)),
    query.search ? [removable("search", `contains “${query.search}”`), insideChip(query)] : null,
  );
}

function insideChip(query) {
  const on = query.inside === "1";
  return h(
    "a",
    {
      class: "chip",
      href: filtered(query, { inside: on ? "" : "1" }),
      "aria-current": on ? "true" : null,
      "data-key": "inside",
    },
    on ? "also inside the episodes" : "search inside the episodes too",
  );
}

function pager(page, query) {
  const at = Math.floor(page.offset / PAGE) + 1;
  const last = Math.max(1, Math.ceil(page.total / PAGE));
  const to = (target) => routeTo("episodes", "", { ...query, page: target > 1 ? target : "" });
  const first = page.total ? page.offset + 1 : 0;
  return h(
    "div",
    { class: "pager" },
    h(
      "span",
      { role: "status" },
      `${first.toLocaleString("en")} to ${(page.offset + page.lines.length).toLocaleString("en")} of ${page.total.toLocaleString("en")}`,
    ),
    at > 1 ? h("a", { href: to(at - 1), rel: "prev", "data-key": "page-back" }, "← back") : null,
    at < last ? h("a", { href: to(at + 1), rel: "next", "data-key": "page-on" }, "next →") : null,
  );
}

function episodeTable(app, page, query) {
  const withErrors = page.lines.some((line) => line.error);
  const withSources = page.lines.some((line) => line.source !== "policy" || line.forked_from);
  return h(
    "div",
    { class: "scroller" },
    h(
      "table",
      { class: "lines" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          COLUMNS.map(([name, label, kind]) => sortHead(name, label, kind, query)),
          withSources ? h("th", { scope: "col" }, "by") : null,
          withErrors ? h("th", { scope: "col" }, "error") : null,
        ),
      ),
      h(
        "tbody",
        {},
        page.lines.map((line) => episodeRow(app, line, withSources, withErrors)),
      ),
    ),
  );
}

function sortHead(name, label, kind, query) {
  const [up, down] = [query.sort === name, query.sort === `-${name}`];
  const next = down ? name : up ? "" : `-${name}`;
  return h(
    "th",
    { scope: "col", class: kind, "aria-sort": up ? "ascending" : down ? "descending" : null },
    h("a", { href: filtered(query, { sort: next }), "data-key": `sort-${name}` }, label, up ? " ▲" : down ? " ▼" : ""),
  );
}

function episodeRow(app, line, withSources, withErrors) {
  const opens = app.source.opens(line.id);
  const href = routeTo("episode", line.id);
  const label = outcomeBadge(line.outcome);
  return h(
    "tr",
    {
      "data-item": true,
      "data-key": `line-${line.id}`,
      class: opens ? "opens" : "left-out",
      onclick: (event) => opens && !event.target.closest("a") && app.go(href),
    },
    h(
      "td",
      {},
      opens
        ? h("a", { href, "data-open": true, title: line.id }, label)
        : h("span", { title: "Listed only: this file does not hold it." }, label),
    ),
    h("td", { class: "task", title: `${line.task}\n${line.id}` }, line.task),
    h("td", { class: "n" }, line.batch ?? MISSING),
    h("td", { class: "n" }, number(line.reward)),
    h("td", { class: "n" }, number(line.steps)),
    h("td", { class: "n" }, number(line.tokens)),
    h("td", { class: "n" }, number(line.calls)),
    h("td", { class: line.wrong_calls ? "n bad" : "n dim" }, number(line.wrong_calls)),
    h("td", { class: "n" }, duration(line.seconds)),
    withSources ? h("td", { class: "dim" }, line.source, line.forked_from ? ", forked" : "") : null,
    withErrors ? h("td", { class: "error", title: line.error }, line.error) : null,
  );
}

export function outcomeBadge(name) {
  const { label, tone, mark, note } = outcomeWords(name);
  return h(
    "span",
    { class: `badge ${tone}`, title: note },
    h("span", { class: "mark", "aria-hidden": "true" }, mark),
    label,
  );
}

function nothingFits(query) {
  const filters = Object.keys(query).filter((name) => !["page", "sort"].includes(name));
  return h(
    "p",
    { class: "empty" },
    filters.length
      ? ["No episode fits. ", h("a", { href: routeTo("episodes") }, "Remove every filter"), "."]
      : "No episode has ended yet.",
  );
}
