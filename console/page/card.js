// One target: what it does, what it waits for and until when, and why.

import { attr, bar, each, el, row, show, Spark, text } from "./dom.js";
import * as fmt from "./format.js";
import { Quota } from "./quota.js";

const outcomes = ["applied", "unchanged", "superseded", "dead", "discarded", "cancelled"];

const holdWords = {
  operator: "Held by an operator",
  throttled: "The CRM asked us to wait",
  outage: "The CRM fails for every contact",
  credentials: "The CRM refuses our credentials, or they lack a permission",
  quota: "The quota of this window is spent",
  storm: "Many contacts in a row were refused for the same reason",
};

const holdAdvice = {
  outage: "Nothing is lost and no attempt is counted. It resumes by itself when a probe is answered.",
  credentials: "Put the secret or the permission right. A changed secret file is tried at once.",
  storm: "The rest waits and is tried now and then. Once one is taken, the dead letters go back into the queue by themselves.",
};

/** What a CRM said: HTTP 409: The Contact is missing */
export function answer(a) {
  return [a?.status ? `HTTP ${a.status}` : "", a?.detail ?? ""].filter(Boolean).join(": ");
}

const stale = 10000; // ms without news of a lane before it is said

function figure(name) {
  const value = el("dd");
  const note = el("dd", { class: "faint" });
  const node = el("div", {}, el("dt", {}, name), value, note);
  return { node, set: (v, n, kind = "") => { text(value, v); text(note, n); attr(node, "kind", kind); } };
}

/** A card; steer(target, "hold" | "resume" | "accept" | "recall") is called for its buttons. */
export class Card {
  constructor(name, steer) {
    this.name = name;
    this.head();
    this.holdButton.addEventListener("click", () => steer(name, "hold"));
    this.resumeButton.addEventListener("click", () => steer(name, "resume"));
    this.acceptButton.addEventListener("click", () => steer(name, "accept"));
    this.recallButton.addEventListener("click", () => steer(name, "recall"));

    this.wait = el("span", { class: "grow" });
    this.pace = el("span", { class: "faint" });
    this.spark = new Spark(60);
    this.why = el("p");
    this.evidence = el("bdi", { class: "evidence" });
    this.advice = el("p", { class: "faint" });
    this.answers = el("ul", { class: "answers" });
    this.storm = el("p", {}, this.recallButton, " ", this.acceptButton);
    this.hold = el("div", { class: "why" }, this.why, this.evidence, this.answers, this.advice, this.storm);

    this.live = figure("Live waiting");
    this.bulk = figure("Bulk waiting");
    this.calling = figure("Calls now");
    this.retrying = figure("Retrying");
    this.rate = figure("Rate");
    this.dead = figure("Dead letters");
    this.quota = new Quota();
    this.bar = el("div", { class: "bar" });
    this.legend = el("ul", { class: "legend" });
    this.foot();

    this.node = el("article", { class: "card" }, this.header,
      el("p", { class: "wait" }, this.wait, this.pace, this.spark.node), this.hold,
      el("dl", { class: "figures" }, ...[this.live, this.bulk, this.calling, this.retrying, this.rate, this.dead].map((f) => f.node)),
      this.quota.node, this.bar, this.legend, this.details);
    this.node.setAttribute("aria-label", name);
  }

  head() {
    this.state = el("span", { class: "state" });
    this.kind = el("span", { class: "tag" });
    this.holdButton = el("button", { type: "button", title: `stop calls to ${this.name}` }, "Hold…");
    this.resumeButton = el("button", { type: "button", title: `end the operator's hold of ${this.name}` }, "Resume");
    this.acceptButton = el("button", { type: "button", title: "the refusals stand: their dead letters stay" }, "The contacts are wrong");
    this.recallButton = el("button", { type: "button", title: "it is over: the dead letters go back into the queue" }, "It was the CRM");
    this.header = el("header", {}, el("h3", {}, el("bdi", {}, this.name)), this.kind, this.state,
      el("span", { class: "grow" }), this.resumeButton, this.holdButton);
  }

