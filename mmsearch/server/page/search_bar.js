// Where questions are typed, spoken and dropped: with suggestions, and with the place of what is wrong in them.

import { ask, features } from "./api.js";
import { $, icon, kept, make, nameOf, toast } from "./dom.js";
import { partsOf, wordsOf } from "./language.js";
import { thumbnail } from "./api.js";
import { keepPicture, pictureOf } from "./uploads.js";

const TYPED_MS = 120;  // after the last key, before the search begins
const ENOUGH = 3;  // letters of words from which on it does
const REMEMBERED = 30;

export class SearchBar {
  /** `search(changes, live)`: the person asks; `live`: while typing, so that it is no step in the history of its own. */
  constructor(search) {
    this.search = search;
    this.field = $("question");
    this.list = $("suggestions");
    this.chosen = -1;
    this.isTyping = false;
    for (const button of document.querySelectorAll("[data-icon]")) button.prepend(icon(button.dataset.icon));
    $("ask").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    this.field.addEventListener("input", () => this.typed());
    this.field.addEventListener("keydown", (event) => this.onkey(event));
    this.field.addEventListener("blur", () => setTimeout(() => this.fold(), 150));
    this.field.addEventListener("focus", () => { if (!this.field.value) this.suggest(); });
    $("clear").onclick = () => { this.field.value = ""; this.search({ q: "", like: "", picture: "" }); this.field.focus(); };
    $("picture").onclick = () => $("upload").click();
    $("upload").addEventListener("change", () => { this.ask($("upload").files); $("upload").value = ""; });
    $("like-off").onclick = () => this.search({ like: "", picture: "" });
    document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
    document.addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("dropping"); this.ask(event.dataTransfer.files); });
    document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) this.ask(event.clipboardData.files); });
    $("voice").onclick = () => this.speak();
  }

  async ask(files) {
    const picture = [...files].find((file) => file.type.startsWith("image/") || /\.(heic|heif|avif)$/i.test(file.name));
    if (!picture) { if (files.length) toast("That is no picture: only pictures can be asked for.", true); return; }
    this.search({ view: "library", like: "", picture: await keepPicture(picture) });
  }

  get query() { return this.field.value.trim(); }

  submit() {
    clearTimeout(this.waiting);
    this.fold();
    this.isTyping = false;
    const q = this.query;
    if (wordsOf(q)) kept.set("asked", [q, ...kept.get("asked", []).filter((one) => one !== q)].slice(0, REMEMBERED));
    this.search({ q });
  }

  typed() {
    $("clear").hidden = !this.field.value;
    this.say(null);
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => {
      this.suggest();
      const last = partsOf(this.query).at(-1);
      const isWhole = !this.query || (last.key === null ? wordsOf(this.query).length >= ENOUGH : last.value !== "");
      if (isWhole && kept.get("live", true) && !kept.get("closer", false)) {
        this.search({ q: this.query }, true);
        this.isTyping = true;
      }
    }, TYPED_MS);
  }

  /** Shows what the address says; what somebody is typing stays. */
  async show({ q, like, picture }) {
    if (document.activeElement !== this.field || this.query !== q) this.field.value = q;
    if (document.activeElement !== this.field) this.isTyping = false;
    $("clear").hidden = !this.field.value && !like && !picture;
    $("like").hidden = !like && !picture;
    if (like) {
      $("like-picture").src = thumbnail({ path: like }, 160);
      $("like-name").textContent = `Like ${nameOf(like)}`;
    } else if (picture) {
      const found = await pictureOf(picture);
      if (found) $("like-picture").src = URL.createObjectURL(found.blob);
      $("like-name").textContent = found ? `Like ${found.name}` : "That picture is no longer here: choose it again.";
    }
  }

  /** Says what is wrong with the query, with its place; null: nothing is. */
  say(problem) {
    const place = $("wrong");
    place.hidden = problem === null;
    this.field.setAttribute("aria-invalid", String(problem !== null));
    if (problem === null) { place.replaceChildren(); return; }
    const parts = [make("span", {}, problem.sentence ?? problem.message)];
    if (problem.position !== null && problem.position !== undefined) {
      const q = this.query;
      const from = Array.from(q).slice(0, problem.position).join("").length;  // the server counts characters, not UTF-16
      const rest = /^\s*\S+/.exec(q.slice(from))?.[0] ?? q.slice(from);
      parts.push(make("code", {}, q.slice(0, from), make("mark", {}, rest || " "), q.slice(from + rest.length)));
      if (document.activeElement === this.field && !this.isTyping) this.field.setSelectionRange(from, from + rest.length);
    }
    place.replaceChildren(...parts);
  }

  // Suggestions

  async suggest() {
    const typed = this.field.value;
    const asked = kept.get("asked", []).filter((one) => one !== typed && one.toLowerCase().startsWith(typed.toLowerCase())).slice(0, 5);
    let completions = [];
    if (typed) {
      this.asking?.abort();
      this.asking = new AbortController();
      try {
        ({ completions } = await ask("/complete", { q: typed }, { signal: this.asking.signal }));
      } catch {
        return;
      }
      if (typed !== this.field.value || /\s$/.test(typed)) completions = [];
    }
    if (typed !== this.field.value || document.activeElement !== this.field) return;
    const rows = [...asked.map((text) => ["search", text]), ...completions.slice(0, 7).map((text) => ["more", text])];
    this.chosen = -1;
    this.list.replaceChildren(...rows.map(([drawing, text], number) => {
      const row = make("li", { role: "option", id: `suggestion-${number}`, "aria-selected": "false" }, icon(drawing), text);
      row.onpointerdown = (event) => { event.preventDefault(); this.take(text); };
      return row;
    }));
    this.list.hidden = rows.length === 0;
    this.field.setAttribute("aria-expanded", String(rows.length > 0));
    this.field.removeAttribute("aria-activedescendant");
  }

  fold() {
    this.list.hidden = true;
    this.field.setAttribute("aria-expanded", "false");
    this.field.removeAttribute("aria-activedescendant");
  }

  take(text) {
    this.field.value = text;
    this.field.focus();
    if (text.endsWith(":")) this.typed();
    else this.submit();
  }

  onkey(event) {
    const rows = [...this.list.children];
    if (event.key === "Escape") {
      if (this.list.hidden) this.field.blur();
      this.fold();
      event.preventDefault();
      event.stopPropagation();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !this.list.hidden) {
      event.preventDefault();
      const count = rows.length + 1;  // one place is the field itself
      this.chosen = (this.chosen + 1 + (event.key === "ArrowDown" ? 1 : -1) + count) % count - 1;
      rows.forEach((row, number) => row.setAttribute("aria-selected", String(number === this.chosen)));
      if (this.chosen >= 0) this.field.setAttribute("aria-activedescendant", rows[this.chosen].id);
      else this.field.removeAttribute("aria-activedescendant");
    } else if (event.key === "Enter" && this.chosen >= 0 && !this.list.hidden) {
      event.preventDefault();
      this.take(rows[this.chosen].textContent);
    }
  }

  // Spoken: recorded here, understood by the server, shown to be edited, then asked

  showVoice() {
    $("voice").hidden = !(features.voice && navigator.mediaDevices && window.MediaRecorder);
  }

  async speak() {
    if (this.recorder) return this.recorder.stop();
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      return toast(`The microphone cannot be used: ${error.message}`, true);
    }
    const parts = [];
    this.recorder = new MediaRecorder(stream);
    this.recorder.ondataavailable = (event) => parts.push(event.data);
    this.recorder.onstop = () => { stream.getTracks().forEach((track) => track.stop()); void this.understand(new Blob(parts)); };
    this.recorder.start();
    $("voice").setAttribute("aria-pressed", "true");
    toast("Listening … press the button again when you are done.");
  }

  async understand(recording) {
    this.recorder = null;
    $("voice").setAttribute("aria-pressed", "false");
    toast("Listening to it …");
    try {
      const { text } = await ask("/voice", {}, { method: "POST", body: recording });
      if (!text) return toast("Nothing was understood.", true);
      this.field.value = text;
      this.field.focus();
      toast(`Understood: ${text}. Press Enter to search, or change it.`);
    } catch (problem) {
      toast(problem.sentence ?? problem.message, true);
    }
  }
}
