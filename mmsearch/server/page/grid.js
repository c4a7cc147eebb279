// The library as a grid by month of any number of files: only what can be seen is in the page.

import { ask } from "./api.js";
import { Cell } from "./cells.js";
import { make, monthName, kept } from "./dom.js";
import { Scrubber } from "./scrubber.js";
import { selection } from "./selection.js";

const PAGE = 100;  // documents that are asked for at once
const PAGES = 80;  // pages that are kept
const GAP = 4;
const HEAD = 44;  // pixels of the line with the month
const FAST = 3;  // screens a tenth of a second: so fast nobody looks at pictures, and none are loaded
const TALLEST = 15_000_000;  // pixels; browsers draw nothing below some 17 to 33 million
export const SIZES = { small: 104, medium: 168, large: 256 };

/** Where everything lies: groups of {month, count, first, top, column, span, rows} in bands of equal `top`. */
export function layOut(months, width, target) {
  const columns = Math.max(2, Math.round((width + GAP) / (target + GAP)));
  const side = (width - GAP * (columns - 1)) / columns;
  const groups = [];
  let first = 0;
  let top = 0;
  let used = columns;  // columns of the last band that are taken: short months share one
  let height = 0;
  for (const { month, count } of months) {
    const isShort = count < columns;
    if (isShort && used + count <= columns) {
      groups.push({ month, count, first, top, column: used, span: count, rows: 1 });
      used += count;
    } else {
      top += height;
      const rows = Math.ceil(count / columns);
      groups.push({ month, count, first, top, column: 0, span: isShort ? count : columns, rows });
      height = HEAD + rows * (side + GAP);
      used = isShort ? count : columns;
    }
    first += count;
  }
  return { groups, columns, side, total: first, height: top + height };
}

export class Grid {
  /** `host` gets the cells; `open(index)` is told which document is to be shown large. */
  constructor(host, { where = "", open, empty, failed }) {
    Object.assign(this, { host, where, open, empty, failed });
    this.pages = new Map();
    this.cells = new Map();
    this.heads = new Map();
    this.spare = [];
    this.current = 0;
    this.layout = null;
    this.ended = new AbortController();
    this.space = make("div", { class: "space" });
    this.scrubber = new Scrubber((month) => this.scrollTo(month));
    this.host.classList.add("library");
    this.host.replaceChildren(this.space, this.scrubber.node);
    const { signal } = this.ended;
    addEventListener("scroll", () => this.schedule(), { passive: true, signal });
    addEventListener("resize", () => this.relayout(), { signal });
    selection.addEventListener("change", () => { for (const cell of this.cells.values()) cell.mark(); }, { signal });
    this.space.addEventListener("keydown", (event) => this.onkey(event));
    this.space.addEventListener("focusin", (event) => {
      const cell = [...this.cells].find(([, one]) => one.node.contains(event.target));
      if (cell) { this.makeCurrent(cell[0]); this.anchor = cell[0]; }
    });
  }

  async load() {
    try {
      const { months } = await ask("/timeline", { where: this.where }, { signal: this.ended.signal });
      this.months = months;
    } catch (problem) {
      if (problem.name !== "AbortError") this.failed(problem);
      return;
    }
    this.relayout();
    if (!this.layout.total) this.empty();
  }

  end() {
    this.ended.abort();
    for (const page of this.pages.values()) page.waiting?.abort();
    this.host.replaceChildren();
  }

  get total() { return this.layout?.total ?? 0; }

  relayout() {
    if (!this.months) return;
    this.offset = this.space.getBoundingClientRect().top + scrollY;
    const before = this.layout && this.groupAt(scrollY - this.offset);
    const target = innerWidth < 560 ? Math.min(SIZES[kept.get("size", "medium")], (innerWidth - 24) / 3) : SIZES[kept.get("size", "medium")];
    const isChanged = this.layout !== null && this.width !== this.space.clientWidth;
    this.width = this.space.clientWidth;
    this.layout = layOut(this.months, this.width, target);
    this.scale = Math.max(1, this.layout.height / TALLEST);
    this.space.style.height = `${Math.ceil(Math.min(this.layout.height, TALLEST))}px`;
    this.pixels = this.layout.side * devicePixelRatio > 180 ? 320 : 160;
    for (const [index] of this.cells) this.release(index);
    for (const head of this.heads.values()) head.remove();
    this.heads.clear();
    this.scrubber.show(this.layout.groups, this.layout.height);
    if (isChanged && before) this.scrollTo(before.month);
    this.draw();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = requestAnimationFrame((now) => {
      this.scheduled = 0;
      this.draw(now);
    });
  }

