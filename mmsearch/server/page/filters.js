// Chips for the filters: they write the query language, and read back what somebody typed.

import { ask, features } from "./api.js";
import { $, dateName, icon, iconButton, make, nameOf } from "./dom.js";
import { treeOf } from "./folders.js";
import { filter, filtersOf, folderFilter, partsOf, withFilters, without } from "./language.js";
import { dayAfter } from "./viewer.js";

const TYPES = { image: "Photos", video: "Videos", sound: "Recordings", text: "Texts", speech: "What is said" };
const SIZES = [["", "Any size"], [">2mp", "Over 2 megapixels"], [">8mp", "Over 8 megapixels"], [">20mp", "Over 20 megapixels"], ["<1mp", "Under 1 megapixel"], [">10mb", "Over 10 MB"], [">100mb", "Over 100 MB"]];
const LENGTHS = [["", "Any length"], ["<30s", "Under half a minute"], [">1m", "Over a minute"], [">10m", "Over ten minutes"], [">1h", "Over an hour"]];
const RADII = ["1km", "5km", "20km", "100km", "500km"];

const dayBefore = (day) => { const at = new Date(`${day}T00:00:00Z`); at.setUTCDate(at.getUTCDate() - 1); return at.toISOString().slice(0, 10); };
const isDay = (value) => /^\d{4}-\d\d-\d\d$/.test(value);
/** The first day of "2021", "2021-05" or "2021-05-03". */
const firstDay = (value) => /^\d{4}$/.test(value) ? `${value}-01-01` : /^\d{4}-\d\d$/.test(value) ? `${value}-01` : isDay(value) ? value : "";

function dateText(parts) {
  const [after, before] = ["after", "before"].map((key) => parts.find((part) => part.key === key)?.value);
  if (/^\d{4}$/.test(after ?? "") && before === String(Number(after) + 1)) return after;
  const write = (value) => isDay(value) ? dateName(value) : value;
  if (after && before) return isDay(before) && dayBefore(before) === after ? write(after) : `${write(after)} – ${isDay(before) ? write(dayBefore(before)) : `before ${before}`}`;
  return after ? `from ${write(after)}` : isDay(before) ? `until ${write(dayBefore(before))}` : `before ${write(before)}`;
}

