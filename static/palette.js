// Ctrl-K: go to any node, service, group, rollout, page or action by name. The server finds (GET /go, JSON).

const PAUSE_MS = 120; // after the last key, before asking

let found = [];
let chosen = 0;
let asking = null;
let timer = 0;

const dialog = () => document.getElementById("palette");
const input = () => document.getElementById("palette-text");
const list = () => document.getElementById("palette-list");

export function openPalette() {
  input().value = "";
  dialog().showModal();
  ask();
}

async function ask() {
  asking?.abort();
  asking = new AbortController();
  try {
    const answer = await fetch(`/go?q=${encodeURIComponent(input().value)}`, {
      headers: { Accept: "application/json" }, signal: asking.signal,
    });
    if (!answer.ok || !answer.headers.get("Content-Type")?.includes("json")) return;
    found = await answer.json();
    chosen = 0;
    draw();
  } catch (error) {
    if (error.name !== "AbortError") list().replaceChildren();
  }
}

function draw() {
  list().replaceChildren(...found.map((item, place) => {
    const row = document.createElement("li");
    const kind = document.createElement("span");
    kind.textContent = item.kind;
    row.append(item.name, kind);
    row.id = `palette-${place}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(place === chosen));
    row.addEventListener("click", () => { location.href = item.href; });
    return row;
  }));
  document.getElementById("palette-none").textContent = found.length ? "" : "Nothing found: nothing has this in its name.";
  input().setAttribute("aria-expanded", String(found.length > 0));
  if (found.length) input().setAttribute("aria-activedescendant", `palette-${chosen}`);
  else input().removeAttribute("aria-activedescendant");
  list().children[chosen]?.scrollIntoView({ block: "nearest" });
}

export function startPalette() {
  const button = document.getElementById("palette-open");
  button.hidden = false;
  button.addEventListener("click", openPalette);
  input().addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE_MS);
  });
  input().addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by && found.length) {
      event.preventDefault();
      chosen = (chosen + by + found.length) % found.length;
      draw();
    } else if (event.key === "Enter" && found[chosen]) {
      event.preventDefault();
      location.href = found[chosen].href;
    }
  });
  dialog().addEventListener("click", (event) => event.target === dialog() && dialog().close());
}
