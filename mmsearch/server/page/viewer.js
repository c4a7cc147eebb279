// One document, as large as the window: shown, explained, and what can be done with it.

import { ask, askBlob, fileAddress, thumbnail } from "./api.js";
import { hasPicture, isInside, isSound, isText, momentName } from "./cells.js";
import { $, bytes, clock, copyText, dateName, folderOf, iconButton, kept, make, nameOf, toast } from "./dom.js";
import { filter, folderFilter, wordsOf } from "./language.js";
import { Player } from "./player.js";
import { go, leave, route } from "./route.js";
import { selection } from "./selection.js";

const SWIPE = 60;  // pixels of a finger that mean the next one

export class Viewer {
  constructor() {
    this.box = $("viewer");
    this.stage = $("stage");
    this.source = null;
    this.item = null;
    this.tools = {
      close: iconButton("close", "Close", () => leave()),
      info: iconButton("info", "Information", () => this.showInfo(!this.hasInfo), { "aria-pressed": "false" }),
      full: iconButton("full", "Full screen", () => this.fullScreen()),
      before: iconButton("left", "Previous", () => this.step(-1), { class: "step before" }),
      after: iconButton("right", "Next", () => this.step(1), { class: "step after" }),
      where: iconButton("where", "Where it matches", () => this.showWhere(), { withText: true, "aria-pressed": "false" }),
      like: iconButton("like", "More like this", () => go({ view: "library", q: "", picture: "", like: this.item.path }), { withText: true }),
      folder: iconButton("folder", "Show in folder", () => this.showFolder(), { withText: true }),
      copy: iconButton("copy", "Copy path", () => copyText(this.item.path, "Path"), { withText: true }),
      download: iconButton("download", "Download", () => this.download(), { withText: true }),
      select: iconButton("check", "Select", () => selection.toggle(this.item), { withText: true, "aria-pressed": "false" }),
    };
    const { close, info, full, before, after, ...below } = this.tools;
    full.hidden = !document.fullscreenEnabled;
    this.name = make("h2", { id: "shown-name" });
    this.count = make("span", { class: "count" });
    $("viewer-top").append(close, make("div", { class: "title" }, this.name, this.count), info, full);
    $("viewer-tools").append(...Object.values(below));
    this.content = make("div", { class: "content" });
    this.waiting = make("progress", { "aria-label": "Loading", hidden: true });
    this.stage.append(before, this.content, after, this.waiting);
    this.info = $("information");
    this.hasInfo = kept.get("info", innerWidth >= 1000) && innerWidth >= 700;
    this.listen();
  }

  listen() {
    this.box.addEventListener("cancel", (event) => { event.preventDefault(); if (this.box.open) leave(); });
    this.box.addEventListener("keydown", (event) => this.onkey(event));
    selection.addEventListener("change", () => this.markSelected());
    let from = null;
    this.stage.addEventListener("touchstart", (event) => { from = event.touches.length === 1 && !event.target.matches("input") ? event.touches[0] : null; }, { passive: true });
    this.stage.addEventListener("touchend", (event) => {
      if (!from || (window.visualViewport?.scale ?? 1) > 1.01) return;
      const [to] = event.changedTouches;
      const [x, y] = [to.clientX - from.clientX, to.clientY - from.clientY];
      from = null;
      if (Math.abs(x) > SWIPE && Math.abs(x) > 1.5 * Math.abs(y)) this.step(x < 0 ? 1 : -1);
      else if (y > 1.5 * SWIPE && y > 1.5 * Math.abs(x) && !this.content.querySelector("pre")) leave();
    }, { passive: true });
  }

  /** Opens what lies at a place of `source`, and remembers that in the address. */
  async open(source, index) {
    const item = await source.at(index);
    if (!item) return;
    Object.assign(this, { source, index, given: item });
    go({ open: item.path, at: String(item.start_s ?? "") });
  }

  /** Shows what the address names; `source`: what lies behind, which has its neighbours. */
  async follow(source) {
    if (!route.open) return this.close();
    if (this.item?.path === route.open && this.box.open) return;
    let item = this.given?.path === route.open ? this.given : null;
    this.given = null;
    if (this.source !== source || !item) this.index = source?.indexOf(route.open) ?? -1;
    this.source = source;
    if (!item && this.index >= 0) item = await source.at(this.index);
    if (!item) {
      try {
        item = await ask("/documents/info", { path: route.open });
      } catch (problem) {
        toast(problem.sentence ?? problem.message, true);
        return go({ open: "", at: "" }, { replace: true });
      }
    }
    if (route.open === item.path) this.show(item);
  }

  close() {
    if (!this.box.open) return;
    const { source, index } = this;
    this.clear();
    if (document.fullscreenElement) document.exitFullscreen();
    this.box.close();
    this.item = null;
    if (index >= 0) source?.focus(index);
  }

  clear() {
    this.loading?.abort();
    this.player?.end();
    this.player = null;
    this.waiting.hidden = true;
    this.stage.removeAttribute("aria-busy");
    if (this.map) { URL.revokeObjectURL(this.map.src); this.map = null; }
  }

