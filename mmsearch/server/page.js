// The page: which view is shown, and what is said about it.

import { Problem, ask, features } from "./page/api.js";
import { $, counted, make } from "./page/dom.js";
import { Duplicates } from "./page/duplicates.js";
import { Filters } from "./page/filters.js";
import { Folders } from "./page/folders.js";
import { Grid } from "./page/grid.js";
import { filtersOf, folderFilter, isListing, withFilters } from "./page/language.js";
import { Results } from "./page/results.js";
import { behind, go, hashOf, listen, route, title } from "./page/route.js";
import { SearchBar } from "./page/search_bar.js";
import { selection, showSelectionBar } from "./page/selection.js";
import { applyTheme, openSettings } from "./page/settings.js";
import { pictureOf } from "./page/uploads.js";
import { Viewer } from "./page/viewer.js";

const PATIENCE_MS = 900;  // before somebody who is typing is told what is wrong with it
let view = null;
let folders = null;
let shownBehind = null;
let holds = "";
let complaint;

const say = (text) => { $("about").textContent = text; };

function failed(problem) {
  clearTimeout(complaint);
  if (problem.status === 401) return stale();
  const tell = () => {
    $("view").replaceChildren();
    if (problem.status === 400 || problem.status === 422) { bar.say(problem); say(""); }
    else say("");
    if (problem.status !== 400 && problem.status !== 422) notice("Something went wrong", problem.sentence ?? problem.message, make("button", { type: "button", onclick: () => show(true) }, "Try again"));
  };
  if (bar.isTyping) complaint = setTimeout(tell, PATIENCE_MS); else tell();
}

/** A large message where there is nothing else to show. */
function notice(heading, text, ...more) {
  $("notice").replaceChildren(make("h2", {}, heading), ...[text].flat().map((line) => make("p", {}, line)), ...more);
  $("notice").hidden = false;
}

function stale() {
  view?.end();
  $("view").replaceChildren();
  notice("This page is out of date", ["The server was started anew since this page was opened, with another token.", "Open the address that mmsearch serve has printed, or start it with --token to keep the same one."]);
}

function empty() {
  if (route.q) notice("Nothing here", "No file meets these filters.", make("button", { type: "button", onclick: () => go({ q: "" }) }, "Show everything"));
  else notice("Nothing is indexed yet", ["Index a folder, and what is in it appears here:", make("code", {}, "mmsearch index ~/Pictures")]);
}

const openAt = (index) => viewer.open(view, index);

async function built(host) {
  if (route.view === "duplicates") {
    return new Duplicates(host, { open: openAt, failed, said: say, empty: () => notice("No near-duplicates", "Every picture in here is there only once.") });
  }
  if (route.like || route.picture || !isListing(route.q)) {
    const picture = route.picture ? (await pictureOf(route.picture))?.blob ?? null : null;
    if (route.picture && !picture && !route.q) {
      notice("That picture is no longer here", "Choose it again with the button in the search bar, or drop it on the page.");
      return null;
    }
    return new Results(host, { q: route.q, like: route.like, picture }, {
      open: openAt, failed, said: say,
      emptied: (reason) => notice("Nothing found", reason ?? "Try other words, or fewer filters."),
    });
  }
  return new Grid(host, { where: route.q, open: openAt, failed, empty });
}

let number = 0;

/** Shows what the address says. `anew`: also where only settings have changed; `y`: how far down. */
async function show(anew, y = null) {
  const mine = ++number;
  document.title = title();
  showFrame();
  if (anew || behind() !== shownBehind) {
    shownBehind = behind();
    clearTimeout(complaint);
    const host = make("div", { class: "one" });
    const next = await built(host);
    if (mine !== number) return next?.end();
    view?.end();
    view = next;
    if (!bar.isTyping) bar.say(null);
    const swap = () => {
      $("notice").hidden = true;
      say("");
      $("view").replaceChildren(host);
      if (y !== null) scrollTo(0, 0);
    };
    if (next instanceof Grid) swap();  // it has to know how wide it is
    else if (next) next.swap = swap;  // what was there stays until there is something new
    else $("view").replaceChildren();
    $("view").setAttribute("aria-busy", "true");
    await view?.load();
    if (mine !== number) return;
    $("view").removeAttribute("aria-busy");
    if (view?.total && view instanceof Grid && route.q) say(counted(view.total, "file"));
    document.body.dataset.ready = String(mine);
  }
  if (y) scrollTo(0, y);
  void viewer.follow(view);
}

/** What stands around the view: the search bar, chips, the tree of folders, and which part of the library this is. */
function showFrame() {
  void bar.show(route);
  filters.show();
  const types = filtersOf(route.q, ["type"]).map((part) => part.value);
  const now = route.view !== "library" ? route.view : types.length === 1 && ["image", "video", "sound"].includes(types[0]) ? types[0] : "library";
  for (const link of document.querySelectorAll("#parts a")) {
    const part = link.dataset.part;
    const type = ["image", "video", "sound"].includes(part) ? [`type:${part}`] : [];
    link.href = hashOf(part === "duplicates" ? { view: part, q: "", like: "", picture: "", open: "", at: "" }
      : { view: part === "folders" ? part : "library", q: withFilters(route.view === "duplicates" ? "" : route.q, ["type"], type), open: "", at: "" });
    if (part === now) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  $("chips").hidden = route.view === "duplicates";
  $("tree").hidden = route.view !== "folders";
  document.body.dataset.view = route.view;
  if (route.view !== "folders") return;
  const chosen = filtersOf(route.q, ["path"])[0]?.value.replace(/\/$/, "") ?? null;
  if (folders) folders.show(chosen);
  else {
    folders = new Folders($("tree"), { chosen, failed, choose: (path) => go({ view: "folders", q: withFilters(route.q, ["path", "folder"], path ? [folderFilter(path)] : []) }) });
    void folders.load();
  }
}

const viewer = new Viewer();
const bar = new SearchBar((changes, live = false) => {
  const isSearch = !isListing(changes.q ?? route.q);
  const next = { ...(route.view === "duplicates" && (isSearch || changes.q !== undefined) ? { view: "library" } : {}), ...changes };
  go(next, { replace: live && bar.isTyping });
});
const filters = new Filters({ get: () => bar.query, set: (q) => go({ q }) });
showSelectionBar(() => show(true));
applyTheme();

$("menu").onclick = () => openSettings(holds, () => show(true));
$("skip").onclick = () => document.querySelector("#view [tabindex='0'].open")?.focus();
for (const link of document.querySelectorAll("#parts a, #home")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const given = new URLSearchParams(link.getAttribute("href").slice(1));
    go({ view: given.get("view") ?? "library", q: given.get("q") ?? "", like: "", picture: "" });
  });
}
document.addEventListener("stale", stale);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const isWriting = event.target.matches("input, textarea, select");
  if (event.key === "Escape" && selection.size) selection.clear();
  else if (event.key === "/" && !isWriting) { event.preventDefault(); $("question").select(); }
  else if (event.key === "?" && !isWriting) openSettings(holds, () => show(true));
});

async function begin() {
  try {
    const status = await ask("/status");
    Object.assign(features, status.features);
    const counts = [["image", "photo"], ["video", "video"], ["sound", "recording"], ["text", "text"]]
      .filter(([kind]) => status.documents[kind]).map(([kind, name]) => counted(status.documents[kind], name));
    holds = `${counts.join(", ") || "Nothing yet"}, in ${status.path}`;
  } catch (problem) {
    if (problem instanceof Problem && problem.status === 401) return;
  }
  bar.showVoice();
  listen(({ isNew, y }) => show(!isNew, y));
}
void begin();
