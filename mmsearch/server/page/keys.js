// Arrow keys between the cells of a grid that the browser lays out.

import { selection } from "./selection.js";

/** Lets the arrow keys lead through the cells below `host`; the Tab key leads to one of them. `cellOf(node)` gives the Cell. */
export function rove(host, cellOf, signal) {
  const buttons = () => [...host.querySelectorAll(".cell .open")].filter((one) => one.offsetParent);
  const choose = (button) => {
    for (const one of host.querySelectorAll(".cell .open[tabindex='0']")) one.tabIndex = -1;
    button.tabIndex = 0;
  };
  host.addEventListener("focusin", (event) => { if (event.target.matches(".cell .open")) choose(event.target); }, { signal });
  host.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !event.target.matches(".cell .open")) return;
    if (event.key === "x") { event.preventDefault(); selection.toggle(cellOf(event.target.closest(".cell")).item); return; }
    const next = neighbour(buttons(), event.target, event.key);
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }, { signal });
  return () => { const [first] = buttons(); if (first && !host.querySelector(".cell .open[tabindex='0']")) first.tabIndex = 0; };
}

function neighbour(all, from, key) {
  const at = all.indexOf(from);
  if (key === "ArrowRight") return all[at + 1];
  if (key === "ArrowLeft") return all[at - 1];
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  if (key !== "ArrowDown" && key !== "ArrowUp") return null;
  const way = key === "ArrowDown" ? 1 : -1;
  const here = from.getBoundingClientRect();
  let best = null;
  let row = null;
  for (let next = at + way; next >= 0 && next < all.length; next += way) {
    const there = all[next].getBoundingClientRect();
    if (way * (there.top - here.top) < 4) continue;
    row ??= there.top;
    if (Math.abs(there.top - row) > 4) break;
    const away = Math.abs(there.left - here.left);
    if (best === null || away < best.away) best = { away, button: all[next] };
  }
  return best?.button ?? null;
}
