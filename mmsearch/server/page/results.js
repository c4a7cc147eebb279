// What a search found: matches, and behind them a few weaker ones.

import { ask } from "./api.js";
import { Cell, isInside, isText, momentName } from "./cells.js";
import { counted, kept, make, nameOf } from "./dom.js";
import { rove } from "./keys.js";
import { selection } from "./selection.js";

const STEP = 60;
const MOST = 500;
const FEW = 6;  // weaker matches that are shown without being asked for

export class Results {
  /** `what`: {q, like, picture}, the last a Blob or null. `said(text)` hears one line about what was found. */
  constructor(host, what, { open, failed, said, emptied }) {
    Object.assign(this, { host, what, open, failed, said, emptied });
    this.hits = [];
    this.cells = [];
    this.all = false;
    this.ended = new AbortController();
    const { signal } = this.ended;
    this.matches = make("section", { class: "hits", "aria-label": "Matches" });
    this.weakerTitle = make("h2", { class: "weaker-title", hidden: true }, "Weaker matches");
    this.weaker = make("section", { class: "hits weaker", "aria-label": "Weaker matches" });
    this.more = make("button", { type: "button", class: "more", hidden: true, onclick: () => this.showWeaker() }, "Show more weaker matches");
    this.foot = make("div", { class: "end" });
    this.host.replaceChildren(this.matches, this.weakerTitle, this.weaker, this.more, this.foot);
    this.settle = rove(host, (node) => this.cells.find((cell) => cell.node === node), signal);
    selection.addEventListener("change", () => { for (const cell of this.cells) cell.mark(); }, { signal });
    this.seen = new IntersectionObserver(([entry]) => { if (entry.isIntersecting) void this.next(); }, { rootMargin: "600px" });
  }

  async load() {
    const started = performance.now();
    try {
      const found = await this.ask(0);
      this.took = (performance.now() - started) / 1000;
      this.swap();
      this.add(found);
      this.tell(found);
    } catch (problem) {
      if (problem.name !== "AbortError") this.failed(problem);
    }
    this.seen.observe(this.foot);
  }

  end() {
    this.ended.abort();
    this.seen.disconnect();
  }

  ask(offset) {
    const { q, like, picture } = this.what;
    const values = {
      q, like, k: Math.min(STEP, MOST), offset: offset || null,
      no_collapse: kept.get("each", false), rerank: kept.get("closer", false) && q !== "",
    };
    const sent = picture ? { method: "POST", body: picture, headers: { "Content-Type": picture.type || "application/octet-stream" } } : {};
    return ask("/search", values, { ...sent, signal: this.ended.signal });
  }

  async next() {
    const isAmongWeaker = this.hits.some((hit) => !hit.match);
    if (this.asking || this.nextOffset === null || this.hits.length >= MOST || (isAmongWeaker && !this.all)) return;
    this.asking = true;
    try {
      this.add(await this.ask(this.nextOffset));
    } catch (problem) {
      if (problem.name !== "AbortError") this.failed(problem);
      this.nextOffset = null;
    } finally {
      this.asking = false;
    }
    this.seen.unobserve(this.foot);
    this.seen.observe(this.foot);
  }

  add(found) {
    this.nextOffset = found.next_offset ?? null;
    const from = this.hits.length;
    this.hits.push(...found.hits);
    this.hits.slice(from).forEach((hit, number) => this.draw(hit, from + number));
    const matches = this.hits.filter((hit) => hit.match).length;
    this.weakerTitle.hidden = matches === 0 || matches === this.hits.length;
    this.hideWeaker();
    this.settle();
  }

  draw(hit, index) {
    const cell = new Cell({ open: () => this.open(index), ranged: (one) => this.selectTo(one) });
    cell.index = index;
    this.cells.push(cell);
    cell.fill(hit, 320, { isHit: true });
    const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i"));
    bar.firstChild.style.width = `${Math.round(100 * Math.max(0, hit.relevance ?? 0))}%`;
    const copies = hit.duplicates?.length ? `+${counted(hit.duplicates.length, "near-duplicate")}` : "";
    const figure = kept.get("numbers", false) && hit.relevance !== null ? hit.relevance.toFixed(2) : "";
    const moment = hit.modality === "video" || isInside(hit) || isText(hit) ? "" : momentName(hit);
    const said = hit.modality === "speech" && hit.text ? `“${hit.text}”` : "";
    const below = make("span", { class: "below", title: hit.path },
      make("span", { class: "name" }, said || nameOf(hit.path)),
      make("span", { class: "note" }, [moment, copies, figure].filter(Boolean).join(" · ")));
    cell.node.append(bar, below);
    (hit.match ? this.matches : this.weaker).append(cell.node);
  }

  hideWeaker() {
    const weaker = [...this.weaker.children];
    weaker.forEach((node, number) => { node.hidden = !this.all && number >= FEW; });
    this.more.hidden = this.all || (weaker.length <= FEW && (weaker.length === 0 || this.nextOffset === null));
  }

  showWeaker() {
    this.all = true;
    this.hideWeaker();
    this.weaker.querySelectorAll(".open")[FEW]?.focus();
    void this.next();
  }

  tell({ notes = [], reason, hits }) {
    const matches = this.hits.filter((hit) => hit.match).length;
    const more = this.nextOffset !== null && matches === this.hits.length ? "or more " : "";
    const lines = [];
    if (matches) lines.push(`${matches} ${more}${matches === 1 ? "match" : "matches"} in ${this.took.toFixed(2)} s`);
    else if (hits.length) lines.push("Nothing in here is like that. The nearest:");
    else { lines.push("Nothing found."); this.emptied(reason); }
    if (reason && hits.length) lines.push(reason);
    this.said([...lines, ...notes].join("\n"));
  }

  selectTo(cell) {
    const [low, high] = [cell.index, this.anchor ?? cell.index].sort((a, b) => a - b);
    selection.add(this.hits.slice(low, high + 1));
  }

  // For the viewer

  get total() { return this.shown.length; }
  get shown() { return this.hits.filter((hit, index) => !this.cells[index].node.hidden); }
  async at(index) { return this.shown[index] ?? null; }
  indexOf(path) { return this.shown.findIndex((hit) => hit.path === path); }
  focus(index) {
    const hit = this.shown[index];
    this.cells[this.hits.indexOf(hit)]?.button.focus();
  }

}
