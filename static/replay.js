// Plays a rollout's time line: the slider says which moment, and the page's live part is fetched and morphed as always.
const PACE_MS = 500; // a frame on the screen; fetching one takes far less
const SETTLE_MS = 60; // while the slider is dragged

const form = document.getElementById("replay-form");
const slider = document.getElementById("at");
const play = document.getElementById("play");
let playing = false;
let timer = 0;

const address = () => `${form.getAttribute("action")}?at=${slider.value}`;

function show() {
  const part = document.getElementById("replay");
  history.replaceState(null, "", address());
  part.setAttribute("hx-get", address());
  part.dataset.etag = ""; // of another moment
  window.htmx.trigger(part, "live", {}, false);
}

function later(action, after) {
  clearTimeout(timer);
  timer = setTimeout(action, after);
}

function stop() {
  clearTimeout(timer);
  playing = false;
  play.textContent = "Play";
}

function step() {
  slider.value = Number(slider.value) + Number(form.dataset.frame);
  show();
}

function start() {
  if (Number(slider.value) >= Number(slider.max)) slider.value = slider.min;
  playing = true;
  play.textContent = "Stop";
  step();
}

form.querySelector("button[type=submit]").hidden = true;
form.addEventListener("submit", (event) => event.preventDefault());
play.hidden = false;
play.addEventListener("click", () => (playing ? stop() : start()));
slider.addEventListener("input", () => {
  stop();
  later(show, SETTLE_MS);
});
document.addEventListener("htmx:finally:request", (event) => {
  if (event.detail.ctx?.sourceElement?.id !== "replay") return;
  slider.setAttribute("aria-valuetext", document.querySelector("#replay h2").textContent);
  if (!playing) return;
  Number(slider.value) >= Number(slider.max) ? stop() : later(step, PACE_MS);
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("#replay a[href*='replay?at=']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  stop();
  slider.value = new URL(link.href).searchParams.get("at");
  show();
});
