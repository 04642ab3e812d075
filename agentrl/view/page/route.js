// The address of what is shown, kept behind the `#`: every screen, filter and step has a link that opens it again.

export const SCREEN_NAMES = ["overview", "episodes", "grid", "episode"];

export function parseRoute(hash) {
  const [path, search] = hash.replace(/^#\/?/, "").split("?", 2);
  const [name, id] = path.split("/", 2);
  const query = Object.fromEntries(new URLSearchParams(search ?? ""));
  return { screen: SCREEN_NAMES.includes(name) ? name : "overview", id: unescaped(id), query };
}

export function routeTo(screen, id = "", query = {}) {
  const set = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = new URLSearchParams(set.map(([key, value]) => [key, String(value)])).toString();
  return `#/${screen}${id ? `/${encodeURIComponent(id)}` : ""}${search ? `?${search}` : ""}`;
}

function unescaped(text) {
  try {
    return decodeURIComponent(text ?? "");
  } catch {
    return text;
  }
}
