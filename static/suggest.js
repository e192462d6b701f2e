// Suggestions under the filter: what the word at the cursor could become. The server knows (GET data-suggest, JSON).
const PAUSE_MS = 150; // after the last key, before asking

let input = null;
let list = null;
let found = [];
let chosen = -1; // none: Enter sends the filter as it is typed
let asking = null;
let timer = 0;

async function ask() {
  asking?.abort();
  asking = new AbortController();
  const wanted = new URLSearchParams({ q: input.value, at: input.selectionStart ?? input.value.length });
  try {
    const answer = await fetch(`${input.dataset.suggest}?${wanted}`, {
      headers: { Accept: "application/json" }, signal: asking.signal,
    });
    if (!answer.ok || !answer.headers.get("Content-Type")?.includes("json")) return close();
    found = await answer.json();
    if (document.activeElement !== input) return close();
    chosen = -1;
    draw();
  } catch (error) {
    if (error.name !== "AbortError") close();
  }
}

function askSoon() {
  clearTimeout(timer);
  timer = setTimeout(ask, PAUSE_MS);
}

function close() {
  clearTimeout(timer);
  asking?.abort();
  found = [];
  chosen = -1;
  draw();
}

function part(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

function draw() {
  list.hidden = !found.length;
  list.replaceChildren(...found.map((item, place) => {
    const row = document.createElement("li");
    row.append(part("code", item.term), part("span", item.count === null ? item.hint : item.count === "1" ? "1 node" : `${item.count} nodes`));
    row.id = `${list.id}-${place}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(place === chosen));
    row.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
    row.addEventListener("click", () => take(item));
    return row;
  }));
  input.setAttribute("aria-expanded", String(found.length > 0));
  if (chosen >= 0) input.setAttribute("aria-activedescendant", `${list.id}-${chosen}`);
  else input.removeAttribute("aria-activedescendant");
  list.children[chosen]?.scrollIntoView({ block: "nearest" });
}

function take(item) {
  input.value = item.text;
  input.setSelectionRange(item.cursor, item.cursor);
  close();
  ask();
}

function move(by) {
  const places = found.length + 1; // and the field itself
  chosen = ((chosen + 1 + by + places) % places) - 1;
  draw();
}

function key(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (by) {
    event.preventDefault();
    if (found.length) move(by);
    else ask();
  } else if (event.key === "Enter" && chosen >= 0) {
    event.preventDefault();
    take(found[chosen]);
  } else if (event.key === "Escape" && found.length) {
    event.preventDefault();
    close();
  } else if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key) && found.length) {
    askSoon(); // another word may be at the cursor now
  }
}

export function startSuggesting() {
  input = document.querySelector("[data-suggest]");
  list = document.getElementById("filter-list");
  if (!input || !list) return;
  const states = { role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id, "aria-expanded": "false" };
  for (const [name, value] of Object.entries(states)) input.setAttribute(name, value);
  input.addEventListener("input", askSoon);
  input.addEventListener("keydown", key);
  input.addEventListener("blur", close);
}
