// A group side by side: what each member did at each step, and how it was credited for it.

import { callBrief, clipped, number, signed } from "./format.js";
import { h } from "./dom.js";
import { outcomeBadge } from "./episodes.js";
import { routeTo } from "./route.js";

const MEMBERS_SHOWN = 24;

export function groupTable(app, episode, run) {
  const members = episode.group.slice(0, MEMBERS_SHOWN);
  const end = advantageEnd(members);
  const longest = Math.max(1, ...members.map((member) => member.steps));
  const cells = members.map((member) =>
    Array.from({ length: longest }, (_, i) => memberCell(app, member, i, end, run)),
  );
  fillMembers(app, members, cells, run);
  const rewards = episode.group.map((member) => member.reward);
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / Math.max(1, rewards.length);
  return h(
    "div",
    { class: "group" },
    h(
      "p",
      { class: "dim" },
      `${episode.group.length} episodes of one task, mean reward ${number(mean)}. `,
      "The edge of a cell is the mean advantage of its tokens: blue raises its probability, orange lowers it, grey was not trained on.",
      episode.group.length > MEMBERS_SHOWN ? ` The first ${MEMBERS_SHOWN} are shown.` : "",
    ),
    h(
      "div",
      { class: "scroller" },
      h(
        "table",
        { class: "members" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, "step"),
            members.map((member) => memberHead(app, member, episode.line.id, run)),
          ),
        ),
        h(
          "tbody",
          {},
          Array.from({ length: longest }, (_, i) =>
            h(
              "tr",
              { "data-item": true, "data-key": `row-${i}` },
              h("th", { scope: "row" }, String(i + 1)),
              cells.map((column) => column[i]),
            ),
          ),
        ),
      ),
    ),
  );
}

export function advantageEnd(members) {
  let end = 1e-9;
  for (const member of members) for (const value of member.step_advantages) end = Math.max(end, Math.abs(value ?? 0));
  return end;
}

function memberHead(app, member, current, run) {
  const here = member.id === current;
  const words = [outcomeBadge(member.outcome), h("span", { class: "reward" }, number(member.reward))];
  return h(
    "th",
    { scope: "col", class: here ? "here" : null, title: member.id },
    here || !app.source.opens(member.id, run)
      ? h("span", { class: "who" }, words)
      : h("a", { class: "who", href: routeTo("episode", member.id, { view: "group", run }) }, words),
    here ? h("small", {}, "this episode") : member.forked_from ? h("small", {}, "forked") : null,
  );
}

function memberCell(app, member, index, end, run) {
  if (index >= member.steps) return h("td", { class: "none" });
  const advantage = member.step_advantages[index] ?? null;
  const side = advantage === null ? "untrained" : advantage > 0 ? "plus" : advantage < 0 ? "minus" : "zero";
  const weight = advantage === null ? 0 : Math.abs(advantage) / end;
  return h(
    "td",
    {
      class: side,
      vars: { "--w": weight.toFixed(3) },
      title: advantage === null ? "not trained on" : `advantage ${signed(advantage)}`,
    },
    app.source.opens(member.id, run)
      ? h("a", { href: routeTo("episode", member.id, { step: index + 1, run }), "data-open": true }, "…")
      : h("span", { class: "dim" }, "not in this file"),
  );
}

// One after another, so that a large group is not read in one burst.
async function fillMembers(app, members, cells, run) {
  for (const [i, member] of members.entries()) await fillMember(app, member, cells[i], run);
}

async function fillMember(app, member, cells, run) {
  if (!app.source.opens(member.id, run)) return;
  try {
    const { steps } = await app.source.member(member.id, run);
    steps.forEach((step, i) => {
      const link = cells[i]?.querySelector("a");
      if (link) link.textContent = actionWords(step);
      if (step.error) cells[i]?.classList.add("mistake");
    });
  } catch (error) {
    cells[0]?.replaceChildren(h("span", { class: "bad" }, error.message));
  }
}

export function actionWords(step) {
  if (step.calls.length) return step.calls.map((call) => callBrief(call)).join(" · ");
  return clipped(step.text, 80) || "(nothing)";
}
