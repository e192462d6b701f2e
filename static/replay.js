// Plays a rollout's time line: the slider asks for the moment's fragment, and htmx morphs it in.
const PACE_MS = 500; // a frame on the screen; fetching one takes far less
const SETTLE_MS = 60; // while the slider is dragged

const form = document.getElementById("replay-form");
const slider = document.getElementById("at");
const play = document.getElementById("play");
let timer = 0;
let waiting = 0;

const address = () => `${form.getAttribute("action")}?at=${slider.value}`;

async function show() {
  clearTimeout(waiting);
  history.replaceState(null, "", address());
  await window.htmx.ajax("GET", address(), { target: "#replay", swap: "outerMorph" });
  slider.setAttribute("aria-valuetext", document.querySelector("#replay h2").textContent);
}

function stop() {
  clearTimeout(timer);
  timer = 0;
  play.textContent = "Play";
}

async function step() {
  slider.value = Number(slider.value) + Number(form.dataset.frame);
  await show();
  if (!timer) return;
  if (Number(slider.value) >= Number(slider.max)) return stop();
  timer = setTimeout(step, PACE_MS);
}

function start() {
  if (Number(slider.value) >= Number(slider.max)) slider.value = slider.min;
  play.textContent = "Stop";
  timer = setTimeout(step, 0);
}

form.querySelector("button").hidden = true;
form.addEventListener("submit", (event) => event.preventDefault());
play.hidden = false;
play.addEventListener("click", () => (timer ? stop() : start()));
slider.addEventListener("input", () => {
  stop();
  clearTimeout(waiting);
  waiting = setTimeout(show, SETTLE_MS);
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("#replay a[href*='replay?at=']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  stop();
  slider.value = new URL(link.href).searchParams.get("at");
  show();
});
