// Relative times, worded as app/web/filters.py words them, kept fresh; and the browser's zone told to the server.

const MINUTE = 60, HOUR = 3600, DAY = 86400;
const EVERY_MS = 5000; // "3 s ago" may be five seconds old; nobody decides by it

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} min`;
  if (whole < 2 * DAY) return `${Math.floor(whole / HOUR)} h`;
  return `${Math.floor(whole / DAY)} d`;
}

export function relative(at, now, style) {
  const distance = duration(Math.abs(now - at));
  if (style === "for") return distance;
  if (at > now + 1) return `in ${distance}`;
  return now - at < 1 ? "now" : `${distance} ago`;
}

export function clock(date) {
  const zone = document.body.dataset.timeZone || undefined;
  return new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: zone }).format(date);
}

function refresh() {
  const now = Date.now() / 1000;
  for (const element of document.querySelectorAll("time[data-style]")) {
    const text = relative(Date.parse(element.dateTime) / 1000, now, element.dataset.style);
    if (element.textContent !== text) element.textContent = text;
  }
}

export function startTimes() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && !document.cookie.includes(`twinroot_zone=${encodeURIComponent(zone)}`)) {
    document.cookie = `twinroot_zone=${encodeURIComponent(zone)}; path=/; max-age=34560000; samesite=lax`;
  }
  refresh();
  setInterval(() => document.hidden || refresh(), EVERY_MS);
  document.addEventListener("htmx:after:swap", refresh);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
}
