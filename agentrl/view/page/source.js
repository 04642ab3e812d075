// Where the data comes from: a server that is asked, or the book that a static file holds. Screens see no difference.

export function openSource() {
  const book = document.getElementById("book");
  return book ? new BookSource(JSON.parse(book.textContent)) : new ServerSource();
}

class ServerSource {
  live = true;
  #kept = new Map();

  overview = () => this.#ask("overview");
  revision = () => this.#ask("revision");
  grid = () => this.#ask("grid");
  episodes = (query) => this.#ask("episodes", query);
  episode = (id, run = "") => this.#ask(`episode/${encodeURIComponent(id)}`, { run });
  opens = () => true;
  picture = (address) => address;

  // Members of a group are read again and again while they are compared: the last few are kept.
  async member(id, run = "") {
    const key = `${run}/${id}`;
    if (!this.#kept.has(key)) this.#kept.set(key, await this.episode(id, run));
    if (this.#kept.size > 64) this.#kept.delete(this.#kept.keys().next().value);
    return this.#kept.get(key);
  }

  async #ask(path, query = {}) {
    const set = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    const search = new URLSearchParams(set).toString();
    let answer;
    try {
      answer = await fetch(`api/${path}${search ? `?${search}` : ""}`);
    } catch {
      throw new Error(
        "the server does not answer. Is `agentrl view` still running? This page asks it again when it is.",
      );
    }
    const said = await answer.json().catch(() => ({ error: `the server answered ${answer.status} without JSON.` }));
    if (!answer.ok) throw new Error(said.error ?? `the server answered ${answer.status}.`);
    return said;
  }
}

class BookSource {
  live = false;

  constructor(book) {
    this.book = book;
  }

  overview = async () => this.book.overview;
  grid = async () => this.book.grid;
  opens = (id, run = "") => Object.hasOwn(this.book.episodes, bookKey(id, run));
  picture = (address) => (Object.hasOwn(this.book.images, address) ? this.book.images[address] : "");
  member = (id, run = "") => this.episode(id, run);

  async episode(id, run = "") {
    if (!this.opens(id, run)) {
      throw new Error(
        `episode ${id} is not in this file, which holds ${Object.keys(this.book.episodes).length} episodes. \`agentrl view\` on the folder opens every one.`,
      );
    }
    return this.book.episodes[bookKey(id, run)];
  }

  async episodes(query) {
    const { sort = "", offset = 0, limit = 100 } = query;
    const lines = this.book.lines.filter((line) => fitsQuery(line, query));
    const name = sort.replace(/^-/, "");
    if (name) lines.sort((a, b) => (sort.startsWith("-") ? -1 : 1) * inOrder(a[name], b[name]));
    const unlisted = this.book.unlisted ?? 0;
    return {
      total: lines.length,
      unlisted,
      offset: Number(offset),
      lines: lines.slice(Number(offset), Number(offset) + Number(limit)),
    };
  }
}

function bookKey(id, run) {
  return run ? `${id}?run=${run}` : id;
}

function fitsQuery(line, query) {
  if (query.outcome && !query.outcome.split(",").includes(line.outcome)) return false;
  for (const name of ["task", "batch", "group", "source"]) {
    if (query[name] && String(line[name]) !== query[name]) return false;
  }
  const words = (query.search ?? "").toLowerCase();
  return !words || [line.id, line.task, line.outcome, line.error].some((text) => text.toLowerCase().includes(words));
}

function inOrder(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return a < b ? -1 : a > b ? 1 : 0;
}