  async step(by) {
    if (this.index < 0 || !this.source) return;
    const index = this.index + by;
    const item = await this.source.at(index);
    if (!item) return;
    Object.assign(this, { index, given: item });
    go({ open: item.path, at: String(item.start_s ?? "") }, { replace: true });
  }

  show(item) {
    this.clear();
    this.item = item;
    this.loading = new AbortController();
    if (!this.box.open) this.box.showModal();
    this.name.textContent = nameOf(item.path);
    this.name.title = item.path;
    const { total = 0 } = this.source ?? {};
    this.count.textContent = this.index >= 0 ? `${(this.index + 1).toLocaleString("en")} of ${total.toLocaleString("en")}` : "";
    this.tools.before.hidden = this.index <= 0;
    this.tools.after.hidden = this.index < 0 || this.index >= total - 1;
    this.tools.like.hidden = !hasPicture(item);
    this.tools.where.hidden = !hasPicture(item) || !wordsOf(route.q);
    this.tools.where.setAttribute("aria-pressed", "false");
    this.markSelected();
    this.content.replaceChildren(this.shown(item));
    this.showInfo(this.hasInfo);
    for (const index of [this.index + 1, this.index - 1]) this.preload(index);
  }

  /** What stands on the stage. */
  shown(item) {
    const isFilm = item.modality === "video" || isInside(item);
    if (isSound(item) || isFilm) {
      const sound = isSound(item);
      this.player = new Player(fileAddress(item.path), {
        isSound: sound, poster: sound ? null : thumbnail(item, 1280), from_s: item.best_s ?? item.start_s,
        duration_s: item.duration_s ?? item.document?.duration_s,
        failed: () => { if (this.player) this.player.node.append(make("p", { class: "sorry" }, "This browser cannot play the file. Download it to see it.")); },
      });
      const own = item.start_s === null || item.start_s === undefined ? [] : [item];
      this.player.mark(own);
      void this.markMoments(item, this.player);
      if (!sound) return this.player.node;
      return make("div", { class: "recording" }, make("p", {}, item.text ? `“${item.text}”` : nameOf(item.path)), this.player.node);
    }
    if (isText(item)) {
      const pre = make("pre", { tabIndex: 0, "aria-label": nameOf(item.path) }, item.text ?? "");
      void this.fillText(item, pre);
      return pre;
    }
    const small = make("img", { src: thumbnail(item, 320), alt: nameOf(item.path), class: "small" });
    const large = make("img", { alt: "", class: "large" });
    this.wait(true);
    large.onload = () => { if (this.item === item) { small.replaceWith(large); large.alt = small.alt; this.wait(false); } };
    large.onerror = () => { if (this.item === item) { this.wait(false); this.content.replaceChildren(make("p", { class: "sorry" }, "This picture cannot be shown: the file is gone or damaged.")); } };
    large.src = thumbnail(item, 1280);  // upright, and of every format that mmsearch reads
    return small;
  }

  wait(on, share = null) {
    this.waiting.hidden = !on;
    if (share === null) this.waiting.removeAttribute("value"); else this.waiting.value = share;
    this.stage.setAttribute("aria-busy", String(on));
  }

  async fillText(item, pre) {
    try {
      const answer = await fetch(fileAddress(item.path), { signal: this.loading.signal });
      if (!answer.ok) return;
      const text = await answer.text();
      const at = item.text ? text.indexOf(item.text) : -1;
      if (at < 0) { pre.textContent = text; return; }
      const passage = make("mark", {}, item.text);
      pre.replaceChildren(text.slice(0, at), passage, text.slice(at + item.text.length));
      passage.scrollIntoView({ block: "center" });
    } catch { /* the passage is there */ }
  }

  async markMoments(item, player) {
    if (!wordsOf(route.q)) return;
    try {
      const { moments } = await ask("/moments", { path: item.path, q: route.q }, { signal: this.loading.signal });
      if (moments.length) player.mark(moments);
    } catch { /* its own moment is marked */ }
  }

  preload(index) {
    if (this.index < 0 || index < 0) return;
    this.source.at(index).then((item) => { if (item?.modality === "image") new Image().src = thumbnail(item, 1280); });
  }

  markSelected() {
    if (!this.item) return;
    const on = selection.has(this.item.path);
    this.tools.select.setAttribute("aria-pressed", String(on));
    this.tools.select.querySelector(".label").textContent = on ? "Selected" : "Select";
    this.tools.select.title = on ? "Selected" : "Select";
  }

  /** Changes between the picture and where in it the query matched; the stage keeps its size. */
  async showWhere() {
    const { item } = this;
    const button = this.tools.where;
    if (button.getAttribute("aria-pressed") === "true") {
      button.setAttribute("aria-pressed", "false");
      this.mapping?.abort();
      this.wait(false);
      this.content.classList.remove("mapped");
      if (this.map) this.content.querySelector(".map")?.remove();
      return;
    }
    button.setAttribute("aria-pressed", "true");
    this.mapping = new AbortController();
    this.wait(true);
    try {
      const blob = await askBlob("/heat", { path: item.path, q: route.q }, { signal: this.mapping.signal }, (share) => this.wait(true, share));
      if (this.item !== item || button.getAttribute("aria-pressed") !== "true") return;
      this.map = make("img", { class: "map", alt: `Where ${nameOf(item.path)} matches`, src: URL.createObjectURL(blob) });
      this.content.append(this.map);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      button.setAttribute("aria-pressed", "false");
      toast(problem.sentence ?? problem.message, true);
    } finally {
      if (this.item === item) this.wait(false);
    }
  }

