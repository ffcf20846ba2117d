// Dead letters: what they have in common, each of them, and what to do about
// them.

import { answer } from "./card.js";
import { each, el, row, show, text } from "./dom.js";
import * as fmt from "./format.js";

const $ = (id) => document.getElementById(id);
const lettersShown = 25;
const lettersEvery = 30000; // ms, also where the counts have not moved
const actsFor = 15000; // ms after an order in which they are asked for each turn

const groupColumns = ["Letters", "Target", "Reason", "What the CRM said", "Last", "What may help", ""];
const letterColumns = ["When", "Target", "Contact", "Reason", "What the CRM said", "Fields", "Letter"];

/** ask(path, body) is the page's; refused says that an error is about the token. */
export class Letters {
  constructor(ask, refused) {
    this.ask = ask;
    this.refused = refused;
    this.counts = "";
    this.at = 0;
    this.acting = 0; // until when an order may still change what is shown
    this.group = null; // the one whose letters are shown; null: the newest of all
    this.order = null; // what the dialog is about
    $("letters-all").addEventListener("click", () => this.choose(null));
    for (const id of ["letter", "redrive", "discard"]) {
      $(id).querySelector("[name=cancel]").addEventListener("click", () => $(id).close());
      $(id).querySelector("form").addEventListener("submit", (event) => {
        event.preventDefault();
        this.submit(id, event.target, event.submitter?.name);
      });
    }
  }

  /** Asks for the letters only when their number has changed, or now and then. */
  async turn(status, now) {
    this.now = now;
    const counts = JSON.stringify((status.targets ?? []).map((t) => t.dead ?? {}));
    if (counts === this.counts && Date.now() - this.at < lettersEvery && Date.now() > this.acting) return;
    this.at = Date.now();
    try {
      await this.load();
      this.counts = counts;
    } catch (err) {
      if (this.refused(err)) throw err;
      text($("letters-note"), `cannot be read now: ${err.message}`);
    }
    show($("letters"), true);
  }

  async load() {
    const chosen = this.group;
    const about = chosen ? `&target=${encodeURIComponent(chosen.target)}&group=${encodeURIComponent(chosen.fingerprint)}` : "";
    const groups = await this.ask("api/v1/dead/groups");
    const page = await this.ask(`api/v1/dead?limit=${lettersShown}${about}`);
    if (chosen !== this.group) return; // another was chosen meanwhile
    this.renderGroups(groups.groups ?? []);
    this.renderLetters(page.letters ?? [], page.next);
  }

  choose(group) {
    this.group = group;
    this.load().catch((err) => text($("letters-note"), `cannot be read now: ${err.message}`));
  }

  renderGroups(list) {
    show($("groups-table"), list.length > 0);
    each($("groups-table").tBodies[0], list, () => {
      const tr = row(groupColumns);
      const button = (words, act) => {
        const b = el("button", { type: "button" }, words);
        b.addEventListener("click", () => act(tr.group));
        return b;
      };
      tr.lastElementChild.append(
        button("Show", (g) => this.choose(g)),
        button("Send again", (g) => this.plan({ target: g.target, group: g.fingerprint }, this.words(g))),
        button("Discard", (g) => this.discard({ target: g.target, group: g.fingerprint }, this.words(g))),
      );
      return tr;
    }, (tr, g) => {
      tr.group = g;
      const status = g.status ? `HTTP ${g.status}` : "";
      const said = [status, g.field ? `${g.field}:` : "", g.message ?? ""].filter(Boolean).join(" ");
      [fmt.count(g.count), g.target, g.reason, said, fmt.clock(g.last, this.now), g.suggestion ?? ""]
        .forEach((v, i) => text(tr.children[i], v));
      tr.children[0].title = g.trend ?? "";
    });
  }

  words(g) {
    return `${fmt.plural(g.count, "letter", "letters")} of ${g.target}: ${g.reason}`;
  }

  renderLetters(list, more) {
    const g = this.group;
    text($("letters-title"), g ? `Letters of ${g.target}: ${g.reason}` : "Last dead letters");
    show($("letters-all"), g !== null);
    show($("letters-none"), list.length === 0);
    show($("letters-table"), list.length > 0);
    text($("letters-note"), more ? `the newest ${list.length}; all of them: crmsync dead ls` : "");
    each($("letters-table").tBodies[0], list, () => {
      const tr = row(letterColumns);
      const open = el("button", { type: "button" });
      open.addEventListener("click", () => this.open(tr.letter));
      tr.lastElementChild.append(open, el("span"));
      return tr;
    }, (tr, l) => {
      tr.letter = l;
      const tries = l.attempts > 1 ? ` · ${l.attempts} tries` : "";
      [fmt.clock(l.at, this.now), l.target, l.contact, l.reason, answer(l) + tries, (l.fields ?? []).join(", ")]
        .forEach((v, i) => text(tr.children[i], v));
      const from = l.job ? ` ${l.job}${l.row ? ` row ${l.row}` : ""}` : "";
      text(tr.lastElementChild.children[0], l.id);
      text(tr.lastElementChild.children[1], from + (l.state === "redriven" ? " · sent again" : ""));
    });
  }

  /** Shows one letter whole. */
  async open(l) {
    this.order = { ids: [l.id] };
    text($("letter-title"), `Letter ${l.id}: contact ${l.contact} of ${l.target}, ${l.reason}`);
    text($("letter-body"), "reading");
    this.wrong("letter", "");
    $("letter").showModal();
    try {
      const whole = await this.ask(`api/v1/dead/letters/${encodeURIComponent(l.id)}`);
      text($("letter-body"), JSON.stringify(whole, null, 2));
    } catch (err) {
      text($("letter-body"), "");
      this.wrong("letter", err.message);
    }
  }

  /** Says what sending again would do, and asks. */
  async plan(order, words) {
    this.order = order;
    text($("redrive-title"), `Send again: ${words}`);
    text($("redrive-plan"), "looking what that would do");
    this.wrong("redrive", "");
    $("redrive").querySelector("form").reset();
    $("redrive").showModal();
    try {
      const p = await this.ask("api/v1/dead/redrive", { ...order, plan: true });
      text($("redrive-plan"), p.text ?? "");
    } catch (err) {
      text($("redrive-plan"), "");
      this.wrong("redrive", err.message);
    }
  }

  discard(order, words) {
    this.order = order;
    text($("discard-title"), `Discard: ${words}`);
    this.wrong("discard", "");
    $("discard").querySelector("form").reset();
    $("discard").showModal();
  }

  async submit(id, form, button) {
    const words = (this.order.ids ?? []).length ? `letter ${this.order.ids.join(", ")}` : "the group";
    if (id === "letter") {
      $("letter").close();
      if (button === "discard") this.discard(this.order, words);
      else this.plan(this.order, words);
      return;
    }
    try {
      const said = id === "redrive"
        ? await this.ask("api/v1/dead/redrive", { ...this.order, force: form.elements.force.checked })
        : await this.ask("api/v1/dead/discard", { ...this.order, why: form.elements.why.value.trim() });
      $(id).close();
      this.acting = Date.now() + actsFor;
      this.group = null;
      await this.load();
      text($("letters-note"), said?.text ?? "");
    } catch (err) {
      this.wrong(id, err.message);
    }
  }

  wrong(id, words) {
    const p = $(id).querySelector(".wrong");
    text(p, words);
    show(p, words !== "");
  }
}
