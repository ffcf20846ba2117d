// A target's quota: its windows and those it shares, what the CRM says is left,
// what an operator has set, and when the queue will be empty.

import { bar, each, el, show, text } from "./dom.js";
import * as fmt from "./format.js";

/** per hour, per day of Europe/Berlin */
function windowName(w) {
  return `per ${fmt.window(w.span)}${w.calendar ? ` of ${w.zone || "UTC"}` : ""}`;
}

/** The bars of one budget; before is what its windows' names begin with. */
function bars(budget, before, now) {
  const more = (s) => (fmt.instant(s) > now ? `, more ${fmt.until(s, now)}` : "");
  const out = (budget?.windows ?? []).map((w) => ({
    name: before + windowName(w), used: w.used, limit: w.limit, note: w.left === 0 ? more(w.resets) : "",
  }));
  for (const a of budget?.advertised ?? []) {
    const name = `the CRM says${a.window ? `, per ${fmt.window(a.window)}` : ""}`;
    const note = a.unenforced ? ", not heeded" : more(a.resets);
    if (a.limit) out.push({ name, used: a.limit - a.left, limit: a.limit, note });
    else out.push({ name, left: a.left, note });
  }
  return out;
}

/** What an operator has set: 0.5/s, 2 calls at once, 500 per hour. */
function limitsText(l) {
  const parts = [];
  if (l.rate) parts.push(fmt.rate(l.rate));
  if (l.burst) parts.push(`burst ${fmt.count(l.burst)}`);
  if (l.concurrency) parts.push(fmt.plural(l.concurrency, "call at once", "calls at once"));
  for (const span of ["second", "minute", "hour", "day"]) {
    if (l[`per_${span}`]) parts.push(`${fmt.count(l[`per_${span}`])} per ${span}`);
  }
  return parts.join(", ");
}

function limitsLine(who, l, now) {
  const what = limitsText(l ?? {});
  if (what === "" || fmt.instant(l.until) <= now) return "";
  const end = l.until ? `until ${fmt.when(l.until, now)}` : "until it is reset";
  return `${who} to ${what} by ${l.by || "an operator"} since ${fmt.clock(l.since, now)}, ${end}${l.note ? `: “${l.note}”` : ""}`;
}

function etaLine(e, now) {
  if (!e) return "";
  const work = fmt.plural(e.updates, "update", "updates");
  if (!e.done) return `Nobody knows when its ${work} will be done: ${e.why}`;
  let line = `Done about ${fmt.when(e.done, now)}: ${work}, ${fmt.plural(e.requests, "request", "requests")}`;
  if (e.rate) line += ` at ${fmt.rate(e.rate)}`;
  if (e.from) line += `; it goes on at ${fmt.when(e.from, now)}: ${e.why}`;
  return line;
}

/** The part of a card that is about the quota. */
export class Quota {
  constructor() {
    this.windows = el("div", { class: "windows" });
    this.lines = el("ul", { class: "facts" });
    this.node = el("div", {}, this.windows, this.lines);
  }

  update(t, lane, now) {
    const all = [...bars(lane, "", now), ...bars(lane?.shared, "shared, ", now)];
    each(this.windows, all, () => el("div", {}, el("span"), el("div", { class: "bar" }), el("span")), (node, w) => {
      const [name, meter, used] = node.children;
      text(name, w.name);
      const kind = w.used >= w.limit ? "dead" : w.used > 0.9 * w.limit ? "warn" : "used";
      bar(meter, w.limit ? [{ kind, value: w.used }] : [], w.limit ?? 0);
      text(used, (w.limit ? `${fmt.count(w.used)} of ${fmt.count(w.limit)}` : `${fmt.count(w.left)} left`) + w.note);
    });
    const lines = [
      limitsLine("Limited", t.orders?.limits, now),
      limitsLine(`${t.quota_group} is limited`, t.shared_limits, now),
      etaLine(t.eta, now),
    ].filter(Boolean);
    each(this.lines, lines, () => el("li"), (node, line) => text(node, line));
    show(this.lines, lines.length > 0);
  }
}
