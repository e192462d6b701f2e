// Lists hold still while they are read: a live update changes the rows that are there, in their places. Rows that came
// or went since are counted on a pill, and come in when it is pressed.
const NOTHING = { came: 0, went: 0, moved: false };
let letThrough = false; // the next update is shown as it is

const rowsOf = (root) => [...root.querySelectorAll("table[data-held] tbody > tr[id]")];

function hold(list, fresh) {
  const shown = rowsOf(list);
  const incoming = new Map(rowsOf(fresh).map((row) => [row.id, row]));
  const order = [...incoming.keys()];
  const known = new Set(shown.map((row) => row.id));
  const last = order.findLastIndex((id) => known.has(id));
  const came = order.filter((id, place) => !known.has(id) && place < last);
  const pushed = pushedOn(shown, incoming, fresh, came.length);
  const went = shown.filter((row) => !incoming.has(row.id) && !pushed.has(row));
  const stayed = shown.filter((row) => incoming.has(row.id)).map((row) => row.id);
  const moved = stayed.join() !== order.filter((id) => known.has(id)).join();
  if (last < 0 || !(came.length || went.length || moved)) return NOTHING; // none that is read stays, or nothing jumps
  const kept = shown.map((row) => incoming.get(row.id) ?? (pushed.has(row) ? row.cloneNode(true) : gone(row)));
  const behind = moved ? [] : order.slice(last + 1).map((id) => incoming.get(id)); // below all: nothing jumps
  const table = fresh.querySelector("table[data-held] tbody");
  table.replaceChildren(...kept, ...behind);
  const waiting = moved ? order.filter((id) => !known.has(id)).length : came.length;
  return { came: waiting, went: went.length, moved };
}

// Rows that new ones before them have moved to the next page: they are still in the list.
function pushedOn(shown, incoming, fresh, came) {
  const end = shown.findLastIndex((row) => incoming.has(row.id)) + 1;
  return new Set(fresh.querySelector("a[rel=next]") ? shown.slice(end, end + came) : []);
}

function gone(row) {
  const kept = row.cloneNode(true);
  kept.classList.add("gone");
  kept.title = "Not on this page of the list any more";
  return kept;
}

function show({ came, went, moved }) {
  const pill = document.getElementById("held");
  const button = pill?.querySelector("button");
  if (!button) return;
  const words = [];
  if (came) words.push(`${came} new`);
  if (went) words.push(`${went} gone`);
  if (moved && !words.length) words.push("New order");
  const text = words.join(", ");
  if (text && button.textContent !== text) {
    document.getElementById("announce").textContent = `${text}. The list is as it was; “${text}” above it brings it up to date.`;
  }
  button.textContent = text;
  pill.hidden = !text;
}

function refresh() {
  const list = document.getElementById("list");
  letThrough = true;
  list.dataset.etag = ""; // what it holds back has the server's newest ETag already
  window.htmx.trigger(list, "live", {}, false);
}

export function startHolding() {
  if (!document.getElementById("held")) return;
  document.addEventListener("htmx:after:request", (event) => {
    const ctx = event.detail.ctx;
    const list = ctx?.sourceElement;
    if (list?.id !== "list" || ctx.response.status !== 200 || !ctx.text) return;
    const through = letThrough;
    letThrough = false;
    if (through) return show(NOTHING);
    const fresh = new DOMParser().parseFromString(ctx.text, "text/html").body;
    const held = hold(list, fresh);
    if (held.came || held.went || held.moved) ctx.text = fresh.innerHTML;
    show(held);
  });
  document.getElementById("held").querySelector("button").addEventListener("click", () => {
    refresh();
    document.querySelector("#list [data-list] a")?.focus({ preventScroll: true }); // the pill goes, the place stays
  });
}
