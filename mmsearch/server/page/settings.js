// How the page looks and searches, kept in this browser; and the keys that it knows.

import { $, iconButton, kept, make } from "./dom.js";

const KEYS = [
  ["In the library and in results", [["/", "to the search bar"], ["Arrow keys", "from picture to picture"], ["Enter", "show it large"], ["x", "select it"], ["Shift + click", "select all up to it"], ["Esc", "clear the selection"], ["?", "this list"]]],
  ["Where one is shown", [["← →", "the one before, the next"], ["i", "information"], ["w", "where it matches"], ["m", "more like this"], ["o", "show in folder"], ["c", "copy its path"], ["d", "download"], ["x", "select it"], ["f", "full screen"], ["Space", "play, pause"], ["Esc", "close"]]],
];

export function applyTheme() {
  const theme = kept.get("theme", "");
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
}

/** Opens the settings; `changed()` is called when one is changed. */
export function openSettings(status, changed) {
  const box = $("settings");
  const radio = (name, title, otherwise, options) => make("fieldset", {}, make("legend", {}, title), ...Object.entries(options).map(([value, shown]) => {
    const field = make("input", { type: "radio", name, value, checked: kept.get(name, otherwise) === value, onchange: () => { kept.set(name, value); applyTheme(); changed(); } });
    return make("label", {}, field, shown);
  }));
  const tick = (name, title, otherwise = false) => make("label", { class: "line" },
    make("input", { type: "checkbox", checked: kept.get(name, otherwise), onchange: (event) => { kept.set(name, event.target.checked); changed(); } }), title);
  box.replaceChildren(
    make("div", { class: "head" }, make("h2", { id: "settings-title" }, "Settings and keys"), iconButton("close", "Close", () => box.close())),
    make("div", { class: "body" },
      radio("size", "Size of pictures", "medium", { small: "Small", medium: "Medium", large: "Large" }),
      radio("theme", "Colours", "", { "": "As the system", light: "Light", dark: "Dark" }),
      make("fieldset", {}, make("legend", {}, "Searching"),
        tick("live", "Search while I type", true), tick("closer", "Look closer: a reranker orders the first results again, for at most a second"),
        tick("each", "Show near-duplicates one by one"), tick("numbers", "Show the numbers behind the order")),
      make("section", {}, make("h3", {}, "How to ask"),
        make("p", {}, "Write what you look for: ", make("code", {}, "mountain lake"), ". ", make("code", {}, "-people"), " leaves out, ", make("code", {}, '"exact words"'), " must be written there, and filters such as ",
          make("code", {}, "after:2021-07"), ", ", make("code", {}, "camera:X100"), " or ", make("code", {}, "size:>2mp"), " narrow it down. The buttons below the search bar write filters for you.")),
      ...KEYS.map(([title, rows]) => make("section", {}, make("h3", {}, title),
        make("dl", { class: "keys" }, ...rows.flatMap(([key, does]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, does)])))),
      status && make("section", {}, make("h3", {}, "This index"), make("p", { class: "quiet" }, status))));
  box.onclick = (event) => { if (event.target === box) box.close(); };
  box.showModal();
}
