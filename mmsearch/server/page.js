"use strict";

const $ = (id) => document.getElementById(id);
const STEP = 40;
const MOST = 500;
const FEW = 6;  // weaker matches that are shown without being asked for
const EVERYTHING = "before:9999";  // a query of filters alone lists what they allow, the newest first
const state = { q: "", kind: "", duplicates: false, closer: false, all: false, like: null, upload: null, k: STEP };
let latest = 0;
let hits = [];
let viewed = null;

/* ---- searching ---- */

function address(path, values) {
  const parts = new URLSearchParams();
  for (const [name, value] of values) if (value !== "" && value !== null) parts.append(name, value);
  return `${path}?${parts}`;
}

function searchAddress() {
  return address("/api/v1/search", [
    ["q", state.q || (state.like || state.upload ? "" : EVERYTHING)], ["k", state.k], ["modality", state.kind], ["like", state.like],
    ["no_collapse", state.duplicates ? 1 : ""],
    ["rerank", state.closer && state.q ? 1 : ""],
  ]);
}

async function search() {
  const number = ++latest;
  showSearch();
  const started = performance.now();
  say("…");
  let body, status;
  try {
    const response = await fetch(searchAddress(), state.upload ? { method: "POST", body: state.upload } : {});
    status = response.status;
    body = await response.json();
  } catch (error) {
    return say(`No answer: is mmsearch serve still running? (${error.message})`, true);
  }
  if (number !== latest) return;  // a later search is under way
  if (status !== 200) {
    show([], true);
    return say(body.detail, true);
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(2);
  show(body.hits, body.hits.length < state.k || state.k >= MOST);
  const matches = body.hits.filter((hit) => hit.match).length;
  const count = matches === 1 ? "1 match" : `${matches} matches`;
  const isSearch = state.q || state.like || state.upload;
  const found = matches ? `${count} in ${seconds} s` : body.hits.length ? "Nothing in here is like that. The nearest:" : "Nothing found.";
  say([isSearch ? found : "The newest", ...body.notes].join("\n"));
}

/** Shows matches, and below them a few of the weaker ones; the button gets what else there is. */
function show(found, isAll) {
  const matches = found.filter((hit) => hit.match);
  const weaker = found.filter((hit) => !hit.match);
  const shown = state.all ? weaker : weaker.slice(0, FEW);
  hits = [...matches, ...shown];
  $("hits").replaceChildren(...matches.map(cell));
  $("weaker").replaceChildren(...shown.map(cell));
  $("weaker-title").hidden = !matches.length || !shown.length;
  const isCut = shown.length < weaker.length;
  $("more").hidden = isAll && !isCut;
  $("more").textContent = isCut ? "More weaker matches" : "More";
  $("more").onclick = () => { if (isCut) state.all = true; else state.k = Math.min(MOST, state.k + STEP); search(); };
}

/** Changes the search, and remembers it in the address, so that the browser's own back button works. */
function go(changes) {
  Object.assign(state, { all: false, k: STEP }, changes);
  const kept = address("", [["q", state.q], ["kind", state.kind], ["like", state.like],
    ["duplicates", state.duplicates ? 1 : ""], ["closer", state.closer ? 1 : ""], ["all", state.all ? 1 : ""]]).slice(1);
  if (`#${kept}` !== location.hash) history.pushState(null, "", `#${kept}`);
  search();
}

function readAddress() {
  const kept = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, {
    q: kept.get("q") || "", kind: kept.get("kind") || "", like: kept.get("like"), upload: null,
    duplicates: kept.has("duplicates"), closer: kept.has("closer"), all: kept.has("all"), k: STEP,
  });
  search();
}

function showSearch() {
  $("question").value = state.q;
  for (const name of ["duplicates", "closer"]) $(name).checked = state[name];
  for (const radio of document.getElementsByName("kind")) radio.checked = radio.value === state.kind;
  const is = state.like !== null || state.upload !== null;
  $("like").hidden = !is;
  if (!is) return;
  $("like-picture").src = state.upload ? URL.createObjectURL(state.upload) : pictureOf({ path: state.like }, 160);
  $("like-name").textContent = state.upload ? state.upload.name : nameOf(state.like);
}

