// Groups of near-duplicates: which to keep is proposed, nothing is ever deleted.

import { ask } from "./api.js";
import { Cell } from "./cells.js";
import { bytes, counted, folderOf, make, nameOf } from "./dom.js";
import { rove } from "./keys.js";
import { selection } from "./selection.js";

export class Duplicates {
  constructor(host, { open, failed, said, empty }) {
    Object.assign(this, { host, open, failed, said, empty });
    this.cells = [];
    this.items = [];
    this.groups = 0;
    this.nextOffset = 0;
    this.ended = new AbortController();
    const { signal } = this.ended;
    this.list = make("div", { class: "groups" });
    this.foot = make("div", { class: "end" });
    this.host.replaceChildren(this.list, this.foot);
    this.settle = rove(host, (node) => this.cells.find((cell) => cell.node === node), signal);
    selection.addEventListener("change", () => { for (const cell of this.cells) cell.mark(); }, { signal });
    this.seen = new IntersectionObserver(([entry]) => { if (entry.isIntersecting) void this.load(); }, { rootMargin: "800px" });
  }

  end() {
    this.ended.abort();
    this.seen.disconnect();
  }

  async load() {
    if (this.asking || this.nextOffset === null) return;
    this.asking = true;
    if (!this.groups) this.said("Comparing all pictures with each other …");
    try {
      let found;
      do { // each answer comes after a second at most
        found = await ask("/duplicates", { offset: this.nextOffset || null }, { signal: this.ended.signal });
        if (found.total !== null) continue;
        this.swap();  // what was there before would pass for duplicates
        this.said(`Comparing all pictures with each other: ${Math.floor(100 * found.compared)} % …`);
      } while (found.total === null);
      if (!this.groups) this.swap();
      this.nextOffset = found.next_offset ?? null;
      for (const group of found.groups) this.draw(group);
      if (this.groups) this.said(`${counted(found.total, "group")} of near-duplicates. The best of each is marked; nothing is deleted.`);
      else this.empty();
    } catch (problem) {
      this.nextOffset = null;
      if (problem.name !== "AbortError") this.failed(problem);
    } finally {
      this.asking = false;
    }
    this.settle();
    this.seen.unobserve(this.foot);
    this.seen.observe(this.foot);
  }

  draw({ keep, documents }) {
    this.groups += 1;
    const title = `Group ${this.groups}`;
    const row = make("div", { class: "hits" });
    for (const item of documents) {
      const cell = new Cell({ open: (one) => this.open(one.index), ranged: (one) => selection.toggle(one.item) });
      cell.index = this.items.length;
      this.items.push(item);
      this.cells.push(cell);
      cell.fill(item, 320);
      const isBest = item.path === keep;
      const pixels = item.width && item.height ? `${item.width} × ${item.height}` : "";
      cell.node.append(make("span", { class: "below", title: item.path },
        make("span", { class: "name" }, nameOf(item.path)),
        make("span", { class: "note" }, [pixels, item.size ? bytes(item.size) : ""].filter(Boolean).join(" · ")),
        make("span", { class: "note" }, folderOf(item.path).split("/").slice(-2).join("/")),
        isBest ? make("span", { class: "best" }, "Keep") : null));
      row.append(cell.node);
    }
    const others = documents.filter((item) => item.path !== keep);
    const id = `group-${this.groups}`;
    this.list.append(make("section", { class: "group", "aria-labelledby": id },
      make("header", {},
        make("h2", { id }, `${title}: ${documents.length} files`),
        make("button", { type: "button", onclick: () => selection.add(others) }, `Select the other ${others.length === 1 ? "one" : others.length}`)),
      row));
  }

  get total() { return this.items.length; }
  async at(index) { return this.items[index] ?? null; }
  indexOf(path) { return this.items.findIndex((item) => item.path === path); }
  focus(index) { this.cells[index]?.button.focus(); }
}
