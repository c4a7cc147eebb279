// One document or hit in a grid: its picture, what it is, and the tick that selects it.

import { clock, icon, make, nameOf } from "./dom.js";
import { thumbnail } from "./api.js";
import { selection } from "./selection.js";

const HOLD_MS = 450;  // so long a finger rests on a picture that is to be selected
/** Whether it is a part of a video or recording: what is said in it, or how it sounds. */
export const isInside = (item) => item.modality === "speech" || item.modality === "audio";
export const isSound = (item) => item.modality === "sound" || (isInside(item) && SOUNDS.test(item.path));
const SOUNDS = /\.(mp3|m4a|m4b|aac|wav|flac|ogg|oga|opus|wma|aiff?|mka)$/i;
export const isText = (item) => item.modality === "text";
export const hasPicture = (item) => !isText(item) && !isSound(item);

export function momentName(item) {
  if (item.start_s === null || item.start_s === undefined) return "";
  const end = item.end_s ?? item.start_s;
  const digits = end - item.start_s < 10 && end > item.start_s ? 1 : 0;
  return end > item.start_s ? `${clock(item.start_s, digits)}–${clock(end, digits)}` : clock(item.start_s, digits);
}

/** What a screen reader says of a cell. */
function spoken(item) {
  const kind = { image: "photo", video: "video", sound: "recording", text: "text", speech: "said", audio: "heard" }[item.modality] ?? item.modality;
  const day = (item.date ?? item.document?.date ?? "").slice(0, 10);
  return [nameOf(item.path), kind, momentName(item), day].filter(Boolean).join(", ");
}

/**
 * A cell that can be filled again and again. `open(cell)` is called when it is to be shown large; `onselect(cell, event)`
 * before the tick changes.
 */
export class Cell {
  constructor({ open, ranged = () => {} }) {
    this.item = null;
    this.picture = make("img", { alt: "", decoding: "async", draggable: false });
    this.badge = make("span", { class: "badge" });
    this.words = make("span", { class: "words" });
    this.button = make("button", { type: "button", class: "open", tabIndex: -1 }, this.picture, this.words, this.badge);
    this.tick = make("button", { type: "button", class: "pick", role: "checkbox", tabIndex: -1, "aria-checked": "false" }, icon("check"));
    this.node = make("div", { class: "cell" }, this.button, this.tick);
    this.picture.onload = () => this.node.classList.remove("waiting");
    this.picture.onerror = () => { if (this.picture.getAttribute("src")) this.node.classList.add("broken"); };
    this.button.onclick = (event) => {
      if (this.wasHeld) { this.wasHeld = false; return; }
      if (!this.item) return;
      if (event.shiftKey || event.ctrlKey || event.metaKey || selection.size) this.select(event, ranged);
      else open(this);
    };
    this.tick.onclick = (event) => { if (this.item) this.select(event, ranged); };
    this.watchHolding();
  }

  select(event, ranged) {
    if (event.shiftKey && selection.size) ranged(this);
    else selection.toggle(this.item);
  }

  watchHolding() {
    let timer;
    this.button.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch") return;
      timer = setTimeout(() => { if (this.item) { this.wasHeld = true; selection.toggle(this.item); } }, HOLD_MS);
    });
    for (const end of ["pointerup", "pointercancel", "pointermove", "pointerleave"]) {
      this.button.addEventListener(end, (event) => { if (end !== "pointermove" || Math.abs(event.movementX) + Math.abs(event.movementY) > 4) clearTimeout(timer); });
    }
    this.button.addEventListener("contextmenu", (event) => { if (this.wasHeld) event.preventDefault(); });
  }

  /** Shows `item`, or an empty place where it is not known yet. */
  fill(item, pixels, { isHit = false } = {}) {
    if (this.item === item && item) return;
    this.item = item;
    this.node.classList.remove("broken");
    this.node.classList.toggle("waiting", !item || hasPicture(item));
    this.badge.replaceChildren();
    this.words.textContent = "";
    if (!item) {
      this.picture.removeAttribute("src");  // ends its download
      this.button.setAttribute("aria-label", "Loading");
      this.tick.setAttribute("aria-label", "Select");
      return;
    }
    this.button.title = item.path;
    this.button.setAttribute("aria-label", spoken(item));
    this.tick.setAttribute("aria-label", `Select ${nameOf(item.path)}`);
    if (hasPicture(item)) this.picture.src = thumbnail(item, pixels);
    else this.picture.removeAttribute("src");
    if (isText(item)) this.words.textContent = item.text?.slice(0, 300) ?? nameOf(item.path);
    else if (isSound(item)) this.words.textContent = item.text ? `“${item.text.slice(0, 200)}”` : nameOf(item.path);
    const length = item.duration_s ?? item.document?.duration_s;
    if (item.modality === "video") this.badge.append(icon("play"), isHit ? momentName(item) : length ? clock(length) : "");
    else if (isSound(item)) this.badge.append(icon("sound"), momentName(item) || (length ? clock(length) : ""));
    else if (item.modality === "speech") this.badge.append(icon("said"), momentName(item));
    else if (item.modality === "audio") this.badge.append(icon("sound"), momentName(item));
    else if (isText(item)) this.badge.append(icon("text"));
    this.mark();
  }

  /** Shows whether it is selected. */
  mark() {
    const on = this.item !== null && selection.has(this.item.path);
    this.node.classList.toggle("on", on);
    this.tick.setAttribute("aria-checked", String(on));
  }
}

