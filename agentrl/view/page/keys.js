// The keyboard. Keys work wherever no text is being typed, and `?` lists them.

import { h } from "./dom.js";

const KEYS = [
  ["1 2 3 4", "overview, episodes, grid, episode"],
  ["j k", "next, previous row or step"],
  ["Enter", "open"],
  ["Esc", "back to the list"],
  ["[ ]", "previous, next episode"],
  ["l", "next mode of the token lens"],
  ["← → ↑ ↓", "from token to token, from point to point"],
  ["/", "search"],
  ["?", "this list"],
];

export function listenToKeys(app) {
  const help = helpDialog();
  document.body.append(help);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "Escape" && typing) typing.blur();
    if (typing || help.open) return;
    if (pressed(app, event, help)) event.preventDefault();
  });
  return () => help.showModal();
}

function pressed(app, event, help) {
  const { key } = event;
  if (key === "?") help.showModal();
  else if (key === "/") app.focusSearch();
  else if (key === "j" || key === "k") moveCurrent(key === "j" ? 1 : -1, app);
  else if (key === "Enter") return openCurrent(event);
  else if (key === "Escape") app.back();
  else if (key === "[" || key === "]") app.neighbour(key);
  else if (key === "l") app.nextLens();
  else if ("1234".includes(key)) app.screen(Number(key) - 1);
  else return false;
  return true;
}

function items() {
  return [...document.querySelectorAll("main [data-item]")].filter((item) =>
    item.checkVisibility({ contentVisibilityAuto: false }),
  );
}

export function markCurrent(item) {
  document.querySelector("main [data-item].current")?.classList.remove("current");
  item.classList.add("current");
  item.scrollIntoView({ block: "nearest" });
}

function moveCurrent(by, app) {
  const all = items();
  const at = all.findIndex((item) => item.classList.contains("current"));
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
  if (!next) return;
  if (next.dataset.step) app.showStep(Number(next.dataset.step));
  else markCurrent(next);
}

// Enter on a link or a button is the browser's; elsewhere it opens the current row.
function openCurrent(event) {
  if (event.target.closest("a, button, summary")) return false;
  const target = document.querySelector("main [data-item].current [data-open]");
  if (!target) return false;
  if (target.matches("a")) target.click();
  else target.focus();
  return true;
}

function helpDialog() {
  const dialog = h(
    "dialog",
    { class: "help", "aria-label": "Keyboard" },
    h("h2", {}, "Keyboard"),
    h(
      "dl",
      {},
      KEYS.map(([keys, words]) => [
        h(
          "dt",
          {},
          keys.split(" ").map((key) => h("kbd", {}, key)),
        ),
        h("dd", {}, words),
      ]),
    ),
    h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
  );
  return dialog;
}
