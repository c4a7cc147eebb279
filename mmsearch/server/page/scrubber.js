// The months at the edge of the library: drag, click or the arrow keys lead there.

import { make, monthName } from "./dom.js";

const LABEL = 22;  // pixels that the name of a year takes

export class Scrubber {
  /** `go(month)` is called with the month that the person wants to see. */
  constructor(go) {
    this.go = go;
    this.bubble = make("span", { class: "bubble", "aria-hidden": "true" });
    this.thumb = make("span", { class: "thumb" }, this.bubble);
    this.years = make("span", { class: "years", "aria-hidden": "true" });
    this.node = make("div", {
      class: "scrubber", role: "slider", tabIndex: 0, "aria-orientation": "vertical", "aria-label": "Month",
      "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0, "aria-valuetext": "",
    }, this.years, this.thumb);
    this.node.hidden = true;
    this.node.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.node.setPointerCapture(event.pointerId);
      this.node.classList.add("dragging");
      this.drag(event);
    });
    this.node.addEventListener("pointermove", (event) => { if (this.node.classList.contains("dragging")) this.drag(event); });
    for (const end of ["pointerup", "pointercancel"]) {
      this.node.addEventListener(end, () => this.node.classList.remove("dragging"));
    }
    this.node.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 12, PageUp: -12, Home: -1e9, End: 1e9 }[event.key];
      if (!by) return;
      event.preventDefault();
      this.mark(Math.max(0, Math.min(this.groups.length - 1, this.now + by)));
      this.go(this.groups[this.now].month);
    });
  }

  show(groups, height) {
    Object.assign(this, { groups, height, now: 0 });
    this.node.hidden = groups.length < 2 || height < innerHeight;
    this.node.setAttribute("aria-valuemax", Math.max(0, groups.length - 1));
    this.years.replaceChildren();
    let last = -LABEL;
    let before = null;
    const tall = innerHeight - 180;
    for (const { month, top } of groups) {
      const year = month?.slice(0, 4) ?? null;
      const at = top / height * tall;
      if (year === null || year === before || at - last < LABEL) continue;
      const label = make("span", {}, year);
      label.style.top = `${top / height * 100}%`;
      this.years.append(label);
      [before, last] = [year, at];
    }
    this.mark(0);
  }

  mark(number) {
    this.now = number;
    const group = this.groups[number];
    if (!group) return;
    this.node.setAttribute("aria-valuenow", number);
    this.node.setAttribute("aria-valuetext", monthName(group.month));
    this.bubble.textContent = monthName(group.month, true);
    this.thumb.style.top = `${group.top / this.height * 100}%`;
  }

  /** The window is `top` pixels below the upper edge of the layout. */
  at(top, tall) {
    if (this.node.hidden) return;
    const share = Math.max(0, Math.min(1, top / Math.max(1, this.height - tall)));
    const middle = top + tall * share;  // so that the first and the last month can be reached
    let low = 0;
    let high = this.groups.length - 1;
    while (low < high) {
      const half = (low + high + 1) >> 1;
      if (this.groups[half].top <= middle) low = half; else high = half - 1;
    }
    if (!this.node.classList.contains("dragging") && low !== this.now) this.mark(low);
    this.thumb.style.top = `${share * 100}%`;
  }

  drag(event) {
    const { top, height } = this.node.getBoundingClientRect();
    const y = Math.max(0, Math.min(1, (event.clientY - top) / height)) * this.height;
    let number = this.groups.findIndex((group) => group.top > y);
    number = number < 0 ? this.groups.length - 1 : Math.max(0, number - 1);
    if (number === this.now && this.dragged === number) return;
    this.dragged = number;
    this.mark(number);
    this.go(this.groups[number].month);
  }
}
