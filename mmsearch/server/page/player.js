// A video or recording that plays from its moment, with the moments that match marked on its time bar.

import { clock, iconButton, kept, make } from "./dom.js";

export class Player {
  /** `from_s`: where it begins. `failed()`: this browser cannot play the file. */
  constructor(address, { isSound, poster, from_s: from, duration_s: length, failed }) {
    this.length = length ?? 0;
    this.media = make(isSound ? "audio" : "video", { preload: "auto", playsInline: true, autoplay: true, src: address, muted: kept.get("muted", false) });
    if (poster) this.media.poster = poster;
    this.bar = make("input", { type: "range", min: 0, max: this.length || 1, step: 0.1, value: from ?? 0, "aria-label": "Time" });
    this.marks = make("div", { class: "marks" });
    this.time = make("span", { class: "time" });
    this.playing = iconButton("play", "Play", () => this.toggle());
    this.sound = iconButton("loud", "Mute", () => { this.media.muted = !this.media.muted; kept.set("muted", this.media.muted); });
    const controls = make("div", { class: "controls" }, this.playing, make("div", { class: "timebar" }, this.marks, this.bar), this.time, this.sound);
    this.node = make("div", { class: `player ${isSound ? "sound" : "film"}` }, this.media, controls);
    this.media.onclick = () => this.toggle();
    this.media.onerror = failed;
    this.media.onloadedmetadata = () => {
      if (Number.isFinite(this.media.duration)) this.length = this.media.duration;
      this.bar.max = this.length;
      if (from) this.media.currentTime = from;
      this.markAll();
      this.tell();
    };
    for (const event of ["play", "pause", "ended", "volumechange", "seeked"]) this.media.addEventListener(event, () => this.tell());
    this.media.addEventListener("timeupdate", () => this.tell());
    this.bar.oninput = () => { this.media.currentTime = Number(this.bar.value); };
    this.media.play()?.catch(() => this.playMuted());
    this.tell();
  }

  /** A browser that lets nothing sound before a click still shows the picture. */
  playMuted() {
    if (this.media.muted || !this.media.isConnected) return;
    this.media.muted = true;
    this.media.play()?.catch(() => {});
  }

  toggle() {
    if (this.media.paused) this.media.play()?.catch(() => {});
    else this.media.pause();
  }

  seek(seconds) {
    this.media.currentTime = seconds;
    this.media.play()?.catch(() => {});
  }

  tell() {
    const now = this.media.currentTime;
    this.bar.value = now;
    this.bar.setAttribute("aria-valuetext", `${clock(now)} of ${clock(this.length)}`);
    this.time.textContent = `${clock(now)} / ${clock(this.length)}`;
    const is = this.media.paused;
    swap(this.playing, is ? "play" : "pause", is ? "Play" : "Pause");
    swap(this.sound, this.media.muted ? "mute" : "loud", this.media.muted ? "Sound on" : "Mute");
  }

  /** Marks moments {start_s, end_s} on the time bar. */
  mark(moments) {
    this.moments = moments;
    this.markAll();
  }

  markAll() {
    if (!this.moments || !this.length) return;
    this.marks.replaceChildren(...this.moments.map(({ start_s: start, end_s: end, best_s: best }) => {
      const made = make("button", { type: "button", title: `Matches at ${clock(start)}`, "aria-label": `Matches at ${clock(start)}`, onclick: () => this.seek(best ?? start) });
      made.style.left = `${100 * start / this.length}%`;
      made.style.width = `${100 * Math.max(0, (end ?? start) - start) / this.length}%`;
      return made;
    }));
  }

  end() {
    this.media.pause();
    this.media.removeAttribute("src");
    this.media.load();
  }
}

function swap(button, drawing, name) {
  if (button.title === name) return;
  const fresh = iconButton(drawing, name);
  button.title = name;
  button.setAttribute("aria-label", name);
  button.replaceChildren(...fresh.childNodes);
}
