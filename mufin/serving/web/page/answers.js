// The ranked answers as cards; a card of an answer that stays is kept, so that nothing flickers.

import { inWords as reasonsInWords } from "./attention.js";
import { byId, el, iconButton } from "./dom.js";
import { bar, inWords, legend, scale } from "./parts.js";
import { picture } from "./pictures.js";
import { adding, avoiding, node, pictureNodes } from "./query.js";
import { askAbout, change, current, search, UNDESCRIBED } from "./state.js";
import { marks } from "./texts.js";

const SKELETONS = 8;
const SHOWN = 5; // attributes per card
const cards = new Map(); // by uid, of the list that is shown

/** Shows grey places where answers will be; only if there is nothing to look at. */
export function showWaiting() {
  byId("results").setAttribute("aria-busy", "true");
  if (byId("cards").childElementCount) return;
  const skeletons = Array.from({ length: SKELETONS }, () =>
    el(
      "li",
      { class: "card skeleton", "aria-hidden": "true" },
      el("span", { class: "picture" }),
      el("span", { class: "line" }),
      el("span", { class: "line short" }),
      el("span", { class: "line" }),
    ),
  );
  byId("cards").replaceChildren(...skeletons);
}

/** Shows answers; `context` has the state that was asked, its category, `words` and `nameOf`. */
export function show(answers, context) {
  const focused = document.activeElement;
  const measure = scale(answers);
  const kept = answers.map((answer, i) => {
    const same = JSON.stringify([answer.uid, answer.title, answer.attributes, answer.pictures]);
    const old = cards.get(answer.uid);
    const made = old?.same === same ? old : { same, ...card(answer, context.words) };
    made.update(answer, i, measure, context);
    return made;
  });
  cards.clear();
  kept.forEach((made) => cards.set(made.uid, made));
  byId("results").setAttribute("aria-busy", "false");
  byId("cards").replaceChildren(...kept.map((made) => made.box));
  byId("legend").replaceChildren(...legend(answers));
  if (focused?.isConnected) focused.focus({ preventScroll: true });
}

/** Takes all answers away. */
export function clear() {
  cards.clear();
  byId("results").setAttribute("aria-busy", "false");
  byId("cards").replaceChildren();
  byId("legend").replaceChildren();
}

/** The card of an answer, undefined if it is not shown. */
export const cardOf = (uid) => cards.get(uid);

/** Opens the reasons of one answer and closes those of all others. */
export function open(uid) {
  for (const made of cards.values()) {
    made.button.setAttribute("aria-expanded", String(made.uid === uid));
    made.box.classList.toggle("chosen", made.uid === uid);
    made.details.hidden = made.uid !== uid;
  }
}

function card(answer, words) {
  const { uid } = answer;
  const title = answer.title || uid;
  const rank = el("span", { class: "rank" });
  const score = el("p", { class: "score" });
  const mark = el("p", { class: "badge", hidden: true });
  const why = el("ul", { class: "reasons" });
  const named = el("span", { class: "nodes text-nodes" });
  const details = el("div", { class: "details", hidden: true, id: `why-${encodeURIComponent(uid)}` });
  const link = el("a", { href: href(uid), dir: "auto", title, onclick: followed(uid) }, title);
  const button = whyButton(uid, title, details.id);
  details.append(el("h4", {}, "Why this answer"), why);
  const more = pictureNodes(answer.pictures, uid, 1);
  const box = el(
    "li",
    { class: "card" },
    node("picture", 0, picture(answer.pictures[0]), uid),
    el("span", { class: "nodes" }, more, named, words ? node("words", 0, "words", uid) : null),
    el(
      "div",
      { class: "card-text" },
      el("h3", {}, rank, node("title", 0, link, uid)),
      answer.category.length
        ? el("p", { class: "muted small category", dir: "auto" }, answer.category.join(" › "))
        : null,
      attributes(answer.attributes),
      score,
      mark,
      el("div", { class: "actions" }, button, ...cardButtons(uid, title)),
      details,
    ),
  );
  const update = (now, i, measure, context) => {
    rank.textContent = `${i + 1}.`;
    score.replaceChildren(el("span", { class: "number" }, now.score.toFixed(2)), bar(now, measure));
    mark.hidden = !now.fallback;
    mark.textContent = now.fallback ? fallback(now, context.category) : "";
    const sentences = reasonsInWords(now.why, context.nameOf);
    named.replaceChildren(...marks(textsOf(now.why), uid, node));
    why.replaceChildren(...sentences.map((text) => el("li", { dir: "auto" }, text)));
    if (!sentences.length) why.append(el("li", {}, "no descriptors of the two products were compared"));
    why.append(el("li", { class: "muted" }, `score ${inWords(now)}`));
    link.href = href(uid);
    made.answer = now;
  };
  const made = { uid, box, button, details, update, answer };
  return made;
}

/** [number, words] of the texts of an answer that its reasons name. */
function textsOf(why) {
  const texts = why.map(({ answer }) => answer).filter(({ kind }) => kind === "text");
  return [...new Map(texts.map(({ number, text }) => [number, text]))].sort(([a], [b]) => a - b);
}

function whyButton(uid, title, controlled) {
  const toggle = () => change({ why: current().why === uid ? null : uid });
  const given = { type: "button", class: "plain why", "aria-expanded": "false" };
  const name = { "aria-controls": controlled, "aria-label": `Why ${title}` };
  return el("button", { ...given, ...name, onclick: toggle }, "Why");
}

function cardButtons(uid, title) {
  return [
    iconButton("plus", `More like ${title}: add to the basket`, () => change(adding(uid), true)),
    iconButton("minus", `Less like ${title}`, () => change(avoiding(uid), true)),
    iconButton("pencil", `Change or remove ${title}`, () =>
      dispatchEvent(new CustomEvent("edit-product", { detail: uid })),
    ),
  ];
}

/** The address of the question about an answer. */
const href = (uid) =>
  search({ ...current(), ...UNDESCRIBED, uids: [uid], avoid: [], why: null });

const followed = (uid) => (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a new tab
  event.preventDefault();
  askAbout(uid);
};

function attributes(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== "");
  if (!given.length) return null;
  const pairs = given.slice(0, SHOWN).map(([name, value]) => {
    return el("div", {}, el("dt", {}, plain(name)), " ", el("dd", { dir: "auto" }, inText(value)));
  });
  return el("dl", { class: "attributes small" }, pairs);
}

/** "in stock" for the column in_stock. */
export const plain = (name) => name.replaceAll("_", " ");

function inText(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 2 }) : value;
}

/** In which category a fallback answer is popular: the narrowest that it shares. */
function fallback(answer, category) {
  let shared = 0;
  while (shared < category.length && category[shared] === answer.category[shared]) shared += 1;
  const where = shared ? category[shared - 1] : "the whole catalog";
  return `popular in ${where}: this product has no title or picture that the model reads`;
}
