// The products asked about and to be avoided, and their descriptors, where attention starts.

import { product } from "./api.js";
import { byId, el, iconButton } from "./dom.js";
import { picture, preview } from "./pictures.js";
import { change, current, describes, UNDESCRIBED } from "./state.js";
import { marks } from "./texts.js";

const SHOWN = 6; // pictures per product

/** A part of a product that attention can start or end at. */
export function node(kind, number, content, uid = "") {
  const given = { "data-kind": kind, "data-number": number, "data-uid": uid };
  return el("span", { class: `node node-${kind}`, ...given }, content);
}

/** Pictures as nodes; those beyond the first few are one more. */
export function pictureNodes(paths, uid, from = 0) {
  const nodes = paths
    .slice(from, SHOWN)
    .map((path, i) => node("picture", from + i, picture(path, `picture ${from + i + 1}`), uid));
  const more = paths.length - SHOWN;
  if (more > 0) nodes.push(node("picture", SHOWN, el("span", { class: "more" }, `+${more}`), uid));
  return nodes;
}

/** "this product", "these 3 products" or its title, for a heading. */
export function heading(state, titles) {
  const count = state.uids.length + (describes(state) ? 1 : 0);
  if (count > 1) return `Related to these ${count} products`;
  const name = state.uids.length ? titles.get(state.uids[0]) : state.title.trim();
  return `Related to ${name || "this product"}`;
}

/** Shows the question of a state; `words` says whether the model reads words by themselves. */
export function show(state, words) {
  const items = [
    ...state.uids.map((uid) => item(uid, false, words)),
    ...(describes(state) ? [newItem(state, words)] : []),
    ...state.avoid.map((uid) => item(uid, true, words)),
  ];
  byId("asked").replaceChildren(...items);
  byId("asked").classList.toggle("many", items.length > 2);
}

/** The item of a product of the catalog; the server is asked what it is. */
function item(uid, avoided, words) {
  const title = el("span", { class: "title", dir: "auto" }, uid);
  const pictures = el("span", { class: "nodes" }, el("span", { class: "picture waiting" }));
  const text = texts(title, words, uid);
  const actions = el("span", { class: "actions" });
  const box = shell(avoided, pictures, text, actions);
  const name = (shown) => actions.replaceChildren(...buttons(uid, shown, avoided));
  name(uid);
  product(uid).then(
    (found) => {
      title.textContent = found.title || found.uid;
      title.title = title.textContent;
      pictures.replaceChildren(...pictureNodes(found.pictures, uid));
      if (!found.pictures.length) pictures.replaceChildren(picture(null));
      text.querySelector(".nodes").replaceChildren(...textNodes(found.texts, uid));
      name(title.textContent);
    },
    (error) => {
      pictures.replaceChildren(picture(null));
      if (error.status === 404) text.append(el("span", { class: "warning" }, "not in the catalog"));
    },
  );
  return box;
}

function newItem(state, words) {
  const title = state.title.trim() || "New product";
  const files = state.pictures.map((file) => preview(file));
  const pictures = el("span", { class: "nodes" }, pictureNodes(files, ""));
  if (!files.length) pictures.append(picture(null));
  const text = texts(el("span", { class: "title", dir: "auto" }, title), words, "");
  text.querySelector(".nodes").append(...textNodes(state.texts, ""));
  text.append(el("span", { class: "muted small" }, "as you describe it"));
  const clear = () => change(UNDESCRIBED, true);
  const actions = el("span", { class: "actions" }, iconButton("cross", `Remove ${title}`, clear));
  return shell(false, pictures, text, actions);
}

function shell(avoided, pictures, text, actions) {
  const mark = avoided ? el("span", { class: "badge" }, "less like this") : null;
  if (mark) text.append(mark);
  return el("li", { class: avoided ? "item avoided" : "item" }, pictures, text, actions);
}

function texts(title, words, uid) {
  const chips = [el("span", { class: "nodes" }), words ? node("words", 0, "words", uid) : null];
  return el("span", { class: "item-text" }, node("title", 0, title, uid), ...chips);
}

const textNodes = (texts, uid) => marks([...texts.entries()], uid, node);

function buttons(uid, title, avoided) {
  const swap = avoided ? `Ask about ${title} instead of avoiding it` : `Less like ${title}`;
  return [
    iconButton(avoided ? "plus" : "minus", swap, () => turn(uid, avoided)),
    iconButton("cross", `Remove ${title}`, () => remove(uid)),
  ];
}

const without = (uids, uid) => uids.filter((other) => other !== uid);

function turn(uid, avoided) {
  change((avoided ? adding : avoiding)(uid), true);
}

/** The change that asks about one more product. */
export function adding(uid) {
  const { uids, avoid } = current();
  return { uids: [...without(uids, uid), uid], avoid: without(avoid, uid) };
}

/** The change after which answers are less like a product. */
export function avoiding(uid) {
  const { uids, avoid } = current();
  return { uids: without(uids, uid), avoid: [...without(avoid, uid), uid] };
}

function remove(uid) {
  const { uids, avoid } = current();
  change({ uids: without(uids, uid), avoid: without(avoid, uid) }, true);
}