const CHIPS = [
  { id: "date", label: "Date", drawing: "calendar", keys: ["after", "before"], text: dateText, build: buildDate },
  { id: "type", label: "Type", drawing: "picture", keys: ["type"], text: ([part]) => part.value.split(",").map((one) => TYPES[one] ?? one).join(", "), build: buildType },
  { id: "folder", label: "Folder", drawing: "folder", keys: ["path", "folder"], text: ([part]) => nameOf(part.value.replace(/[/*]+$/, "")), build: buildFolder },
  { id: "place", label: "Place", drawing: "place", keys: ["near"], text: ([part]) => part.value.replace(/,\s*([\d.]+\s*(?:km|m|mi))$/i, ", $1"), build: buildPlace },
  { id: "camera", label: "Camera", drawing: "camera", keys: ["camera", "lens"], text: (parts) => parts.map((part) => part.value).join(", "), build: buildCamera },
  { id: "size", label: "Size", drawing: "size", keys: ["size", "duration"], text: (parts) => parts.map((part) => [...SIZES, ...LENGTHS].find(([value]) => value === part.value)?.[1] ?? part.value).join(", "), build: buildSize },
  { id: "rating", label: "Rating", drawing: "star", keys: ["rating"], text: ([part]) => `${part.value.replace(">=", "from ")} ★`, build: buildRating },
];
const COVERED = CHIPS.flatMap((chip) => chip.keys);

export class Filters {
  /** `get()` gives the query as it stands, `set(query)` changes it. */
  constructor({ get, set }) {
    Object.assign(this, { get, set });
    this.host = $("chips");
    this.sheet = $("sheet");
    this.unused = new Set(["rating", "camera"]);  // until the server says that some file has it
    this.sheet.addEventListener("click", (event) => { if (event.target === this.sheet) this.sheet.close(); });
    this.sheet.addEventListener("close", () => { this.host.querySelector(`[data-chip="${this.opened}"]`)?.focus(); });
    for (const field of ["rating", "camera"]) {
      ask("/values", { field, limit: 1 }).then(({ values }) => { if (values.length) { this.unused.delete(field); this.show(); } }, () => {});
    }
  }

  show() {
    const query = this.get();
    const chips = [];
    for (const chip of CHIPS) {
      const parts = filtersOf(query, chip.keys);
      if (!parts.length && this.unused.has(chip.id)) continue;
      chips.push(this.chip(chip, parts));
    }
    for (const part of partsOf(query)) {
      if (part.key === null || (!part.negated && COVERED.includes(part.key))) continue;
      chips.push(make("span", { class: "chip on" }, make("span", { class: "said" }, part.text),
        iconButton("close", `Remove ${part.text}`, () => this.set(without(this.get(), part)))));
    }
    const focused = document.activeElement?.dataset?.chip;
    this.host.replaceChildren(...chips.sort((a, b) => b.classList.contains("on") - a.classList.contains("on")));
    if (focused) this.host.querySelector(`[data-chip="${focused}"]`)?.focus();
  }

  chip(chip, parts) {
    const isOn = parts.length > 0;
    const name = isOn ? `${chip.label}: ${chip.text(parts)}` : chip.label;
    const button = make("button", {
      type: "button", class: "said", "data-chip": chip.id, "aria-haspopup": "dialog", onclick: () => this.open(chip),
    }, icon(chip.drawing), name);
    return make("span", { class: isOn ? "chip on" : "chip" }, button,
      isOn && iconButton("close", `Remove the filter: ${name}`, () => this.write(chip, [])));
  }

  write(chip, added) {
    this.set(withFilters(this.get(), chip.keys, added));
  }

  async open(chip) {
    this.opened = chip.id;
    const body = make("div", { class: "body" });
    const done = (added) => { this.sheet.close(); this.write(chip, added); };
    this.sheet.replaceChildren(
      make("div", { class: "head" }, make("h2", { id: "sheet-title" }, chip.label), iconButton("close", "Close", () => this.sheet.close())), body);
    this.sheet.showModal();
    this.placeSheet();
    await chip.build(body, filtersOf(this.get(), chip.keys), done);
    body.querySelector("input, button, select")?.focus();
  }

  /** On a wide window below its chip; a narrow one has it at its lower edge. */
  placeSheet() {
    const { left, bottom } = this.host.querySelector(`[data-chip="${this.opened}"]`).getBoundingClientRect();
    this.sheet.style.left = innerWidth < 700 ? "" : `${Math.max(8, Math.min(left, innerWidth - 380))}px`;
    this.sheet.style.top = innerWidth < 700 ? "" : `${bottom + 6}px`;
  }
}

/** A form whose button calls `apply`. */
function form(body, apply, ...children) {
  const made = make("form", {}, ...children, make("div", { class: "actions" }, make("button", { class: "primary" }, "Apply")));
  made.onsubmit = (event) => { event.preventDefault(); apply(); };
  body.append(made);
}

function buildDate(body, parts, done) {
  const given = (key) => parts.find((part) => part.key === key)?.value ?? "";
  const before = firstDay(given("before"));
  const from = make("input", { type: "date", value: firstDay(given("after")) });
  const to = make("input", { type: "date", value: before ? dayBefore(before) : "" });
  const today = new Date().toISOString().slice(0, 10);
  const ago = (days) => { const at = new Date(); at.setUTCDate(at.getUTCDate() - days); return at.toISOString().slice(0, 10); };
  const quick = (name, added) => make("button", { type: "button", onclick: () => done(added) }, name);
  const year = (number) => quick(String(number), [filter("after", String(number)), filter("before", String(number + 1))]);
  const now = Number(today.slice(0, 4));
  const years = make("div", { class: "quick" }, quick("Last 30 days", [filter("after", ago(30))]), year(now), year(now - 1), year(now - 2));
  body.append(years);
  ask("/timeline", {}).then(({ months }) => {
    const there = [...new Set(months.map(({ month }) => month?.slice(0, 4)).filter(Boolean))];
    years.replaceChildren(quick("Last 30 days", [filter("after", ago(30))]), ...there.slice(0, 24).map((one) => year(Number(one))));
  }, () => {});
  form(body, () => {
    const added = [];
    if (from.value) added.push(filter("after", from.value));
    if (to.value) added.push(filter("before", dayAfter(to.value)));
    done(added);
  }, make("label", {}, "From", from), make("label", {}, "To", to));
}

async function buildType(body, parts, done) {
  const chosen = parts.flatMap((part) => part.value.toLowerCase().split(","));
  const boxes = Object.entries(TYPES).map(([name, shown]) => {
    const box = make("input", { type: "checkbox", value: name, checked: chosen.includes(name) });
    return make("label", { class: "line" }, box, shown);
  });
  form(body, () => {
    const names = boxes.map((line) => line.firstChild).filter((box) => box.checked).map((box) => box.value);
    done(names.length ? [filter("type", names.join(","))] : []);
  }, ...boxes);
}

/** Rows to choose one of, with a field that narrows them; `rows`: {name, count, added, depth}. */
function choices(body, rows, done, what) {
  const list = make("ul", { class: "choices" });
  const field = make("input", { type: "search", placeholder: `Find a ${what}`, "aria-label": `Find a ${what}` });
  const draw = () => {
    const wanted = field.value.trim().toLowerCase();
    const fitting = rows.filter((row) => row.name.toLowerCase().includes(wanted)).slice(0, 300);
    list.replaceChildren(...fitting.map((row) => {
      const button = make("button", { type: "button", onclick: () => done(row.added) }, make("span", { class: "name" }, row.name), make("span", { class: "count" }, row.count.toLocaleString("en")));
      button.style.paddingLeft = `${10 + 16 * (wanted ? 0 : row.depth ?? 0)}px`;
      return make("li", {}, button);
    }));
    if (!fitting.length) list.append(make("li", { class: "quiet" }, `There is no such ${what}.`));
  };
  field.oninput = draw;
  body.append(field, list);
  draw();
}

async function buildFolder(body, parts, done) {
  const { folders } = await ask("/folders", {});
  const rows = [];
  const walk = (node, depth) => {
    rows.push({ name: nameOf(node.path), count: node.total, depth, added: [folderFilter(node.path)] });
    for (const child of node.children) walk(child, depth + 1);
  };
  for (const root of treeOf(folders)) walk(root, 0);
  choices(body, rows, done, "folder");
}

async function buildCamera(body, parts, done) {
  const [cameras, lenses] = await Promise.all(["camera", "lens"].map((field) => ask("/values", { field, limit: 200 })));
  const rows = [["camera", cameras], ["lens", lenses]].flatMap(([key, { values }]) => values.map(({ value, count }) => ({ name: value, count, added: [filter(key, value)] })));
  choices(body, rows, done, "camera or lens");
}

function buildPlace(body, parts, done) {
  const [, name = "", radius = "20km"] = /^(.*?)(?:,\s*([\d.]+\s*(?:km|m|mi)))?$/i.exec(parts[0]?.value ?? "") ?? [];
  const field = make("input", { type: "text", value: name, placeholder: "Zermatt, or 46.02, 7.75", "aria-label": "Place", list: "place-names", autocomplete: "off" });
  const names = make("datalist", { id: "place-names" });
  const around = make("select", { "aria-label": "Within" }, ...[...new Set([radius, ...RADII])].map((one) => make("option", { value: one, selected: one === radius }, `within ${one}`)));
  let waiting;
  field.oninput = () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      if (field.value.trim().length < 2) return;
      const { places = [] } = await ask("/places", { q: field.value.trim() }).catch(() => ({}));
      names.replaceChildren(...places.map((place) => make("option", { value: typeof place === "string" ? place : place.name })));
    }, 150);
  };
  if (!features.places) body.append(make("p", { class: "quiet" }, "Names of places need the extra “places” where mmsearch is installed; coordinates work without it."));
  form(body, () => {
    const text = field.value.trim().replace(/\s*,\s*/g, ", ");
    const spot = /^[+-]?[\d.]+, [+-]?[\d.]+$/.test(text) ? text.replace(" ", "") : text;
    done(spot ? [filter("near", `${spot},${around.value}`)] : []);
  }, make("label", {}, "Place", field, names), make("label", {}, "Distance", around));
}

function buildSize(body, parts, done) {
  const select = (name, key, options) => {
    const now = parts.find((part) => part.key === key)?.value ?? "";
    const all = options.some(([value]) => value === now) ? options : [...options, [now, now]];
    return make("select", { name: key }, ...all.map(([value, shown]) => make("option", { value, selected: value === now }, shown)));
  };
  const size = select("Size", "size", SIZES);
  const length = select("Length", "duration", LENGTHS);
  form(body, () => done([["size", size.value], ["duration", length.value]].filter(([, value]) => value).map(([key, value]) => filter(key, value))),
    make("label", {}, "Size", size), make("label", {}, "Length of videos", length));
}

function buildRating(body, parts, done) {
  const row = make("div", { class: "quick" }, ...[1, 2, 3, 4, 5].map((stars) =>
    make("button", { type: "button", "aria-label": `${stars} ${stars === 1 ? "star" : "stars"} or more`, onclick: () => done([filter("rating", stars === 5 ? "5" : `>=${stars}`)]) }, "★".repeat(stars))));
  body.append(row);
}
