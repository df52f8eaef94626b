// Starts the page and connects its parts: a change of the state is shown, written and asked.

import * as answers from "./answers.js";
import { apiKey, find, keepApiKey, model, product } from "./api.js";
import { ask } from "./asking.js";
import * as attention from "./attention.js";
import * as controls from "./controls.js";
import * as described from "./described.js";
import { byId, el, notice, say, showError } from "./dom.js";
import * as filters from "./filters.js";
import * as live from "./live.js";
import { picture } from "./pictures.js";
import * as query from "./query.js";
import * as search from "./search.js";
import { address, askAbout, asked, change, current, describes } from "./state.js";
import { onChange, start as startState, UNDESCRIBED } from "./state.js";
import * as theme from "./theme.js";
import { takeDropped } from "./uploads.js";

const SUGGESTED = 8;
let words = false; // whether the model reads the words of titles by themselves
let adding = false; // whether a product that is found goes into the basket
let shows = 0;
const titles = new Map(); // of the products asked about, by uid

const results = {
  waiting: answers.showWaiting,
  answered: show,
  failed,
  nothing: () => {
    shows += 1;
    answers.clear();
    attention.draw(null);
    showError("");
    byId("empty").hidden = true;
    say("");
  },
};

async function begin() {
  try {
    const info = await model();
    words = info.modalities.includes("lexical");
    const counts = `${info.products.toLocaleString("en")} products`;
    byId("model").textContent = `${counts} · model ${info.id}`;
    controls.start(info);
    filters.start(info.attributes);
    live.start(info.attributes, catalogChanged);
    byId("key").hidden = true;
    showError("");
    onChange(changed);
    startState();
    suggest();
  } catch (error) {
    failed(error, begin);
  }
}

/** Shows a state; what is as before is left alone. `again`: it was shown before. */
function changed(state, before, again) {
  const same = (...names) => names.every((name) => state[name] === before[name]);
  controls.show(state);
  filters.show(state);
  described.show(state);
  const question = ["uids", "avoid", "title", "texts", "pictures", "category"];
  if (!same(...question)) {
    query.show(state, words);
    name(state);
    adds(false);
  }
  const some = asked(state) || state.avoid.length > 0;
  byId("work").hidden = byId("question").hidden = !some;
  byId("start").hidden = some;
  if (!same("uids") && asked(before)) arrive(again);
  ask(state, results, { now: !same("uids", "avoid") });
  choose(state.why);
}

/** The heading and the title of the window, as soon as the title of the product is known. */
async function name(state) {
  const heading = () => {
    byId("heading").textContent = query.heading(state, titles);
    document.title = asked(state) ? `${byId("heading").textContent} – MUFIN` : "MUFIN";
  };
  heading();
  const [uid] = state.uids;
  const found = uid && (await product(uid).catch(() => null));
  if (!found || current().uids[0] !== uid) return;
  titles.set(uid, found.title || uid);
  heading();
}

/** Begins at the heading when another product is asked about; a view seen before, where it was. */
function arrive(again) {
  if (!again) scrollTo({ top: 0 });
  if (document.activeElement !== byId("search")) byId("heading").focus({ preventScroll: true });
}

async function show(found, state) {
  const mine = ++shows;
  const facts = await Promise.all(state.uids.map((uid) => product(uid).catch(() => null)));
  if (mine !== shows) return; // a later question was answered meanwhile
  facts.forEach((fact) => fact && titles.set(fact.uid, fact.title || fact.uid));
  const many = state.uids.length + (describes({ ...state, category: [] }) ? 1 : 0) > 1;
  const nameOf = (uid) => (many ? titles.get(uid) ?? "the new product" : "");
  const category = facts.find((fact) => fact?.category.length)?.category ?? state.category;
  showError("");
  answers.show(found.answers, { category, words, nameOf });
  byId("empty").hidden = found.answers.length > 0;
  const count = found.answers.length === 1 ? "1 answer" : `${found.answers.length} answers`;
  say(`${count} in ${Math.max(found.milliseconds, 0.1).toFixed(1)} ms`);
  choose(current().why);
}

/** Opens the reasons of an answer, or of none. */
function choose(uid) {
  answers.open(uid);
  attention.draw(answers.cardOf(uid) ?? null);
}

