// Keys. Single ones can be switched off (body data-keys="off"); Ctrl-K stays.
import { openPalette } from "./palette.js";

const CHORD_MS = 1500; // between `g` and the letter

const typing = (element) => element.closest("input, textarea, select, [contenteditable]") !== null;

function step(by) {
  const rows = [...document.querySelectorAll("[data-list] tbody tr")].filter((row) => row.querySelector("a"));
  const now = rows.findIndex((row) => row.classList.contains("current") || row.contains(document.activeElement));
  const next = rows[Math.min(rows.length - 1, Math.max(0, now + by))];
  rows.forEach((row) => row.classList.toggle("current", row === next));
  next?.querySelector("a").focus();
}

export function startKeys({ togglePause }) {
  let chordUntil = 0;
  const single = {
    "/": () => document.querySelector('[data-hotkey="/"]')?.focus(),
    "?": () => document.getElementById("keys-help").showModal(),
    j: () => step(1),
    k: () => step(-1),
    p: togglePause,
    g: () => { chordUntil = Date.now() + CHORD_MS; },
  };
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      return openPalette();
    }
    const off = document.body.dataset.keys === "off";
    if (off || event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
    const chord = Date.now() < chordUntil && document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
    chordUntil = 0;
    const action = chord ? () => chord.click() : single[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
