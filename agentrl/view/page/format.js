// Says numbers and outcomes in words. A number that is not there is a dash, never a zero.

export const MISSING = "–";

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  const size = Math.abs(value);
  return (value < 0 ? "−" : "") + unsigned(size, digits);
}

function unsigned(size, digits) {
  if (Number.isInteger(size) || size >= 1000) return Math.round(size).toLocaleString("en");
  return size < 0.001 ? Number(size.toPrecision(digits)).toExponential() : String(Number(size.toPrecision(digits)));
}

export function signed(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  return (value > 0 ? "+" : "") + number(value, digits);
}

export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return MISSING;
  return `${(100 * share).toFixed(1)}%`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return MISSING;
  if (seconds < 0.001) return "0 s";
  if (seconds < 1) return `${number(seconds * 1000, 2)} ms`;
  if (seconds < 120) return `${number(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function withUnit(value, unit) {
  if (unit === "share") return percent(value);
  if (unit === "seconds") return duration(value);
  return unit ? `${number(value)} ${unit}` : number(value);
}

export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

const OUTCOMES = {
  success: ["success", "good", "✓", "The environment says that the goal was reached."],
  wrong_answer: ["wrong answer", "bad", "✕", "It came to an end of its own, and that was not the goal."],
  limit: ["limit", "bad", "⊣", "A limit on steps or tokens ended it."],
  malformed_call: [
    "malformed call",
    "bad",
    "{",
    "Most of its mistakes were calls that could not be read or were refused.",
  ],
  unknown_tool: ["unknown tool", "bad", "?", "Most of its mistakes were calls of tools that are not there."],
  gave_up: ["gave up", "bad", "∅", "Its last action says nothing."],
  suspected_hack: ["suspected hack", "odd", "!", "A success that the environment or a reward model doubts."],
  environment: ["environment", "fault", "E", "The environment broke; the episode is not scored."],
  infrastructure: [
    "infrastructure",
    "fault",
    "I",
    "An engine, a judge or a deadline failed; the episode is not scored.",
  ],
};

export const OUTCOME_NAMES = Object.keys(OUTCOMES);

export function outcomeWords(name) {
  const [label, tone, mark, note] = OUTCOMES[name] ?? [name, "", "·", ""];
  return { label, tone, mark, note };
}

// A call as the model would say it, arguments shortened.
export function callWords(call, width = 90) {
  const plain = call.arguments !== null && typeof call.arguments === "object" && !Array.isArray(call.arguments);
  const parts = plain
    ? Object.entries(call.arguments).map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    : [JSON.stringify(call.arguments) ?? ""];
  return clipped(`${call.name}(${parts.join(", ")})`, width);
}

// The same in a table's cell: values without their names.
export function callBrief(call, width = 48) {
  const values =
    call.arguments !== null && typeof call.arguments === "object" ? Object.values(call.arguments) : [call.arguments];
  const words = values.map((value) => (typeof value === "string" ? value : (JSON.stringify(value) ?? "")));
  return clipped(`${call.name}(${words.join(", ")})`, width);
}

export function clipped(text, width) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > width ? `${line.slice(0, width - 1)}…` : line;
}
