// One episode: its facts, where its time went, and its steps, its group or its branches below.

import { MISSING, duration, number, plural } from "./format.js";
import { LENSES, lensLegend, lensName, lensScale, tokenFacts } from "./lens.js";
import { branchTree } from "./branches.js";
import { commandLine, shellWord } from "./command.js";
import { foldedText, h } from "./dom.js";
import { groupTable } from "./group.js";
import { outcomeBadge } from "./episodes.js";
import { routeTo } from "./route.js";
import { stepCards } from "./steps.js";
import { timelineBar } from "./timeline.js";

const VIEWS = ["steps", "group", "branches", "task"];
const LENS_WORDS = {
  off: "messages",
  logprob: "logprob",
  trained: "trained or not",
  advantage: "advantage",
  mismatch: "mismatch",
};

export const episodeScreen = {
  key: (route) => routeTo("episode", route.id, { run: route.query.run ?? "" }),
  title: (route) => `Episode ${route.id}`,
  load: (app, route) => app.source.episode(route.id, route.query.run ?? ""),
  draw(app, episode, route) {
    const view = VIEWS.includes(route.query.view) ? route.query.view : "steps";
    const draw = { steps: drawSteps, group: drawGroup, branches: drawBranches, task: drawTask }[view];
    return h(
      "div",
      { class: "episode" },
      episodeHead(app, episode, route),
      timelineBar(episode.steps, (step) => app.showStep(step.index + 1)),
      h(
        "nav",
        { class: "views", "aria-label": "Views of the episode" },
        VIEWS.map((name) =>
          h(
            "a",
            {
              href: viewLink(route, { view: name }),
              "aria-current": name === view ? "page" : null,
              "data-key": `view-${name}`,
            },
            viewWords(name, episode),
          ),
        ),
      ),
      draw(app, episode, route),
    );
  },
};

function viewLink(route, changes) {
  const query = { ...route.query, ...changes };
  return routeTo("episode", route.id, {
    ...query,
    view: query.view === "steps" ? "" : query.view,
    lens: query.lens === "off" ? "" : query.lens,
  });
}

// The link to the same place through the next lens.
export function nextLens(route) {
  const next = LENSES[(LENSES.indexOf(lensName(route.query)) + 1) % LENSES.length];
  return viewLink(route, { lens: next, view: "steps" });
}

function viewWords(name, episode) {
  return {
    steps: plural(episode.steps.length, "step"),
    group: `group of ${episode.group.length}`,
    branches: "branches",
    task: "task and replay",
  }[name];
}

function episodeHead(app, { line, given, previous, next }, route) {
  const fact = (label, value, note) => h("div", { class: "fact", title: note }, h("dt", {}, label), h("dd", {}, value));
  const run = route.query.run ?? "";
  const inRun = run ? app.overview.runs[Number(run)] : "";
  const step = (id, label, key) =>
    id && !run
      ? h("button", { type: "button", title: key, onclick: () => app.neighbour(key), "data-key": `go${key}` }, label)
      : null;
  return h(
    "header",
    { class: "head" },
    h(
      "div",
      { class: "line" },
      h("h1", {}, outcomeBadge(line.outcome), h("span", { class: "task" }, line.task)),
      h("span", { class: "steppers" }, step(previous, "← previous", "["), step(next, "next →", "]")),
    ),
    h(
      "dl",
      { class: "facts" },
      fact("reward", number(line.reward)),
      fact(
        "batch",
        line.batch === null
          ? MISSING
          : h("a", { href: routeTo("episodes", "", { batch: line.batch }) }, String(line.batch)),
        "The batch that trained on it.",
      ),
      fact("steps", number(line.steps)),
      fact("tokens", number(line.tokens), "Sampled by the policy."),
      fact(
        "calls",
        line.wrong_calls
          ? [number(line.calls), h("span", { class: "bad" }, `, ${number(line.wrong_calls)} wrong`)]
          : number(line.calls),
      ),
      fact("time", duration(line.seconds)),
      fact("status", line.status),
      line.source !== "policy" ? fact("by", line.source) : null,
      inRun ? fact("run", inRun) : null,
      fact("id", h("code", {}, line.id)),
    ),
    line.error ? h("p", { class: "mistake" }, line.error) : null,
    given
      ? h(
          "div",
          { class: "given" },
          h("b", {}, "The policy was told this, and it is not trained with it:"),
          foldedText(given, "given", 6),
        )
      : null,
  );
}

function drawSteps(app, episode, route) {
  const scale = lensScale(lensName(route.query), episode.steps);
  const facts = h("div", { class: "token-box", role: "status" }, tokenFacts(null));
  const tell = (token, step, place) => facts.replaceChildren(tokenFacts(token, step, place));
  const sampled = episode.steps.some((step) => step.tokens.length);
  const button = (name) =>
    h(
      "a",
      {
        href: viewLink(route, { lens: name }),
        "aria-current": name === scale.name ? "true" : null,
        "data-key": `lens-${name}`,
      },
      LENS_WORDS[name],
    );
  return h(
    "div",
    { class: `with-lens${scale.name === "off" ? "" : " on"}` },
    h(
      "div",
      { class: "lens" },
      h(
        "nav",
        { class: "lenses", "aria-label": "Token lens" },
        h("span", { class: "dim" }, "show as"),
        button("off"),
        h("span", { class: "dim" }, "or tokens by"),
        LENSES.slice(1).map(button),
      ),
      scale.name === "off" ? null : lensLegend(scale, episode.steps),
      scale.name === "off" || !sampled ? null : facts,
    ),
    stepCards(app, episode, scale, tell),
  );
}

function drawGroup(app, episode, route) {
  return episode.group.length
    ? groupTable(app, episode, route.query.run ?? "")
    : h("p", { class: "empty" }, "It has no group.");
}

function drawBranches(app, episode, route) {
  return episode.group.length
    ? branchTree(app, episode, route.query.run ?? "")
    : h("p", { class: "empty" }, "It has no group.");
}

function drawTask(app, episode, route) {
  const folder = shellWord(app.overview.folder);
  const id = shellWord(episode.line.id);
  const step = Math.max(1, Number.parseInt(route.query.step ?? "1", 10) || 1);
  const commands = [
    ["Play its actions again and show the first difference", `agentrl replay rerun ${folder} ${id}`],
    ["Keep it as a test", `agentrl replay rerun ${folder} ${id} --as-test tests/test_episode.py`],
    [
      `Go on from step ${step} with another policy`,
      `agentrl replay continue ${folder} ${id} --from ${step - 1} -m oracle`,
    ],
    ["Score it with the environment's reward as it is now", `agentrl replay rescore ${folder} ${id} --regrade`],
  ];
  return h(
    "div",
    {},
    route.query.run
      ? null
      : h(
          "section",
          { class: "panel" },
          h("h2", {}, "Take it up again"),
          commands.map(([words, command], i) => [
            h("p", { class: "dim" }, words),
            commandLine(app, command, `replay-${i}`),
          ]),
        ),
    h(
      "section",
      { class: "panel" },
      h("h2", {}, "Task"),
      h("pre", { class: "text" }, JSON.stringify(episode.task, null, 2)),
    ),
  );
}
