// Where the person is: kept in the address, so that back, forward, reload and bookmarks work.

import { nameOf } from "./dom.js";

const EMPTY = { view: "library", q: "", like: "", picture: "", open: "", at: "" };
const SHOWN_ABOVE = ["open", "at"];  // these change nothing of what lies behind the viewer

export const route = { ...EMPTY };
let listener = () => {};

export function hashOf(changes) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...route, ...changes })) {
    if (value && value !== EMPTY[name]) parts.set(name, value);
  }
  return `#${parts}`;
}

/** What lies behind the viewer, as a text to compare. */
export const behind = () => hashOf({ open: "", at: "" });

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(EMPTY)) route[name] = given.get(name) ?? EMPTY[name];
}

/** Changes where the person is. `replace`: without a step in the history; `above`: true where `back` undoes it alone. */
export function go(changes, { replace = false } = {}) {
  const isAbove = Object.keys(changes).every((name) => SHOWN_ABOVE.includes(name));
  const next = hashOf(isAbove ? changes : { open: "", at: "", ...changes });
  if (next === (location.hash || "#")) return listener({ isNew: false });
  const state = replace ? { ...history.state } : { above: isAbove };
  if (!replace) history.replaceState({ ...history.state, y: scrollY }, "");
  history[replace ? "replaceState" : "pushState"](state, "", next);
  read();
  listener({ isNew: true, y: isAbove ? null : 0 });
}

/** Goes back over what `go` put above; where this page was opened right there, to what lies behind. */
export function leave() {
  if (history.state?.above) history.back();
  else go({ open: "", at: "" }, { replace: true });
}

export function listen(told) {
  listener = told;
  history.scrollRestoration = "manual";
  const follow = () => { read(); listener({ isNew: true, y: history.state?.y ?? null }); };
  addEventListener("popstate", follow);
  let resting;
  addEventListener("scroll", () => {  // so that a reload comes back to the same place
    clearTimeout(resting);
    resting = setTimeout(() => history.replaceState({ ...history.state, y: scrollY }, ""), 250);
  }, { passive: true });
  follow();
}

export function title() {
  const what = route.open ? nameOf(route.open)
    : route.q ? route.q
    : route.like ? `Like ${nameOf(route.like)}`
    : route.picture ? "Like a picture"
    : { library: "Library", folders: "Folders", duplicates: "Duplicates" }[route.view];
  return `${what} · mmsearch`;
}
