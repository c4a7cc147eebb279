// Small helpers: elements, icons, and how values are written for people.

export const $ = (id) => document.getElementById(id);

/** An element; `set` are properties (`class`, `aria-…`, `data-…`, `role` and `for` are attributes), `children` nodes or texts. */
export function make(name, set = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(set)) {
    if (value === undefined || value === null || value === false && !key.startsWith("aria-")) continue;
    if (key === "class" || key === "role" || key === "for" || key === "list" || /^(aria|data)-/.test(key)) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const PATHS = {
  search: "M10 4a6 6 0 1 0 0 12 6 6 0 0 0 0-12m4.5 10.5L20 20",
  close: "M5 5l14 14M19 5 5 19",
  mic: "M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3M6 11a6 6 0 0 0 12 0M12 17v4M8 21h8",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
  library: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  video: "M3 6h12v12H3zM15 10l6-3v10l-6-3",
  sound: "M9 18V6l10-2v12M9 18a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0M19 16a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0",
  text: "M6 3h9l4 4v14H6zM9 11h7M9 15h7",
  folder: "M3 6h7l2 2h9v11H3z",
  copies: "M8 8h12v12H8zM4 16V4h12",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  info: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 11v6M12 7.5h.01",
  where: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6",
  like: "M12 4l2.3 5.2 5.7.6-4.3 3.8 1.2 5.6L12 16.3l-4.9 2.9 1.2-5.6L4 9.8l5.7-.6z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  download: "M12 4v11M7 11l5 5 5-5M4 20h16",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  check: "M5 12l5 5 9-10",
  play: "M7 4l13 8-13 8z",
  pause: "M8 5v14M16 5v14",
  loud: "M4 9v6h4l5 4V5L8 9zM16.5 9a4 4 0 0 1 0 6",
  mute: "M4 9v6h4l5 4V5L8 9zM17 9.5l4 5M21 9.5l-4 5",
  album: "M4 6h12M4 11h12M4 16h7M17 12v7M14 16h6",
  hide: "M4 4l16 16M10 6.3A9 9 0 0 1 21 12a12 12 0 0 1-2 2.7M6 8a12 12 0 0 0-3 4c3 5 8 6.500 12 4.700",
  help: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M9.500 9.500a2.500 2.500 0 1 1 3.500 2.300c-.7.300-1 .8-1 1.700M12 17h.01",
  full: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  calendar: "M4 6h16v14H4zM4 10h16M8 3v5M16 3v5",
  camera: "M4 8h4l2-3h4l2 3h4v11H4zM12 10.500a3 3 0 1 0 0 6 3 3 0 0 0 0-6",
  place: "M12 21c-4-5-6-8-6-11a6 6 0 0 1 12 0c0 3-2 6-6 11M12 8a2 2 0 1 0 0 4 2 2 0 0 0 0-4",
  size: "M4 20 20 4M4 13v7h7M20 11V4h-7",
  star: "M12 4l2.3 5.2 5.7.6-4.3 3.8 1.2 5.6L12 16.3l-4.9 2.9 1.2-5.6L4 9.8l5.7-.6z",
  said: "M4 5h16v11H9l-5 4z",
};

/** A line drawing that says nothing to screen readers: what it stands for is the name of its button. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  for (const [key, value] of [["viewBox", "0 0 24 24"], ["class", "icon"], ["aria-hidden", "true"]]) svg.setAttribute(key, value);
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button with a drawing; its name is read out, shown as a tip and, where `withText`, beside the drawing. */
export function iconButton(drawing, name, onclick, { withText = false, ...set } = {}) {
  const made = make("button", { type: "button", title: name, onclick, ...set }, icon(drawing));
  if (withText) made.append(make("span", { class: "label" }, name));
  else made.setAttribute("aria-label", name);
  return made;
}

export const nameOf = (path) => path.slice(path.lastIndexOf("/") + 1) || path;
export const folderOf = (path) => path.slice(0, path.lastIndexOf("/")) || "/";

export function clock(seconds, digits = 0) {
  const hours = Math.floor(seconds / 3600);
  const minutes = String(Math.floor(seconds / 60) % 60).padStart(hours ? 2 : 1, "0");
  return `${hours ? `${hours}:` : ""}${minutes}:${(Math.floor(seconds * 10 ** digits) / 10 ** digits % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) [count, unit] = [count / 1000, unit + 1];
  return `${unit && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

export const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

/** "2021-05" as "May 2021", or "May 2021" shortened to "Jan 2021"-like where `short`. */
export function monthName(month, short = false) {
  if (!month) return "No date";
  const [year, number] = month.split("-");
  const name = MONTHS[Number(number) - 1];
  return name ? `${short ? name.slice(0, 3) : name} ${year}` : year;
}

/** ISO 8601 local time as "3 July 2021, 14:05". */
export function dateName(iso) {
  const [, year, month, day, hour, minute] = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d))?/.exec(iso) ?? [];
  if (!year) return iso;
  return `${Number(day)} ${MONTHS[Number(month) - 1]} ${year}${hour ? `, ${hour}:${minute}` : ""}`;
}

/** Says something for a few seconds at the lower edge, and to screen readers. */
let fading;
export function toast(text, isWrong = false) {
  const place = $("toast");
  document.querySelector("dialog[open]:last-of-type")?.append(place);  // what lies under a dialog cannot be read
  if (!document.querySelector("dialog[open]")) document.body.append(place);
  place.textContent = text;
  place.classList.toggle("wrong", isWrong);
  place.classList.add("on");
  clearTimeout(fading);
  fading = setTimeout(() => place.classList.remove("on"), isWrong ? 9000 : 4000);
}

export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // no permission, or no secure connection
    const area = make("textarea", { value: text, class: "unseen", "aria-hidden": "true" });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(`${what} copied`);
}

export function saveBlob(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** What is kept in this browser between visits. */
export const kept = {
  get(name, otherwise) {
    try { return JSON.parse(localStorage.getItem(`mmsearch.${name}`)) ?? otherwise; } catch { return otherwise; }
  },
  set(name, value) {
    try { localStorage.setItem(`mmsearch.${name}`, JSON.stringify(value)); } catch { /* a browser that keeps nothing */ }
  },
};