  foot() {
    this.retries = el("tbody");
    this.retryTable = el("table", {}, el("thead", {}, el("tr", {},
      ...["Contact", "Next try", "Tries", "Updates", "Last answer"].map((h) => el("th", { scope: "col" }, h)))), this.retries);
    this.facts = el("ul", { class: "facts" });
    this.details = el("details", {}, el("summary", {}, "More"), this.retryTable, this.facts);
  }

  /** Shows a target as the status has it. */
  update(t, now) {
    const lane = t.lane ?? null;
    text(this.kind, t.kind);
    // What is stored counts at once, what the lane has heard a moment later.
    const orders = t.orders ?? lane?.orders ?? {};
    const held = orders.hold === true && !(fmt.instant(orders.until) <= now);
    this.showState(t, lane, held, now);
    this.showHold(lane?.hold, held ? orders : null, now);
    this.showFigures(t, lane, now);
    this.showOutcomes(lane);
    this.showDetails(t, lane, now);
  }

  showState(t, lane, held, now) {
    show(this.resumeButton, held);
    show(this.holdButton, !held);
    if (!lane) {
      attr(this.node, "state", "alone");
      text(this.state, t.owner ? "no news" : "no owner");
      text(this.wait, t.owner ? `Owned by ${t.owner}, which has not reported yet` : "No worker owns this target; start one with crmsync run");
      text(this.pace, "");
      return;
    }
    const reason = held ? "operator" : lane.hold?.reason;
    const quiet = now - (fmt.instant(lane.at) ?? now);
    attr(this.node, "state", reason ? `held ${reason}` : lane.state);
    text(this.state, reason ? `held: ${reason}` : lane.state);
    let wait = lane.waiting ? `Waits for ${lane.waiting}` : "Sending";
    if (fmt.instant(lane.until) > now + 1500) wait += ` until ${fmt.when(lane.until, now)}`;
    if (quiet > stale) wait = `No news for ${fmt.span(quiet)}. Last: ${wait}`;
    text(this.wait, wait);
    this.showPace(lane);
  }

  /** How many updates end a second, over the last reports. */
  showPace(lane) {
    const sample = {
      at: fmt.instant(lane.at),
      ended: outcomes.reduce((n, o) => n + (lane.counts?.outcomes?.[o] ?? 0), 0),
    };
    if (this.born !== lane.born) {
      this.born = lane.born;
      this.samples = [];
    }
    const last = this.samples.at(-1);
    if (last && sample.at - last.at < 500) return;
    this.samples.push(sample);
    if (!last) return;
    if (this.samples.length > 10) this.samples.shift();
    const over = (from, name) => Math.max(0, (1000 * (sample[name] - from[name])) / (sample.at - from.at));
    this.spark.push(over(last, "ended"));
    text(this.pace, `${fmt.rate(over(this.samples[0], "ended"))} ended`);
  }

  showHold(h, orders, now) {
    const own = h && h.reason !== "operator" ? h : null; // what the lane holds for by itself
    show(this.hold, Boolean(own || orders));
    const parts = [];
    if (orders) {
      parts.push(`Held by ${orders.by || "an operator"} since ${fmt.clock(orders.since, now)}`,
        orders.until ? `until ${fmt.when(orders.until, now)}` : "until somebody resumes it");
      if (orders.note) parts.push(`“${orders.note}”`);
    }
    if (own) {
      parts.push(`${holdWords[own.reason] ?? `Held: ${own.reason}`}, since ${fmt.clock(own.since, now)} (${fmt.ago(own.since, now)})`);
      if (own.until) parts.push(`until ${fmt.when(own.until, now)}`);
      if (own.next_probe) parts.push(`next probe ${fmt.when(own.next_probe, now)}`);
      if (own.tried) parts.push(`${fmt.plural(own.tried, "probe", "probes")} so far`);
      if (own.contacts) parts.push(`${fmt.plural(own.contacts, "contact", "contacts")} refused`);
      if (own.letters) parts.push(`${fmt.plural(own.letters.length, "dead letter", "dead letters")} to recall`);
    }
    text(this.why, parts.join(" · "));
    const said = answer(own);
    text(this.evidence, said);
    show(this.evidence, said !== "");
    // What a person needs to judge it: the last answers, newest first.
    each(this.answers, (own?.evidence ?? []).toReversed(), () => el("li", {}, el("bdi")), (node, e) => {
      const about = e.contact ? `contact ${e.contact}` : "a read";
      text(node.firstChild, `${fmt.clock(e.at, now)} ${about}: ${answer(e) || e.verdict}`);
    });
    show(this.answers, Boolean(own?.evidence?.length));
    show(this.storm, own?.reason === "storm");
    text(this.advice, holdAdvice[own?.reason] ?? "");
    show(this.advice, Boolean(holdAdvice[own?.reason]));
  }

