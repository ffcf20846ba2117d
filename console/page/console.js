// The page: asks for the status each second and shows it.

import { each, el, show, text } from "./dom.js";
import { Card } from "./card.js";
import * as fmt from "./format.js";
import { Letters } from "./letters.js";

const $ = (id) => document.getElementById(id);
const every = 1000; // ms between two questions
const slowest = 5000; // and while there is no answer

let token = ""; // in memory only
let skew = 0; // server's clock less ours, ms
let failures = 0;
let lastGood = 0;
const cards = new Map();

class Refused extends Error {}

const letters = new Letters(ask, (err) => err instanceof Refused);

async function ask(path, body) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  const init = { headers, cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(12000) };
  if (body) {
    init.method = "POST";
    init.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(path, init);
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const problem = await answer.json().catch(() => ({}));
  const said = [problem.title ?? `HTTP ${answer.status}`, problem.detail].filter(Boolean).join(": ");
  throw answer.status === 401 ? new Refused(said) : new Error(said);
}

async function turn() {
  let wait = every;
  try {
    const status = await ask("api/v1/status");
    skew = (fmt.instant(status.at) ?? Date.now()) - Date.now();
    failures = 0;
    lastGood = Date.now();
    render(status);
    news("live", "live");
    const wrong = troubles(status);
    text($("banner"), wrong.join(" "));
    show($("banner"), wrong.length > 0);
    await letters.turn(status, Date.now() + skew);
  } catch (err) {
    if (err instanceof Refused) {
      askToken(token ? "This is not the token." : "");
      return; // the dialog starts the next turn
    }
    failures++;
    wait = Math.min(slowest, every * 2 ** failures);
    news("lost", lastGood ? `no news for ${fmt.span(Date.now() - lastGood)}` : "no answer");
    text($("banner"), `crmsync does not answer: ${err.message}. Trying again.`);
    show($("banner"), true);
  }
  setTimeout(next, wait);
}

/** A hidden page asks nothing. */
function next() {
  if (!document.hidden) turn();
  else document.addEventListener("visibilitychange", next, { once: true });
}

function news(kind, words) {
  $("news").dataset.kind = kind;
  text($("news"), words);
}

/** What is wrong with the store, in sentences. */
function troubles(status) {
  const out = [];
  const store = status.store;
  if (store?.state && store.state !== "ok") out.push(`Store ${store.state}: ${store.text}.`);
  const durability = status.nats?.durability;
  if (durability?.state === "unproven") out.push(`Not durable: ${durability.text}.`);
  return out;
}

function render(status) {
  const now = Date.now() + skew;
  const targets = status.targets ?? [];
  text($("version"), status.version);
  const nats = status.nats ?? {};
  const sessions = status.sessions ?? [];
  text($("nats"), [nats.embedded ? "embedded NATS" : "NATS", nats.url].filter(Boolean).join(" ") +
    ` · ${fmt.plural(sessions.length, "worker", "workers")}`);
  $("nats").title = sessions.join("\n");
  renderTotals(targets);
  show($("none"), targets.length === 0);
  show($("filter"), targets.length > 6);
  const wanted = $("filter").value.trim().toLowerCase();
  const seen = new Set();
  targets.forEach((t, i) => {
    seen.add(t.target);
    let card = cards.get(t.target);
    if (!card) {
      card = new Card(t.target, steer);
      cards.set(t.target, card);
    }
    if ($("targets").children[i] !== card.node) $("targets").insertBefore(card.node, $("targets").children[i] ?? null);
    const visible = t.target.includes(wanted);
    show(card.node, visible);
    if (visible) card.update(t, now);
  });
  for (const [name, card] of cards) {
    if (!seen.has(name)) {
      card.node.remove();
      cards.delete(name);
    }
  }
}

function renderTotals(targets) {
  const sum = (f) => targets.reduce((n, t) => n + (f(t) ?? 0), 0);
  const held = targets.filter((t) => t.lane?.hold).length;
  const alone = targets.filter((t) => !t.lane).length;
  const dead = sum((t) => Object.values(t.dead ?? {}).reduce((n, m) => n + m, 0));
  const totals = [
    ["Targets", fmt.count(targets.length), ""],
    ["Held", fmt.count(held), held ? "warn" : ""],
    ["Without news", fmt.count(alone), alone ? "bad" : ""],
    ["Live waiting", fmt.short(sum((t) => t.queue?.live?.waiting)), ""],
    ["Bulk waiting", fmt.short(sum((t) => t.queue?.bulk?.waiting)), ""],
    ["Retrying", fmt.short(sum((t) => t.lane?.retrying)), ""],
    ["Dead letters", fmt.short(dead), dead ? "bad" : ""],
  ];
  show($("totals"), targets.length > 0);
  each($("totals"), totals, () => el("div", {}, el("dt"), el("dd")), (node, [name, value, kind]) => {
    text(node.children[0], name);
    text(node.children[1], value);
    node.dataset.kind = kind;
  });
  document.title = held || alone ? `(${held + alone}) crmsync` : "crmsync";
}

function wrong(dialog, words) {
  const p = dialog.querySelector(".wrong");
  text(p, words);
  show(p, words !== "");
}

let holding = "";

async function steer(target, order) {
  if (order === "hold") {
    holding = target;
    const dialog = $("hold");
    text($("hold-title"), `Hold ${target}`);
    dialog.querySelector("form").reset();
    wrong(dialog, "");
    dialog.showModal();
    return;
  }
  try {
    await ask(`api/v1/targets/${encodeURIComponent(target)}/resume`, order === "resume" ? {} : { storm: order });
  } catch (err) {
    text($("banner"), `${target} was not resumed: ${err.message}`);
    show($("banner"), true);
  }
}

$("hold").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const order = {};
  const minutes = Number(form.elements.minutes.value);
  if (minutes) order.until = new Date(Date.now() + skew + minutes * 60000).toISOString();
  if (form.elements.note.value.trim()) order.note = form.elements.note.value.trim();
  try {
    await ask(`api/v1/targets/${encodeURIComponent(holding)}/hold`, order);
    $("hold").close();
  } catch (err) {
    wrong($("hold"), err.message);
  }
});
$("hold").querySelector("[name=cancel]").addEventListener("click", () => $("hold").close());

function askToken(words) {
  news("lost", "token needed");
  wrong($("token"), words);
  if (!$("token").open) $("token").showModal();
}

$("token").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = event.target.elements.token.value.trim();
  event.target.reset();
  $("token").close();
  turn();
});
// Without the token there is nothing to show: Escape does not close it.
$("token").addEventListener("cancel", (event) => event.preventDefault());

turn();
