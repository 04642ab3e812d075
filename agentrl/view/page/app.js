// Puts the screens together: the address says what is shown; a run that is still being written is asked for news.

import { episodeScreen, nextLens } from "./episode.js";
import { h, redraw } from "./dom.js";
import { listenToKeys, markCurrent } from "./keys.js";
import { SCREEN_NAMES, parseRoute, routeTo } from "./route.js";
import { episodesScreen } from "./episodes.js";
import { gridScreen } from "./grid.js";
import { openSource } from "./source.js";
import { overviewScreen } from "./overview.js";

const SCREENS = { overview: overviewScreen, episodes: episodesScreen, grid: gridScreen, episode: episodeScreen };
const NEWS_EVERY = 2000;
const SELDOM_NEWS_EVERY = 8000; // A run that ended may be gone on with.

class App {
  source = openSource();
  overview = null;
  route = parseRoute(location.hash);
  listed = null;
  #loaded = { key: "", words: "", data: null };
  #asked = 0;
  #place = null;
  #lastList = routeTo("episodes");
  #lastEpisode = "";
  #part = (name) => document.getElementById(name);

  async start() {
    this.#part("search-form").addEventListener("submit", (event) => this.#search(event));
    const help = listenToKeys(this);
    this.#part("help").addEventListener("click", help);
    const top = this.#part("top");
    new ResizeObserver(() => document.documentElement.style.setProperty("--top", `${top.offsetHeight}px`)).observe(top);
    window.addEventListener("hashchange", () => this.#follow());
    await this.#follow();
    if (this.source.live) setTimeout(() => this.#listen(), NEWS_EVERY);
  }

  go(hash) {
    location.hash = hash;
  }

  say(words) {
    this.#part("status").textContent = words;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => this.#part("status").replaceChildren(), 4000);
  }

  screen(index) {
    if (SCREEN_NAMES[index] === "episode" && !this.#lastEpisode) this.say("No episode was opened yet.");
    else
      this.go(
        SCREEN_NAMES[index] === "episode"
          ? this.#lastEpisode
          : SCREEN_NAMES[index] === "episodes"
            ? this.#lastList
            : routeTo(SCREEN_NAMES[index]),
      );
  }

  back() {
    if (this.route.screen === "episode") this.go(this.#lastList);
    else if (this.route.screen !== "overview") this.go(routeTo("overview"));
  }

  focusSearch() {
    this.#part("search").focus();
    this.#part("search").select();
  }

  nextLens() {
    if (this.route.screen === "episode") this.#replace(nextLens(this.route));
  }

  // Step by number from 1: marked, brought into view, and part of the address.
  showStep(step) {
    const card = document.querySelector(`main [data-step="${step}"]`);
    if (!card) return;
    markCurrent(card);
    this.route.query = { ...this.route.query, step: String(step) };
    history.replaceState(null, "", routeTo("episode", this.route.id, this.route.query));
  }

  // The episode beside this one: in the list that it was opened from, else in the order of the ledger.
  async neighbour(key) {
    const episode = this.#loaded.data;
    if (this.route.screen !== "episode" || !episode?.line || this.route.query.run) return;
    const keep = { view: this.route.query.view ?? "", lens: this.route.query.lens ?? "" };
    let id = key === "[" ? episode.previous : episode.next;
    if (this.#place) {
      const index = this.#place.index + (key === "[" ? -1 : 1);
      const page =
        index < 0 ? { lines: [] } : await this.source.episodes({ ...this.#place.query, offset: index, limit: 1 });
      id = page.lines[0]?.id;
      if (id) this.#place = { ...this.#place, index };
    }
    if (id && this.source.opens(id)) this.go(routeTo("episode", id, keep));
    else this.say(key === "[" ? "This is the first one." : "This is the last one.");
  }

  #search(event) {
    event.preventDefault();
    const search = this.#part("search").value.trim();
    this.#part("search").blur();
    if (this.route.screen === "grid") this.go(routeTo("grid", "", { ...this.route.query, search, page: "" }));
    else
      this.go(
        routeTo("episodes", "", { ...(this.route.screen === "episodes" ? this.route.query : {}), search, page: "" }),
      );
  }

  #replace(hash) {
    history.replaceState(null, "", hash);
    this.#follow();
  }

  async #follow() {
    if (location.hash && !location.hash.startsWith("#/")) return;
    const before = this.route;
    this.route = parseRoute(location.hash);
    const { screen, query } = this.route;
    if (screen === "episodes") this.#lastList = routeTo("episodes", "", query);
    if (screen === "episode") this.#enterEpisode(before);
    this.#part("search").value = screen === "episodes" || screen === "grid" ? (query.search ?? "") : "";
    await this.#show();
  }

  #enterEpisode(before) {
    this.#lastEpisode = routeTo("episode", this.route.id, this.route.query);
    if (before.screen === "episode") return;
    const index =
      this.listed && before.screen === "episodes"
        ? this.listed.lines.findIndex((line) => line.id === this.route.id)
        : -1;
    this.#place = index < 0 ? null : { query: this.listed.query, index: this.listed.offset + index };
  }

  // Loads what the address names, unless it is here already, and draws it. An answer that comes too late is dropped.
  async #show(news = false) {
    const asked = ++this.#asked;
    const route = this.route;
    const screen = SCREENS[route.screen];
    const key = screen.key(route);
    const same = key === this.#loaded.key;
    try {
      if (news || !this.overview) this.overview = await this.source.overview();
      if (asked !== this.#asked) return;
      this.#head(screen.title(route)); // Before what may fail: its tabs are the way back.
      const fresh = news || !same;
      const data = fresh ? await screen.load(this, route) : this.#loaded.data;
      if (asked !== this.#asked) return;
      const words = fresh ? JSON.stringify(data) : this.#loaded.words;
      if (news && words === this.#loaded.words && route.screen !== "episodes") return;
      this.#loaded = { key, words, data };
      this.#draw(screen, route, same);
    } catch (error) {
      if (asked !== this.#asked) return;
      if (news && this.#loaded.key) throw error; // What is shown stays; the next news are asked for soon.
      this.#loaded = { key: "", words: "", data: null };
      this.#part("main").replaceChildren(h("p", { class: "trouble", role: "alert" }, error.message));
      if (!(error instanceof Error) || error.name !== "Error") throw error;
    }
  }

  #draw(screen, route, same) {
    const main = this.#part("main");
    const content = screen.draw(this, this.#loaded.data, route);
    if (same) {
      redraw(main, content);
      return;
    }
    main.replaceChildren(content);
    window.scrollTo(0, 0);
    if (route.query.step)
      document.querySelector(`main [data-step="${CSS.escape(route.query.step)}"]`)?.classList.add("current");
    document.querySelector("main [data-step].current")?.scrollIntoView({ block: "start" });
  }

  #head(title) {
    const { kind, title: name, live, episodes } = this.overview;
    document.title = `${title} · ${name}`;
    this.#part("name").textContent = name;
    this.#part("kind").textContent = `${kind}, ${episodes.toLocaleString("en")} episodes`;
    this.#part("live").hidden = !live;
    const hrefs = {
      overview: routeTo("overview"),
      episodes: this.#lastList,
      grid: routeTo("grid"),
      episode: this.#lastEpisode,
    };
    this.#part("tabs").replaceChildren(
      ...SCREEN_NAMES.filter((screen) => hrefs[screen]).map((screen) =>
        h("a", { href: hrefs[screen], "aria-current": screen === this.route.screen ? "page" : null }, screen),
      ),
    );
  }

  async #listen() {
    if (!document.hidden) {
      try {
        const { revision, live } = await this.source.revision();
        this.#part("lost").hidden = true;
        const known = this.overview;
        if (!known || revision !== known.revision || live !== known.live) await this.#show(true);
      } catch {
        this.#part("lost").hidden = false;
      }
    }
    setTimeout(() => this.#listen(), this.overview?.live ? NEWS_EVERY : SELDOM_NEWS_EVERY);
  }
}

new App().start();
