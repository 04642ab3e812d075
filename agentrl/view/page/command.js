// A command to copy into a shell. What it names is quoted, so that an id out of a folder is a word and never a command.

import { h } from "./dom.js";

export function commandLine(app, command, key) {
  const shown = h("code", {}, command);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(command);
      app.say("The command is copied.");
    } catch {
      window.getSelection().selectAllChildren(shown);
      app.say("The command is selected: copy it with the keyboard.");
    }
  };
  return h(
    "div",
    { class: "command" },
    h("pre", {}, shown),
    h("button", { type: "button", onclick: copy, "data-key": `copy-${key}` }, "Copy"),
  );
}

export function shellWord(text) {
  if (/^[\w./:@%+=][\w./:@%+=-]*$/.test(text)) return text;
  // A control character could end the line or the quotes in a terminal.
  return `'${text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?").replaceAll("'", "'\\''")}'`;
}