  /** The pixel of the layout that is at the upper edge of the window; the layout may be taller than a page can be. */
  get top() {
    const y = scrollY - this.offset;
    return this.scale === 1 ? y : y * (this.layout.height - innerHeight) / Math.max(1, TALLEST - innerHeight);
  }

  groupAt(y) {
    const { groups } = this.layout;
    let low = 0;
    let high = groups.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (groups[middle].top <= y) low = middle; else high = middle - 1;
    }
    while (low > 0 && groups[low - 1].top === groups[low]?.top) low -= 1;
    return groups[low];
  }

  groupOf(index) {
    const { groups } = this.layout;
    let low = 0;
    let high = groups.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (groups[middle].first <= index) low = middle; else high = middle - 1;
    }
    return groups[low];
  }

  place(index, group = this.groupOf(index)) {
    const step = this.layout.side + GAP;
    const at = index - group.first;
    return { x: (group.column + at % group.span) * step, y: group.top + HEAD + Math.floor(at / group.span) * step };
  }

  draw(now = performance.now()) {
    if (!this.layout?.total) return;
    const { side, groups } = this.layout;
    this.offset = this.space.getBoundingClientRect().top + scrollY;  // what stands above it may have grown
    const top = this.top;
    const shift = scrollY - this.offset - top;  // 0 where the layout fits a page
    const moved = Math.abs(top - (this.lastTop ?? top));
    const isFast = moved > innerHeight * FAST * Math.min(1, Math.max(now - (this.lastDraw ?? 0), 16) / 100);
    this.lastTop = top;
    this.lastDraw = now;
    const from = top - innerHeight * 0.5;
    const to = top + innerHeight * 1.75;
    const step = side + GAP;
    const wanted = new Set();
    const heads = new Set();
    let number = groups.indexOf(this.groupAt(Math.max(0, from)));
    for (; number < groups.length && groups[number].top < to; number += 1) {
      const group = groups[number];
      heads.add(group);
      const low = Math.max(0, Math.floor((from - group.top - HEAD) / step));
      const high = Math.min(group.rows, Math.ceil((to - group.top - HEAD) / step));
      for (let at = low * group.span; at < Math.min(group.count, high * group.span); at += 1) wanted.add(group.first + at);
    }
    wanted.add(this.current);  // what has the focus must not vanish
    for (const [index] of this.cells) if (!wanted.has(index)) this.release(index);
    for (const [group, head] of this.heads) if (!heads.has(group)) { head.remove(); this.heads.delete(group); }
    for (const group of heads) this.drawHead(group, shift);
    const added = document.createDocumentFragment();
    for (const index of wanted) {
      let cell = this.cells.get(index);
      if (!cell) {
        cell = this.spare.pop() ?? new Cell({ open: (one) => this.open(one.index), ranged: (one) => this.selectTo(one.index) });
        this.cells.set(index, cell);
        cell.index = index;
        cell.node.style.width = cell.node.style.height = `${side}px`;
        cell.button.tabIndex = index === this.current ? 0 : -1;
        added.append(cell.node);
        cell.at = null;
      }
      const { x, y } = this.place(index);
      if (cell.at !== y + shift) cell.node.style.transform = `translate(${x}px, ${y + shift}px)`;
      cell.at = y + shift;
      if (!isFast || cell.item) cell.fill(this.known(index), this.pixels);
    }
    this.space.append(added);
    if (!isFast && !this.space.contains(document.activeElement)) this.makeCurrent(this.firstSeen(wanted, top));
    clearTimeout(this.calming);
    if (isFast) this.calming = setTimeout(() => this.draw(), 90);
    else this.fetch(wanted);
    this.scrubber.at(top, innerHeight);
  }

  /** Where the Tab key leads: the first document that is whole in the window. */
  firstSeen(indexes, top) {
    const under = top + document.querySelector("header").offsetHeight;
    let first = this.total - 1;
    for (const index of indexes) if (index < first && this.place(index).y >= under) first = index;
    return first;
  }

  drawHead(group, shift) {
    let head = this.heads.get(group);
    if (!head) {
      const isNarrow = group.span * this.layout.side < 150;
      head = make("h2", { class: "month" }, monthName(group.month, isNarrow));
      this.heads.set(group, head);
      this.space.append(head);
      const step = this.layout.side + GAP;
      head.style.width = `${group.span * step - GAP}px`;
      head.x = group.column * step;
    }
    head.style.transform = `translate(${head.x}px, ${group.top + shift}px)`;
  }

  release(index) {
    const cell = this.cells.get(index);
    this.cells.delete(index);
    cell.node.remove();
    cell.fill(null);
    if (this.spare.length < 300) this.spare.push(cell);
  }

  // Documents

  known(index) {
    return this.pages.get(Math.floor(index / PAGE))?.documents?.[index % PAGE] ?? null;
  }

  fetch(indexes) {
    const needed = new Set([...indexes].map((index) => Math.floor(index / PAGE)));
    for (const [number, page] of this.pages) {
      if (page.waiting && !needed.has(number) && !page.isAsked) { page.waiting.abort(); this.pages.delete(number); }
    }
    for (const number of needed) void this.page(number);
    for (const number of this.pages.keys()) {
      if (this.pages.size <= PAGES) break;
      if (!needed.has(number)) this.pages.delete(number);
    }
  }

  /** The documents of a page; `isAsked`: somebody waits for them, whatever is scrolled. */
  page(number, isAsked = false) {
    let page = this.pages.get(number);
    if (page) { page.isAsked ||= isAsked; return page.arrived; }
    page = { waiting: new AbortController(), documents: null, isAsked };
    this.pages.set(number, page);
    page.arrived = ask("/documents", { where: this.where, order: "newest", offset: number * PAGE || null, limit: PAGE }, { signal: page.waiting.signal })
      .then(({ documents }) => {
        page.documents = documents;
        page.waiting = null;
        this.schedule();
        return documents;
      })
      .catch((problem) => {
        this.pages.delete(number);
        if (problem.name !== "AbortError") this.failed(problem);
        return [];
      });
    return page.arrived;
  }

  /** The document at a place, when it is known. */
  async at(index) {
    if (index < 0 || index >= this.total) return null;
    const documents = await this.page(Math.floor(index / PAGE), true);
    return documents[index % PAGE] ?? null;
  }

  /** The place of a document among those that are known, −1 else. */
  indexOf(path) {
    for (const [number, { documents }] of this.pages) {
      const at = documents?.findIndex((one) => one.path === path) ?? -1;
      if (at >= 0) return number * PAGE + at;
    }
    return -1;
  }

  async selectTo(index) {
    const [low, high] = [Math.min(this.anchor ?? index, index), Math.max(this.anchor ?? index, index)];
    const items = [];
    for (let at = low; at <= high; at += 1) items.push(await this.at(at));
    selection.add(items.filter(Boolean));
  }

  // Moving

  scrollTo(month) {
    const group = this.layout.groups.find((one) => one.month === month);
    if (group?.top === 0) { scrollTo({ top: 0 }); this.draw(); }  // with all that stands above it
    else if (group) this.scrollToY(group.top);
  }

  scrollToY(y) {
    const at = this.scale === 1 ? y : y * (TALLEST - innerHeight) / (this.layout.height - innerHeight);
    const header = document.querySelector("header").offsetHeight;
    scrollTo({ top: this.offset + at - header });
    this.draw();
  }

  makeCurrent(index) {
    const before = this.cells.get(this.current);
    if (before) before.button.tabIndex = -1;
    this.current = index;
    const cell = this.cells.get(index);
    if (cell) cell.button.tabIndex = 0;
  }

  /** Puts the focus on a document, and it into the window. */
  focus(index) {
    this.makeCurrent(index);
    const { y } = this.place(index);
    const header = document.querySelector("header").offsetHeight + HEAD;
    if (y < this.top + header) this.scrollToY(y - HEAD);
    else if (y + this.layout.side > this.top + innerHeight - 80) this.scrollToY(y + this.layout.side - innerHeight + header + 40);
    this.draw();
    this.cells.get(index)?.button.focus({ preventScroll: true });
  }

  onkey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const cell = this.cells.get(this.current);
    if (event.key === "x" && cell?.item) { event.preventDefault(); return selection.toggle(cell.item); }
    const next = this.moved(event.key);
    if (next === null) return;
    event.preventDefault();
    this.focus(Math.max(0, Math.min(this.total - 1, next)));
  }

  moved(key) {
    if (key === "ArrowRight") return this.current + 1;
    if (key === "ArrowLeft") return this.current - 1;
    if (key === "Home") return 0;
    if (key === "End") return this.total - 1;
    if (key === "ArrowDown") return this.inRow(1, 1);
    if (key === "ArrowUp") return this.inRow(-1, 1);
    if (key === "PageDown") return this.inRow(1, innerHeight * 0.8);
    if (key === "PageUp") return this.inRow(-1, innerHeight * 0.8);
    return null;
  }

  /** The document nearest in column, in the first row that is at least `pixels` further down (−1: up). */
  inRow(way, pixels) {
    const from = this.place(this.current);
    let best = null;
    let row = null;
    for (let at = this.current + way; at >= 0 && at < this.total; at += way) {
      const { x, y } = this.place(at);
      if (way * (y - from.y) < pixels) continue;
      row ??= y;
      if (y !== row) break;
      if (best === null || Math.abs(x - from.x) < Math.abs(this.place(best).x - from.x)) best = at;
    }
    return best ?? (way > 0 ? this.total - 1 : 0);
  }
}
