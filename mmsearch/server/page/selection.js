// What is selected, and what can be done with it: the bar at the lower edge.

import { features, ask, askBlob, postJson } from "./api.js";
import { $, bytes, copyText, counted, iconButton, make, nameOf, saveBlob, toast } from "./dom.js";

class Selection extends EventTarget {
  #items = new Map();

  get size() { return this.#items.size; }
  get paths() { return [...this.#items.keys()]; }
  has(path) { return this.#items.has(path); }

  toggle(item, on = !this.#items.has(item.path)) {
    if (on) this.#items.set(item.path, item);
    else this.#items.delete(item.path);
    this.dispatchEvent(new Event("change"));
  }

  add(items) {
    for (const item of items) this.#items.set(item.path, item);
    this.dispatchEvent(new Event("change"));
  }

  clear() {
    this.#items.clear();
    this.dispatchEvent(new Event("change"));
  }
}

export const selection = new Selection();

/** Asks a question that has two answers; true where the person says yes. */
export function confirmed(question, yes) {
  return new Promise((resolve) => {
    const box = $("confirm");
    const answer = (value) => { box.close(); resolve(value); };
    box.replaceChildren(
      make("h2", { id: "confirm-title" }, question[0]), make("p", {}, question[1]),
      make("div", { class: "actions" },
        make("button", { type: "button", onclick: () => answer(false) }, "Cancel"),
        make("button", { type: "button", class: "primary", onclick: () => answer(true) }, yes)));
    box.oncancel = () => resolve(false);
    box.showModal();
  });
}

/** A zip of indexed files, made and sent by the server. */
export async function downloadZip(paths) {
  try {
    const blob = await askBlob("/zip", {}, postJson({ paths }), (share, arrived) => toast(`Downloading: ${bytes(arrived)}`));
    saveBlob(blob, paths.length === 1 ? `${nameOf(paths[0])}.zip` : `mmsearch-${paths.length}-files.zip`);
    toast(`${counted(paths.length, "file")} in one zip of ${bytes(blob.size)}`);
  } catch (problem) {
    toast(problem.sentence ?? problem.message, true);
  }
}

/** An album is an M3U playlist in UTF-8: one path a line, which players, digiKam and scripts read. */
export const albumOf = (paths) => `#EXTM3U\n${paths.join("\n")}\n`;

async function leaveOut(paths, removed) {
  const question = [`Leave ${counted(paths.length, "file")} out of the index?`,
    "They are not found any more, until they are indexed again. No file is deleted."];
  if (!await confirmed(question, "Leave out")) return;
  try {
    await ask("/remove", {}, postJson({ paths }));
    selection.clear();
    toast(`${counted(paths.length, "file")} left out of the index`);
    removed();
  } catch (problem) {
    toast(problem.sentence ?? problem.message, true);
  }
}

export function showSelectionBar(removed) {
  const bar = $("selection");
  const count = make("strong", { role: "status" });
  const leave = iconButton("hide", "Leave out of the index", () => leaveOut(selection.paths, removed), { withText: true });
  bar.append(
    iconButton("close", "Clear the selection", () => selection.clear()), count,
    make("div", { class: "actions" },
      iconButton("download", "Download zip", () => downloadZip(selection.paths), { withText: true }),
      iconButton("copy", "Copy paths", () => copyText(`${selection.paths.join("\n")}\n`, counted(selection.size, "path")), { withText: true }),
      iconButton("album", "Save album", () => saveBlob(new Blob([albumOf(selection.paths)], { type: "audio/x-mpegurl" }), "album.m3u8"), { withText: true }),
      leave));
  selection.addEventListener("change", () => {
    bar.hidden = selection.size === 0;
    document.body.classList.toggle("selecting", selection.size > 0);
    leave.hidden = !features.allow_changes;
    count.textContent = `${selection.size.toLocaleString("en")} selected`;
  });
}