  showFolder() {
    go({ view: "folders", q: folderFilter(folderOf(this.item.path)), like: "", picture: "" });
  }

  download() {
    make("a", { href: fileAddress(this.item.path), download: nameOf(this.item.path) }).click();
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.box.requestFullscreen().catch(() => {});
  }

  // Information

  showInfo(on) {
    this.hasInfo = on;
    kept.set("info", on);
    this.info.hidden = !on;
    this.box.classList.toggle("with-info", on);
    this.tools.info.setAttribute("aria-pressed", String(on));
    if (!on || this.told === this.item) return;
    void this.tellAll(this.item);
  }

  async tellAll(item) {
    this.told = item;
    this.info.replaceChildren(make("p", { class: "quiet" }, "Loading …"));
    let known = item.document ?? item;
    try {
      known = await ask("/documents/info", { path: item.path }, { signal: this.loading.signal });
    } catch (problem) {
      if (problem.name === "AbortError") { this.told = null; return; }
    }
    if (this.item === item) this.info.replaceChildren(...this.rows(item, known));
  }

  rows(item, known) {
    const look = (text, q) => make("button", { type: "button", class: "link", onclick: () => go({ view: "library", q, like: "", picture: "" }) }, text);
    const list = make("dl");
    const add = (name, ...values) => {
      const there = values.filter(Boolean);
      if (there.length) list.append(make("dt", {}, name), ...there.map((value) => make("dd", {}, value)));
    };
    const { date } = known;
    add("Date", date && look(dateName(date), `${filter("after", date.slice(0, 10))} ${filter("before", dayAfter(date.slice(0, 10)))}`));
    add("Camera", known.camera && look(known.camera, filter("camera", known.camera)));
    add("Lens", known.lens && look(known.lens, filter("lens", known.lens)));
    const spot = known.latitude === undefined || known.latitude === null ? "" : `${known.latitude.toFixed(4)}, ${known.longitude.toFixed(4)}`;
    add("Place", spot && look(known.place ?? spot, `near:${known.latitude.toFixed(4)},${known.longitude.toFixed(4)},5km`), known.place && spot);
    const pixels = known.width && known.height ? `${known.width} × ${known.height}` : "";
    const mega = pixels ? `${(known.width * known.height / 1e6).toFixed(1)} megapixels` : "";
    add("Size", [pixels, mega, known.size ? bytes(known.size) : ""].filter(Boolean).join(" · "));
    add("Length", known.duration_s && clock(known.duration_s));
    add("Rating", known.rating > 0 && `${"★".repeat(known.rating)} (${known.rating} of 5)`);
    add("Folder", look(known.folder ?? folderOf(item.path), folderFilter(folderOf(item.path))));
    for (const name of ["title", "artist", "album"]) add(name[0].toUpperCase() + name.slice(1), known[name]);
    add("Caption", known.caption, known.description !== known.caption && known.description);
    add("Text read in it", ...(known.lines ?? []).map((one) => one.read));
    add("Near-duplicates", ...(item.duplicates ?? []));
    if (momentName(item)) add("Moment", momentName(item));
    if (kept.get("numbers", false) && item.parts) {
      add("Relevance", item.relevance?.toFixed(2));
      add("Score", Object.entries(item.parts).filter(([, value]) => value).map(([name, value]) => `${name} ${value.toFixed(3)}`).join(" + "));
    }
    const said = (known.said ?? []).map((one) => make("button", {
      type: "button", class: "link said", onclick: () => this.player?.seek(one.start_s),
    }, make("span", { class: "time" }, clock(one.start_s)), ` ${one.text}`));
    add("What is said", ...said);
    return [make("h3", {}, "Information"), list];
  }

  // Keys

  onkey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) return;
    const { tools } = this;
    const act = {
      ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1), i: () => tools.info.click(), f: () => this.fullScreen(),
      w: () => tools.where.hidden || tools.where.click(), m: () => tools.like.hidden || tools.like.click(),
      o: () => tools.folder.click(), c: () => tools.copy.click(), d: () => tools.download.click(), x: () => tools.select.click(),
      " ": () => { if (!event.target.matches("button, a")) this.player?.toggle(); },
    }[event.key];
    if (!act) return;
    if (event.key !== " " || !event.target.matches("button, a")) event.preventDefault();
    event.stopPropagation();
    act();
  }
}

export function dayAfter(day) {
  const next = new Date(`${day}T00:00:00Z`);
  next.setUTCDate(next.getUTCDate() + 1);
  return next.toISOString().slice(0, 10);
}

