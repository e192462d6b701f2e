// Live pages: one websocket says which topics changed; what changed is fetched over HTTP and morphed in by htmx.
// Without the socket the page looks again slowly, and says so.
import { clock } from "./times.js";

const POLL_MS = 20000; // without a socket; with jitter, so that a thousand pages do not come at once
const AGAIN_MS = 3000; // a fragment that is still behind: dear ones are rendered once a second at most, news of lists come each 2 s
const FIRST_RETRY_MS = 1000, LONGEST_RETRY_MS = 30000;
const PATIENCE_MS = 3000; // a reconnect within this is not worth a word
const ANNOUNCE_MS = 10000; // summaries for screen readers at most this often
const SESSION_ENDED = 4401;

const latest = new Map(); // topic -> newest revision that we were told
const again = new WeakMap(); // part -> timer of its next look, unless news come before
let socket = null;
let tries = 0;
let connected = false;
let paused = false;
let signedOut = false;
let lostAt = null;
let failedAt = null; // since when fragments cannot be fetched
let reloaded = Date.now(); // when something was last known to be current
let announcedAt = 0;

const parts = () => [...document.querySelectorAll("[data-topics]")];
const wishes = () => [...new Set(parts().flatMap((part) => part.dataset.topics.split(" ")))];

function behind(part) {
  const known = part.dataset.revisions.split(" ").map(Number);
  return part.dataset.topics.split(" ").some((topic, place) => (latest.get(topic) ?? 0) > known[place]);
}

function look(part) {
  if (!paused && !signedOut && !document.hidden && part.isConnected) window.htmx?.trigger(part, "live", {}, false);
}

const lookWhereBehind = () => parts().filter(behind).forEach(look);
const lookEverywhere = () => parts().forEach(look);

function connect() {
  if (signedOut || socket || !parts().length) return;
  socket = new WebSocket(document.body.dataset.liveUrl);
  socket.onopen = () => socket.send(JSON.stringify({ topics: wishes() }));
  socket.onmessage = (event) => {
    tries = 0;
    connected = true;
    lostAt = null;
    reloaded = Date.now();
    for (const [topic, revision] of Object.entries(JSON.parse(event.data).topics)) latest.set(topic, Number(revision));
    lookWhereBehind();
    show();
  };
  socket.onclose = (event) => {
    socket = null;
    if (connected || lostAt === null) lostAt = Date.now();
    connected = false;
    if (event.code === SESSION_ENDED) endSession();
    const longest = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** tries++);
    setTimeout(connect, 200 + Math.random() * longest);
    setTimeout(show, PATIENCE_MS);
  };
}

function poll() {
  setTimeout(poll, POLL_MS * (0.75 + Math.random() / 2));
  if (!connected) lookEverywhere();
}

function endSession() {
  signedOut = true;
  show();
}

// --- what the reader is told ---

function show() {
  const button = document.getElementById("live-state");
  const state = signedOut ? "signed-out" : paused ? "paused" : connected ? "live" : lostAt ? "polling" : "connecting";
  const words = { "signed-out": "signed out", paused: "paused", live: "live", polling: "not live", connecting: "connecting" };
  button.hidden = !parts().length;
  button.dataset.state = state;
  button.querySelector("span").textContent = words[state];
  button.setAttribute("aria-pressed", String(paused));
  button.setAttribute("aria-label", `Updates: ${words[state]}. ${paused ? "Resume" : "Pause"} updates`);
  showStale();
}

function showStale() {
  const bar = document.getElementById("stale");
  const quiet = lostAt && Date.now() - lostAt >= PATIENCE_MS;
  bar.hidden = !(signedOut || failedAt || (quiet && parts().length));
  if (bar.hidden) return;
  if (signedOut) {
    const link = document.createElement("a");
    link.href = `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`;
    link.textContent = "Sign in again";
    bar.replaceChildren("Your sign-in has expired; this page is as it was at ", clock(reloaded), ". ", link);
  } else if (failedAt) {
    bar.textContent = `The server does not answer since ${clock(failedAt)}; this page is as it was at ${clock(reloaded)}.`;
  } else {
    bar.textContent = `Not live since ${clock(lostAt)}; the page looks again every ${POLL_MS / 1000} seconds.`;
  }
}

function announce() {
  const now = Date.now();
  const text = [...document.querySelectorAll("[data-announce]")].map((element) => element.textContent.trim()).join(", ");
  const place = document.getElementById("announce");
  if (!text || place.dataset.said === text || now - announcedAt < ANNOUNCE_MS) return;
  if (place.dataset.said !== undefined) {
    announcedAt = now;
    place.textContent = `Now: ${text}`;
  }
  place.dataset.said = text;
}

function togglePause() {
  if (signedOut) return;
  paused = !paused;
  show();
  if (!paused) lookEverywhere();
}

function watchRequests() {
  const liveRequest = (event) => event.detail.ctx?.sourceEvent?.type === "live" && event.detail.ctx;
  document.addEventListener("htmx:config:request", (event) => {
    const ctx = liveRequest(event);
    if (!ctx) return;
    clearTimeout(again.get(ctx.sourceElement));
    ctx.request.headers["If-None-Match"] = ctx.sourceElement.dataset.etag;
  });
  document.addEventListener("htmx:before:response", (event) => {
    const ctx = liveRequest(event);
    const status = event.detail.ctx.response.status;
    if (!ctx) {
      const link = event.detail.ctx.sourceElement?.href;
      if (status >= 400 && link) location.href = link; // the whole page says what is wrong
      return;
    }
    if (status === 401) return endSession();
    failedAt = status < 400 ? null : (failedAt ?? Date.now());
    if (status < 400) reloaded = Date.now();
    show();
  });
  document.addEventListener("htmx:error", () => {
    failedAt ??= Date.now();
    show();
  });
  document.addEventListener("htmx:finally:request", (event) => {
    const part = liveRequest(event) && event.detail.ctx.sourceElement;
    if (part && behind(part)) again.set(part, setTimeout(() => behind(part) && look(part), AGAIN_MS));
    announce();
  });
}

export function startLive() {
  watchRequests();
  announce();
  connect();
  setTimeout(poll, POLL_MS);
  show();
  document.getElementById("live-state").addEventListener("click", togglePause);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    connected ? lookWhereBehind() : lookEverywhere();
  });
  window.addEventListener("pageshow", (event) => event.persisted && lookEverywhere());
  return { togglePause };
}
