// The steps of an episode, top to bottom: what was shown, what the policy answered, what came back.

import { MISSING, callWords, duration, plural, signed } from "./format.js";
import { foldedText, h, isPicture } from "./dom.js";
import { tokenStrip } from "./lens.js";

const LINE = 96;

export function stepCards(app, episode, scale, tell) {
  const cards = episode.steps.map((step, i) => stepCard(app, step, episode.steps[i - 1], scale, tell));
  const final = withoutResults(episode.final, episode.steps.at(-1));
  return h(
    "div",
    { class: "steps" },
    cards,
    final.length
      ? h(
          "section",
          { class: "step last" },
          h("header", {}, h("h3", {}, "End")),
          h(
            "div",
            { class: "body" },
            h(
              "div",
              { class: "said" },
              final.map((message, i) => messageBlock(message, `final-${i}`)),
            ),
          ),
        )
      : null,
  );
}

function stepCard(app, step, before, scale, tell) {
  const seconds = step.seconds.waiting + step.seconds.model + step.seconds.environment + step.seconds.reward;
  const byTokens = scale.name !== "off";
  const tag = (words, title) => h("span", { class: "tag", title }, words);
  return h(
    "section",
    {
      class: `step${step.shared ? " shared" : ""}`,
      "data-item": true,
      "data-key": `step-${step.id}`,
      "data-step": String(step.index + 1),
      tabindex: "-1",
    },
    h(
      "header",
      {},
      h("h3", {}, h("span", { class: "word" }, "Step "), String(step.index + 1)),
      h(
        "p",
        { class: `reward ${step.reward > 0 ? "good" : step.reward < 0 ? "bad" : "dim"}`, title: "reward of this step" },
        step.reward ? signed(step.reward) : "0",
        h("span", { class: "word" }, " reward"),
      ),
      h("p", { class: "dim" }, duration(seconds)),
      step.tokens.length ? h("p", { class: "dim" }, plural(step.tokens.length, "token")) : null,
      step.shared ? tag("shared", "Taken over from the episode that this one was forked from.") : null,
      step.source !== "policy" ? tag(step.source, "Who decided this step.") : null,
      step.anchor ? h("p", { class: "anchor", title: `anchor: ${step.anchor}` }, step.anchor) : null,
    ),
    h(
      "div",
      { class: "body" },
      h(
        "div",
        { class: "said" },
        byTokens
          ? tokenStrip(step, scale, tell)
          : [
              withoutResults(step.shown, before).map((message, i) => messageBlock(message, `${step.id}-${i}`)),
              answerBlock(step),
            ],
        step.tree
          ? h(
              "details",
              { class: "tree", "data-key": `tree-${step.id}` },
              h("summary", {}, `Accessibility tree, ${plural(step.tree.split("\n").length, "line")}`),
              h("pre", { class: "text" }, step.tree),
            )
          : null,
        step.error ? h("p", { class: "mistake" }, h("b", {}, "Told to the model: "), step.error) : null,
        scoreList(step),
      ),
      pictures(app, step),
    ),
  );
}

// What came back stands beside its call or its mistake; the same words at the head of the next step are not said twice.
function withoutResults(messages, before) {
  const said = [...(before?.calls ?? []).map((call) => call.result), before?.error].filter(Boolean);
  return messages.filter((message) => {
    const at = said.indexOf(message.content);
    if (at >= 0) said.splice(at, 1);
    return at < 0;
  });
}

function messageBlock(message, key) {
  return h(
    "div",
    { class: `message ${["system", "user", "assistant", "tool"].includes(message.role) ? message.role : ""}` },
    h("span", { class: "role" }, message.role, message.name ? ` ${message.name}` : ""),
    foldedText(message.content, `message-${key}`, message.role === "system" ? 8 : 18),
  );
}

function answerBlock(step) {
  return h(
    "div",
    { class: "answer" },
    h("span", { class: "role" }, step.source === "policy" ? "policy" : step.source),
    h(
      "div",
      {},
      step.reasoning
        ? h(
            "details",
            { class: "reasoning", open: step.reasoning.length < 600, "data-key": `reasoning-${step.id}` },
            h("summary", {}, "Reasoning"),
            h("pre", { class: "text" }, step.reasoning),
          )
        : null,
      step.text ? foldedText(step.text, `text-${step.id}`) : null,
      step.calls.map((call, i) => callBlock(call, `${step.id}-${i}`)),
      !step.text && !step.calls.length ? h("p", { class: "empty" }, "It said nothing.") : null,
    ),
  );
}

function callBlock(call, key) {
  const plain = call.arguments !== null && typeof call.arguments === "object" && !Array.isArray(call.arguments);
  const line = callWords(call, LINE + 1);
  return h(
    "div",
    { class: `call${call.error ? " mistake" : ""}` },
    h(
      "div",
      { class: "asked" },
      line.length <= LINE ? h("b", { class: "name" }, line) : h("b", { class: "name" }, call.name),
      line.length <= LINE
        ? null
        : plain
          ? h(
              "dl",
              {},
              Object.entries(call.arguments).map(([name, value]) => [
                h("dt", {}, name),
                h("dd", {}, foldedText(argumentWords(value), `argument-${key}-${name}`, 12)),
              ]),
            )
          : foldedText(JSON.stringify(call.arguments) ?? "", `arguments-${key}`),
    ),
    h(
      "div",
      { class: "came" },
      h("span", { class: "role" }, call.error ? "refused" : "result"),
      call.result ? foldedText(call.result, `result-${key}`) : h("span", { class: "dim" }, MISSING),
    ),
  );
}

function argumentWords(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 1);
}

// The screenshots of a step; a ring lies where the action clicked.
function pictures(app, step) {
  const known = step.images.map((address) => app.source.picture(address)).filter(isPicture);
  if (!known.length)
    return step.images.length ? h("p", { class: "empty" }, "This file does not hold the screenshots.") : null;
  return h(
    "div",
    { class: "pictures" },
    known.map((address, i) => {
      const figure = h(
        "button",
        {
          type: "button",
          class: "picture",
          title: "Larger or smaller",
          onclick: (event) => event.currentTarget.classList.toggle("large"),
        },
        h("img", { src: address, alt: `Screenshot ${i + 1} before step ${step.index + 1}`, loading: "lazy" }),
        i === known.length - 1
          ? step.marks.map(([x, y], place) =>
              h(
                "span",
                { class: "click", vars: { "--x": String(x), "--y": String(y) } },
                h(
                  "span",
                  { class: "unseen" },
                  `click ${place + 1} at ${Math.round(100 * x)} %, ${Math.round(100 * y)} %`,
                ),
              ),
            )
          : null,
      );
      return figure;
    }),
  );
}

function scoreList(step) {
  const terms = Object.entries(step.scores);
  if (!terms.length) return null;
  return h(
    "ul",
    { class: "scores", "aria-label": "Terms of the reward" },
    terms.map(([name, value]) =>
      h(
        "li",
        {},
        name,
        " ",
        h("b", { class: value > 0 ? "good" : value < 0 ? "bad" : "dim" }, value ? signed(value) : "0"),
      ),
    ),
  );
}