function say(text, isWrong = false) {
  $("about").textContent = text;
  $("about").classList.toggle("wrong", isWrong);
}

/* ---- hits ---- */

const nameOf = (path) => path.slice(path.lastIndexOf("/") + 1);

function pictureOf(hit, size) {
  const at = hit.best_s ?? hit.start_s ?? null;
  return address("/api/v1/thumbnail", [["path", hit.path], ["t", at], ["size", size]]);
}

function clock(seconds, digits) {
  const hours = Math.floor(seconds / 3600);
  const minutes = String(Math.floor(seconds / 60) % 60).padStart(hours ? 2 : 1, "0");
  return `${hours ? `${hours}:` : ""}${minutes}:${(seconds % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

function momentOf(hit) {
  if (hit.start_s === null) return "";
  const digits = hit.end_s - hit.start_s < 10 ? 1 : 0;
  return hit.end_s > hit.start_s
    ? `${clock(hit.start_s, digits)}–${clock(hit.end_s, digits)}` : clock(hit.start_s, digits);
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const SOUNDS = /\.(mp3|m4a|m4b|aac|wav|flac|ogg|oga|opus|wma|aiff?|mka)$/i;

function isPassage(hit) {
  return hit.modality === "text" || hit.text !== null;
}

function cell(hit) {
  const button = element("button", "hit");
  button.type = "button";
  button.title = hit.path;
  const frame = element("span", "frame");
  if (isPassage(hit)) {
    frame.append(element("span", "passage", (hit.text || "").slice(0, 400)));
  } else {
    const picture = element("img", "");
    picture.loading = "lazy";
    picture.alt = nameOf(hit.path);
    picture.src = pictureOf(hit, 320);
    frame.append(picture);
  }
  const below = element("span", "below");
  below.append(element("span", "name", nameOf(hit.path)));
  const note = element("span", "note");
  note.append(element("span", "", [momentOf(hit), copies(hit)].filter(Boolean).join(" · ")));
  note.append(element("span", "score", hit.date ? hit.date.slice(0, 10) : hit.relevance === null ? "" : hit.relevance.toFixed(2)));
  below.append(note);
  const bar = element("span", "bar");
  const filled = document.createElement("i");
  filled.style.width = `${Math.round(100 * Math.max(0, hit.relevance ?? 0))}%`;
  bar.style.display = "block";
  bar.append(filled);
  button.append(frame, bar, below);
  button.onclick = () => view(hit);
  return button;
}

function copies(hit) {
  const count = hit.duplicates.length;
  return count === 0 ? "" : count === 1 ? "+1 near-duplicate" : `+${count} near-duplicates`;
}

/* ---- one hit ---- */

function view(hit) {
  viewed = hit;
  const file = address("/api/v1/file", [["path", hit.path]]);
  let shown;
  const isSound = hit.modality === "sound" || (hit.modality === "speech" && SOUNDS.test(hit.path));
  if (isSound) {
    shown = element("div", "sound");
    const player = document.createElement("audio");
    player.controls = player.autoplay = true;
    player.src = `${file}#t=${hit.start_s ?? 0}`;
    shown.append(player, element("p", "passage", hit.text || ""));
  } else if (hit.modality === "video" || hit.modality === "speech") {
    shown = document.createElement("video");
    shown.controls = shown.autoplay = true;
    shown.muted = hit.modality === "video";  // who looks for what is said wants to hear it
    shown.src = `${file}#t=${hit.start_s ?? 0}`;
    shown.poster = pictureOf(hit, 1280);
  } else if (hit.modality === "image") {
    shown = document.createElement("img");
    shown.src = pictureOf(hit, 1280);  // upright, and of every format that mmsearch reads
    shown.alt = nameOf(hit.path);
  } else {
    shown = element("pre", "", hit.text || "");
  }
  $("shown").replaceChildren(shown);
  $("shown-name").textContent = hit.path;
  const parts = Object.entries(hit.parts).filter(([, value]) => value).map(([name, value]) => `${name} ${value.toFixed(3)}`);
  const read = hit.read ? `read in it: “${hit.read.replaceAll("\n", " / ")}”` : "";
  const said = hit.modality === "speech" ? `“${hit.text}”` : "";
  $("shown-about").textContent = [momentOf(hit), said, parts.join(" + "), read].filter(Boolean).join(" · ");
  $("shown-open").href = file;
  $("shown-like").hidden = isPassage(hit);
  $("shown-where").hidden = isPassage(hit) || !state.q;
  $("shown-where").ariaPressed = "false";
  $("shown-where").onclick = () => showWhere(hit, shown);
  $("shown-like").onclick = () => { $("viewer").close(); go({ q: "", like: hit.path, upload: null }); };
  if (!$("viewer").open) $("viewer").showModal();
}

