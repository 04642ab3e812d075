// Tasks by runs: who solves what. The tasks on which the runs disagree come first.

import { MISSING, percent, plural } from "./format.js";
import { h } from "./dom.js";
import { routeTo } from "./route.js";

const TASKS_A_PAGE = 200;
const ATTEMPTS_SHOWN = 12;

export const gridScreen = {
  key: () => "grid",
  title: () => "Grid",
  load: (app) => app.source.grid(),
  draw(app, grid, route) {
    const { query } = route;
    const words = (query.search ?? "").toLowerCase();
    const flips = grid.rows.filter((row) => row.flipped).length;
    const fitting = grid.rows.filter(
      (row) => (query.flips !== "1" || row.flipped) && row.task.toLowerCase().includes(words),
    );
    const page = Math.max(1, Number.parseInt(query.page ?? "1", 10) || 1);
    const shown = fitting.slice(TASKS_A_PAGE * (page - 1), TASKS_A_PAGE * page);
    const to = (target) => routeTo("grid", "", { ...query, page: target > 1 ? target : "" });
    return h(
      "div",
      { class: "grid" },
      h("h1", { class: "unseen" }, "Tasks by runs"),
      h(
        "div",
        { class: "under-chips" },
        h(
          "div",
          { class: "chips" },
          h(
            "a",
            {
              class: "chip",
              href: routeTo("grid"),
              "aria-current": query.flips !== "1" && !words ? "true" : null,
              "data-key": "grid-all",
            },
            "all tasks ",
            h("span", { class: "count" }, String(grid.rows.length)),
          ),
          grid.runs.length > 1
            ? h(
                "a",
                {
                  class: "chip odd",
                  href: routeTo("grid", "", { ...query, flips: query.flips === "1" ? "" : "1", page: "" }),
                  "aria-current": query.flips === "1" ? "true" : null,
                  "data-key": "grid-flips",
                },
                "flipped ",
                h("span", { class: "count" }, String(flips)),
              )
            : null,
          words
            ? h(
                "a",
                { class: "chip set", href: routeTo("grid", "", { ...query, search: "" }) },
                `contains “${query.search}” ×`,
              )
            : null,
        ),
        h(
          "div",
          { class: "pager" },
          h("span", { role: "status" }, plural(fitting.length, "task")),
          page > 1 ? h("a", { href: to(page - 1), rel: "prev" }, "← back") : null,
          fitting.length > TASKS_A_PAGE * page ? h("a", { href: to(page + 1), rel: "next" }, "next →") : null,
        ),
      ),
      grid.left_out ? h("p", { class: "notice" }, `${plural(grid.left_out, "task")} more are not listed.`) : null,
      shown.length ? gridTable(app, grid.runs, shown) : h("p", { class: "empty" }, "No task fits."),
    );
  },
};

function gridTable(app, runs, rows) {
  return h(
    "div",
    { class: "scroller" },
    h(
      "table",
      { class: "tasks" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "task"),
          runs.map((run, i) =>
            h(
              "th",
              { scope: "col", title: run },
              run,
              i === 0 && app.overview.runs.length > 1 ? h("small", {}, " this one") : null,
            ),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            { class: row.flipped ? "flipped" : null, "data-item": true, "data-key": `task-${row.task}` },
            h(
              "th",
              { scope: "row", title: row.task },
              row.flipped ? h("span", { class: "flip", title: "The runs disagree" }, "⇄ ") : null,
              row.task,
            ),
            runs.map((_, i) => gridCell(app, row, i)),
          ),
        ),
      ),
    ),
  );
}

function gridCell(app, row, run) {
  const share = row.shares[run];
  const ids = row.episodes[run] ?? [];
  if (share === null || share === undefined) return h("td", { class: "untried", title: "Not tried" }, MISSING);
  const attempts = ids.slice(0, ATTEMPTS_SHOWN).map((id, i) => attemptLink(app, id, i, run));
  const rest = ids.length - attempts.length;
  const more =
    rest > 0 && run === 0
      ? h("a", { class: "attempt", href: routeTo("episodes", "", { task: row.task }) }, `+${rest}`)
      : rest > 0
        ? h("span", { class: "attempt" }, `+${rest}`)
        : null;
  return h(
    "td",
    {
      class: "share",
      vars: { "--share": String(share) },
      title: ids.length ? `${percent(share)} of ${plural(ids.length, "attempt")}` : percent(share),
    },
    h("span", { class: "percent" }, percent(share)),
    h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "fill" })),
    h("span", { class: "attempts" }, attempts, more),
  );
}

function attemptLink(app, id, place, run) {
  const words = String(place + 1);
  if (!app.source.opens(id, run ? String(run) : "")) return h("span", { class: "attempt", title: id }, words);
  return h(
    "a",
    { class: "attempt", href: routeTo("episode", id, { run: run || "" }), title: id, "data-open": true },
    words,
  );
}
