// Texts beside the title, such as a description: one per line of a field, and their descriptors.

import { el } from "./dom.js";

const SHOWN = 4; // texts per product that have a mark of their own

/** The texts in a field, one per line. */
export const textsIn = (field) => [...new Set(field.value.split("\n").map(plain).filter(Boolean))];

/** Texts as the content of such a field; blanks in them count the same for the model. */
export const asLines = (texts) => texts.map(plain).filter(Boolean).join("\n");

const plain = (text) => text.replace(/\s+/g, " ").trim();

/** What reasons call a text: "text 2". */
export const nameOf = (number) => `text ${number + 1}`;

/** Marks of texts [number, words], made by `node`, where attention can start or end. */
export function marks(texts, uid, node) {
  return texts
    .slice(0, SHOWN)
    .map(([number, words]) => node("text", number, el("span", { title: words }, nameOf(number)), uid));
}
