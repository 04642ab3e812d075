// Makes elements. What is shown is untrusted: it becomes text nodes and checked attributes here, never markup.

const SVG_SPACE = "http://www.w3.org/2000/svg";
const LINKS = /^#/;
const PICTURES = /^(api\/image\/|data:image\/(png|jpeg|webp|gif);base64,)/;

export function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return build(document.createElementNS(SVG_SPACE, tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, set] of Object.entries(value)) element.style.setProperty(key, set);
    else element.setAttribute(name, allowed(name, value === true ? "" : String(value)));
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

// A link stays on this page and a picture comes from this server: an address out of an episode leads nowhere else.
function allowed(name, value) {
  const rule = { href: LINKS, src: PICTURES, style: /^$/, srcdoc: /^$/ }[name];
  if (rule && !rule.test(value)) throw new Error(`${name}="${value.slice(0, 60)}" is not allowed on this page.`);
  return value;
}

// Words with `code` between backticks.
export function withCode(text) {
  return text.split("`").map((part, i) => (i % 2 ? build(document.createElement("code"), {}, [part]) : part));
}

export function isPicture(address) {
  return PICTURES.test(address);
}

// Long text, folded to its first lines. `key` lets a redraw leave it as the reader left it.
export function foldedText(text, key, lines = 18) {
  const rows = text.split("\n");
  if (rows.length <= lines + 4 && text.length <= 2400) return h("pre", { class: "text" }, text);
  const head = rows.slice(0, lines).join("\n").slice(0, 1600);
  const more = `${rows.length.toLocaleString("en")} lines, ${text.length.toLocaleString("en")} characters`;
  const preview = h("pre", { class: "text fade" }, head);
  return h(
    "div",
    { class: "folded" },
    h(
      "details",
      { "data-key": key },
      h(
        "summary",
        {},
        h("span", { class: "when-shut" }, `Show all: ${more}`),
        h("span", { class: "when-open" }, "Show less"),
      ),
      h("pre", { class: "text" }, text),
    ),
    preview,
  );
}

// Draws anew without losing the reader's place: what is unfolded, focused and scrolled to stays so.
export function redraw(root, content) {
  const folds = new Map([...root.querySelectorAll("details[data-key]")].map((fold) => [fold.dataset.key, fold.open]));
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const current = root.querySelector("[data-item].current")?.dataset.key;
  const [left, top] = [window.scrollX, window.scrollY];
  root.replaceChildren(content);
  for (const fold of root.querySelectorAll("details[data-key]")) {
    if (folds.has(fold.dataset.key)) fold.open = folds.get(fold.dataset.key);
  }
  for (const item of root.querySelectorAll("[data-item]")) {
    item.classList.toggle("current", current !== undefined && item.dataset.key === current);
  }
  if (focused !== undefined) {
    const again = [...root.querySelectorAll("[data-key]")].find((element) => element.dataset.key === focused);
    again?.focus({ preventScroll: true });
  }
  window.scrollTo(left, top);
}
