// Numbers and times as people read them. Instants are strings as JSON has them;
// now is the server's clock in milliseconds.

const none = "–";

export function count(n) {
  return Number.isFinite(n) ? Math.round(n).toLocaleString("en") : none;
}

/** 950, 12.3k, 4.5M */
export function short(n) {
  if (!Number.isFinite(n)) return none;
  if (n < 10000) return count(n);
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (n >= size) return `${(n / size).toFixed(n < 100 * size ? 1 : 0)}${unit}`;
  }
  return count(n);
}

export function bytes(n) {
  if (!Number.isFinite(n)) return none;
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (n >= size) return `${(n / size).toFixed(1)} ${unit}`;
  }
  return `${count(n)} B`;
}

/** So many a second: 0.25/s, 4/s, 12.5/s, 120/s. */
export function rate(n) {
  if (!Number.isFinite(n)) return none;
  return `${Number(n.toFixed(n >= 100 ? 0 : n >= 1 ? 1 : 2))}/s`;
}

export function instant(s) {
  const t = Date.parse(s ?? "");
  return Number.isNaN(t) || t < 0 ? undefined : t;
}

/** 4 s, 3 min 20 s, 2 h 5 min, 3 d 4 h */
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  const two = (a, ua, b, ub) => (b ? `${a} ${ua} ${b} ${ub}` : `${a} ${ua}`);
  if (s < 60) return `${s} s`;
  if (s < 3600) return two(Math.floor(s / 60), "min", s < 600 ? s % 60 : 0, "s");
  if (s < 86400) return two(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return two(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
}

/** A span in its greatest unit only. */
export function coarse(ms) {
  return span(ms).split(" ").slice(0, 2).join(" ");
}

/** The local time of day, with the date where it is not today. */
export function clock(s, now) {
  const t = instant(s);
  if (t === undefined) return none;
  const d = new Date(t);
  const time = d.toLocaleTimeString("en-GB");
  const sameDay = d.toDateString() === new Date(now).toDateString();
  return sameDay ? time : `${d.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time.slice(0, 5)}`;
}

/** in 12 s, now */
export function until(s, now) {
  const t = instant(s);
  if (t === undefined) return "";
  return t - now < 500 ? "now" : `in ${span(t - now)}`;
}

export function ago(s, now) {
  const t = instant(s);
  return t === undefined ? none : span(now - t);
}

/** 14:03:22, in 12 s */
export function when(s, now) {
  return instant(s) === undefined ? "" : `${clock(s, now)}, ${until(s, now)}`;
}

/** The name of a window given in nanoseconds. */
export function window(ns) {
  const names = { 1e9: "second", 60e9: "minute", 3600e9: "hour", 86400e9: "day" };
  return names[ns] ?? span(ns / 1e6);
}

export function plural(n, one, many) {
  return `${count(n)} ${n === 1 ? one : many}`;
}