  showFigures(t, lane, now) {
    for (const [f, name] of [[this.live, "live"], [this.bulk, "bulk"]]) {
      const q = t.queue?.[name];
      f.set(fmt.short(q?.waiting ?? NaN), q?.waiting && q.oldest ? `oldest ${fmt.coarse(now - fmt.instant(q.oldest))}` : "");
    }
    const dead = Object.entries(t.dead ?? {}).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
    const sum = dead.reduce((n, [, m]) => n + m, 0);
    this.dead.set(fmt.short(sum), dead.map(([r, n]) => `${r} ${fmt.short(n)}`).join(", "), sum ? "bad" : "");
    if (!lane) {
      for (const f of [this.calling, this.retrying, this.rate]) f.set("–", "");
    } else {
      this.calling.set(fmt.count(lane.calling), `${fmt.short(lane.ready)} ready`);
      this.retrying.set(fmt.count(lane.retrying), lane.retries?.[0] ? `next ${fmt.until(lane.retries[0].due, now)}` : "", lane.retrying ? "warn" : "");
      this.showRate(lane);
    }
    this.quota.update(t, lane, now);
  }

  /** The rate used, and below it the one allowed: by us, or less where the CRM's words or refusals lowered it. */
  showRate(lane) {
    const slow = lane.allowed > 0 && lane.rate < 0.98 * lane.allowed;
    let limit = "no limit";
    if (slow) limit = `${fmt.rate(lane.rate)} of ${fmt.rate(lane.allowed)}`;
    else if (lane.allowed > 0) limit = `of ${fmt.rate(lane.allowed)}`;
    this.rate.set(fmt.rate(lane.used), limit, slow ? "warn" : "");
  }

  showOutcomes(lane) {
    const counts = lane?.counts?.outcomes ?? {};
    const parts = outcomes.map((kind) => ({ kind, value: counts[kind] ?? 0 })).filter((p) => p.value > 0);
    bar(this.bar, parts, parts.reduce((n, p) => n + p.value, 0));
    show(this.bar, parts.length > 0);
    each(this.legend, parts, () => el("li"), (node, p) => {
      attr(node, "kind", p.kind);
      text(node, `${fmt.count(p.value)} ${p.kind}`);
    });
  }

  showDetails(t, lane, now) {
    const retries = lane?.retries ?? [];
    show(this.retryTable, retries.length > 0);
    each(this.retries, retries, () => row(["Contact", "Next try", "Tries", "Updates", "Last answer"]), (tr, w) => {
      [w.contact, fmt.until(w.due, now), fmt.count(w.attempts), fmt.count(w.updates), answer(w)].forEach((v, i) => text(tr.children[i], v));
    });
    const c = lane?.counts;
    const facts = [t.owner ? `owner ${t.owner}` : "no owner"];
    if (lane) {
      facts.push(`for ${fmt.ago(lane.born, now)}`, `${fmt.plural(lane.contacts, "contact", "contacts")} in memory`,
        ...["live", "bulk"].filter((n) => t.queue?.[n]?.waiting).map((n) => `${fmt.bytes(t.queue[n].bytes)} of ${n} updates waiting`),
        `${fmt.count(lane.live)} live and ${fmt.count(lane.bulk)} bulk updates loaded`);
    }
    if (c) {
      facts.push(fmt.plural(c.calls, "call", "calls"), fmt.plural(c.requests, "request", "requests"), `${fmt.count(c.saved)} saved by merging`,
        fmt.plural(c.retries, "retry", "retries"), `${fmt.count(c.recovered)} recovered`, `${fmt.count(c.unknown)} without an answer`,
        ...Object.entries(c.holds ?? {}).map(([r, n]) => `${fmt.plural(n, "hold", "holds")} by ${r}`));
    }
    each(this.facts, facts, () => el("li"), (node, f) => text(node, f));
  }
}