function failed(error, again = () => ask(current(), results, { anew: true, now: true })) {
  shows += 1;
  answers.clear();
  attention.draw(null);
  byId("empty").hidden = true;
  say("");
  if (error.status === 401) askForKey(error);
  else showError(error.message, again);
}

function askForKey(error) {
  byId("key").hidden = false;
  const wrong = apiKey() ? "This key is not the one of the server. " : "";
  byId("key-message").textContent = wrong || error.message;
  byId("key-field").focus();
}

function startKey() {
  byId("key").addEventListener("submit", (event) => {
    event.preventDefault();
    keepApiKey(byId("key-field").value.trim());
    byId("key-field").value = "";
    if (byId("model").textContent) {
      byId("key").hidden = true;
      catalogChanged();
    } else begin();
  });
}

/** Some products to begin with, from all over the first ones of the catalog. */
async function suggest() {
  const found = await find("", 100).catch(() => []);
  const shown = found.filter((item) => item.pictures.length && item.title);
  const step = Math.max(1, shown.length / SUGGESTED);
  const some = Array.from({ length: SUGGESTED }, (_, i) => shown[Math.floor(i * step)]);
  byId("suggestions").replaceChildren(
    ...[...new Set(some)].filter(Boolean).map(({ uid, title, pictures }) => {
      const text = el("span", { class: "title", dir: "auto" }, title);
      const given = { type: "button", class: "suggestion", onclick: () => askAbout(uid) };
      return el("li", {}, el("button", given, picture(pictures[0]), text));
    }),
  );
}

function adds(on) {
  adding = on;
  byId("search-label").textContent = on ? "Add a product to the basket" : "Find a product";
  byId("add").setAttribute("aria-pressed", String(on));
}

function picked({ uid, title }) {
  titles.set(uid, title || uid);
  if (adding) change(query.adding(uid), true);
  else askAbout(uid);
  byId("heading").focus({ preventScroll: true });
}

function catalogChanged() {
  query.show(current(), words);
  ask(current(), results, { anew: true, now: true });
}

/** An answer under the pointer or the keyboard shows its lines; else the chosen one does. */
function startHover() {
  const list = byId("cards");
  const cardAt = (target) => {
    const box = target.closest?.(".card");
    return box && [...list.children].includes(box) ? uidOf(box) : null;
  };
  const uidOf = (box) => box.querySelector("[data-uid]")?.dataset.uid ?? null;
  const lines = (uid) => attention.draw(answers.cardOf(uid ?? current().why) ?? null);
  let timer = 0;
  const soon = (uid) => {
    clearTimeout(timer);
    timer = setTimeout(() => lines(uid), uid ? 180 : 80);
  };
  list.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch") soon(cardAt(event.target));
  });
  list.addEventListener("pointerleave", () => soon(null));
  list.addEventListener("focusin", (event) => {
    if (event.target.matches(":focus-visible")) lines(cardAt(event.target));
  });
  list.addEventListener("focusout", () => soon(null));
  list.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && current().why) change({ why: null });
  });
}

async function copy() {
  const text = address();
  const uploads = current().pictures.length ? " The pictures that you added are not in it." : "";
  try {
    await navigator.clipboard.writeText(text);
    notice(`The link is copied.${uploads}`);
  } catch {
    notice(`This browser does not let the page copy; the link is in the address bar.${uploads}`);
  }
}

/** A search that failed; what is shown stays. */
function searchFailed(error) {
  if (error.status === 401) askForKey(error);
  else showError(error.message, () => byId("search").focus());
}

theme.start();
controls.startFolding();
startKey();
startHover();
attention.start();
described.start();
takeDropped(() => (live.isOpen() ? live.give : described.give));
search.start(picked, searchFailed);
byId("add").addEventListener("click", () => {
  adds(!adding);
  byId("search").focus();
});
byId("copy").addEventListener("click", copy);
byId("empty-clear").addEventListener("click", () => change({ where: {} }));
byId("home").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  change({ ...UNDESCRIBED, uids: [], avoid: [], where: {}, why: null }, true);
});
addEventListener("online", () => byId("error").hidden || byId("error").querySelector("button")?.click());
begin();
