// The token lens: every token of a step, coloured by what is known of it. What was not trained on is grey.

import { MISSING, number, percent, signed } from "./format.js";
import { scaleBar } from "./plot.js";
import { h } from "./dom.js";

export const LENSES = ["off", "logprob", "trained", "advantage", "mismatch"];
const LEAST_LOGPROB = -5;
const LEAST_MISMATCH = 0.001;
const PROMPT_SHOWN = 600;

export function lensName(query) {
  return LENSES.includes(query.lens) ? query.lens : "off";
}

// What a lens needs to know of the whole episode: the ends of its scale.
export function lensScale(name, steps) {
  const most = (field, least) => {
    let size = least;
    for (const step of steps) for (const token of step.tokens) size = Math.max(size, Math.abs(token[field] ?? 0));
    return size;
  };
  if (name === "advantage") return { name, end: most("advantage", 0) };
  if (name === "mismatch") return { name, end: most("mismatch", LEAST_MISMATCH) };
  return { name, end: LEAST_LOGPROB };
}

export function lensLegend(scale, steps) {
  const counts = { all: 0, trained: 0, prompt: 0 };
  for (const step of steps) {
    counts.prompt += step.prompt_tokens;
    counts.all += step.tokens.length;
    for (const token of step.tokens) counts.trained += token.trained ? 1 : 0;
  }
  const key = {
    logprob: () => scaleBar("rising", 0, scale.end, "nats: the stronger, the less likely the sampler found it"),
    trained: () =>
      h(
        "span",
        { class: "keys" },
        h("span", { class: "tok on" }, "trained on"),
        h("span", { class: "tok off" }, "sampled, not trained on"),
      ),
    advantage: () =>
      scale.end > 0
        ? scaleBar("diverging", -scale.end, scale.end, "what its gradient was multiplied with")
        : h("span", {}, "Every advantage is 0 or unknown: this episode gave no gradient."),
    mismatch: () => scaleBar("diverging", -scale.end, scale.end, "nats: learner's minus sampler's log-probability"),
  }[scale.name];
  return h(
    "div",
    { class: "lens-legend" },
    key ? key() : null,
    h("span", { class: "keys" }, h("span", { class: "tok prompt" }, "prompt: read, never trained on")),
    h(
      "span",
      { class: "counts" },
      `${counts.trained.toLocaleString("en")} of ${counts.all.toLocaleString("en")} sampled tokens were trained on; ${counts.prompt.toLocaleString("en")} prompt tokens`,
    ),
  );
}

// The tokens of a step in a row. Arrow keys move from token to token; `tell(token)` shows the numbers of one.
export function tokenStrip(step, scale, tell) {
  if (!step.tokens.length) {
    return h("p", { class: "empty" }, "A chat API answered, or nothing was sampled: this step has no tokens.");
  }
  const spans = step.tokens.map((token, i) =>
    h(
      "span",
      {
        class: `tok ${tokenClass(token, scale)}`,
        vars: { "--w": tokenWeight(token, scale).toFixed(3) },
        "data-i": String(i),
      },
      visible(token.text, token.id),
    ),
  );
  const strip = h(
    "div",
    {
      class: "strip",
      tabindex: "0",
      role: "group",
      "data-key": `strip-${step.id}`,
      "aria-label": `${step.tokens.length} tokens of step ${step.index + 1}. Arrow keys move.`,
    },
    promptPart(step),
    spans,
  );
  let chosen = -1;
  const choose = (index) => {
    spans[chosen]?.classList.remove("chosen");
    chosen = Math.min(spans.length - 1, Math.max(0, index));
    spans[chosen].classList.add("chosen");
    tell(step.tokens[chosen], step, chosen);
  };
  const indexOf = (event) => Number(event.target.closest?.("[data-i]")?.dataset.i ?? -1);
  strip.addEventListener("pointerover", (event) => indexOf(event) >= 0 && choose(indexOf(event)));
  strip.addEventListener("focus", () => choose(Math.max(0, chosen)));
  strip.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -1e9, End: 1e9 }[event.key];
    if (!move) return;
    event.preventDefault();
    choose(chosen + move);
  });
  return strip;
}

function promptPart(step) {
  const { prompt } = step;
  if (!prompt) return null;
  if (prompt.length <= PROMPT_SHOWN) return h("span", { class: "tok prompt" }, visible(prompt));
  return [
    h(
      "details",
      { class: "long-prompt", "data-key": `prompt-${step.id}` },
      h("summary", {}, `prompt: ${step.prompt_tokens.toLocaleString("en")} tokens, not trained on`),
      h("span", { class: "tok prompt" }, visible(prompt)),
    ),
    h("span", { class: "tok prompt tail" }, `…${visible(prompt.slice(-200))}`),
  ];
}

function tokenClass(token, { name }) {
  if (name === "trained") return token.trained ? "on" : "off";
  if (name === "logprob") return Number.isFinite(token.logprob) ? "rising" : "off";
  if (!token.trained || token[name] === null || !Number.isFinite(token[name])) return "off";
  return token[name] > 0 ? "plus" : token[name] < 0 ? "minus" : "zero";
}

function tokenWeight(token, { name, end }) {
  const value = name === "trained" ? end : token[name];
  if (value === null || value === undefined || !Number.isFinite(value)) return 0;
  return Math.min(1, Math.max(0, name === "logprob" ? value / end : Math.abs(value) / (Math.abs(end) || 1)));
}

// White space that a reader would miss, made visible. A token without text says its number.
function visible(text, id) {
  if (text === "") return id === undefined ? "" : `⟨${id}⟩`;
  return text.replaceAll("\r", "␍").replaceAll("\t", "⇥\t").replaceAll("\n", "↵\n");
}

export function tokenFacts(token, step, place) {
  if (!token)
    return h("p", { class: "empty" }, "Point at a token, or focus a step's tokens and move with the arrow keys.");
  const rows = [
    ["token", h("code", {}, JSON.stringify(token.text))],
    ["id", String(token.id)],
    ["place", `step ${step.index + 1}, token ${place + 1} of ${step.tokens.length}`],
    [
      "logprob",
      token.logprob === null ? MISSING : `${number(token.logprob)} nats (${percent(Math.exp(token.logprob))})`,
    ],
    ["trained on", token.trained ? "yes" : "no"],
    ["advantage", token.advantage === null ? MISSING : signed(token.advantage)],
    [
      "mismatch",
      token.mismatch === null
        ? MISSING
        : `${signed(token.mismatch)} nats (ratio ${number(Math.exp(token.mismatch), 4)})`,
    ],
    ["policy version", String(token.version)],
  ];
  return h(
    "dl",
    { class: "token-facts" },
    rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}