/** The hit before or after the one that is shown. */
function step(by) {
  const next = hits[hits.indexOf(viewed) + by];
  if (next) view(next);
}

/** Changes between the picture (or the video) and where in it the query matched. */
function showWhere(hit, shown) {
  const on = $("shown-where").ariaPressed !== "true";
  $("shown-where").ariaPressed = String(on);
  if (!on) return $("shown").replaceChildren(shown);
  const map = document.createElement("img");
  map.alt = "Looking…";
  map.src = address("/api/v1/heat", [["path", hit.path], ["q", state.q]]);
  map.onerror = () => { map.alt = "There is no map for this query: it has only filters, or the file is gone"; };
  $("shown").replaceChildren(map);
}

$("viewer").addEventListener("close", () => $("shown").replaceChildren());
$("viewer").addEventListener("click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
$("shown-close").onclick = () => $("viewer").close();

/* ---- what the person does ---- */

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  go({ q: $("question").value.trim() });
});
$("choices").addEventListener("change", () => {
  const kind = document.querySelector("[name=kind]:checked").value;
  go({ kind, duplicates: $("duplicates").checked, closer: $("closer").checked });
});
$("like-off").onclick = () => go({ like: null, upload: null });
$("upload").addEventListener("change", () => {
  if ($("upload").files.length) go({ upload: $("upload").files[0], like: null });
  $("upload").value = "";
});

/* ---- questions that are spoken: recorded here, understood by the server, shown to be edited, then asked ---- */

let recorder = null;

async function speak() {
  if (recorder) return recorder.stop();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    return say(`The microphone cannot be used: ${error.message}`, true);
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = async () => {
    stream.getTracks().forEach((track) => track.stop());
    recorder = null;
    $("voice").ariaPressed = "false";
    $("voice").textContent = "Speak";
    say("Listening to it …");
    const response = await fetch("/api/v1/voice", { method: "POST", body: new Blob(parts) });
    const body = await response.json();
    if (!response.ok) return say(body.detail, true);
    $("question").value = body.text;
    $("question").focus();
    if (body.text) say(`Understood: ${body.text}. Press Enter to search, or change it.`);
    else say("Nothing was understood.", true);
  };
  recorder.start();
  $("voice").ariaPressed = "true";
  $("voice").textContent = "Done";
  say("Listening … press the button again when you are done.");
}

$("voice").hidden = !(navigator.mediaDevices && window.MediaRecorder);
$("voice").onclick = speak;

let waiting;
$("question").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    const typed = $("question").value;
    const response = await fetch(address("/api/v1/complete", [["q", typed]]));
    if (!response.ok || typed !== $("question").value) return;
    const { completions } = await response.json();
    $("completions").replaceChildren(...completions.map((text) => {
      const option = document.createElement("option");
      option.value = text;
      return option;
    }));
  }, 120);
});

document.addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by && $("viewer").open && !(event.target instanceof HTMLMediaElement)) step(by);
  if (event.key === "/" && document.activeElement !== $("question") && !$("viewer").open) {
    event.preventDefault();
    $("question").select();
  }
});
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const picture = [...event.dataTransfer.files].find((file) => file.type.startsWith("image/"));
  if (picture) go({ upload: picture, like: null });
});
document.addEventListener("paste", (event) => {
  const picture = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  if (picture) go({ upload: picture, like: null });
});
window.addEventListener("popstate", readAddress);

fetch("/api/v1/status").then((response) => response.json()).then((status) => {
  const counts = [["image", "photos"], ["video", "videos"], ["sound", "recordings"], ["text", "texts"]]
    .filter(([kind]) => status.documents[kind]).map(([kind, name]) => `${status.documents[kind].toLocaleString()} ${name}`);
  $("holds").textContent = counts.join(", ");
});
readAddress();
