// A score and what it is made of, as a small bar with a text in its place for screen readers.

import { el } from "./dom.js";

const MEANING = {
  classifier: "the label's own classifier, learnt in training",
  similarity: "likeness of title, words and pictures",
  frequency: "how often it is related in training",
  ridge: "a linear model of titles",
  votes: "related products of the nearest known products",
  pairs: "pairs seen in training",
  avoid: "likeness to products to avoid",
  popularity: "popular in the category",
};
const COLOURS = Object.keys(MEANING);

/** "0.82: classifier 0.50, similarity 0.32" */
export function inWords(answer) {
  const parts = Object.entries(answer.parts).map(([name, value]) => `${name} ${value.toFixed(2)}`);
  return answer.score.toFixed(2) + (parts.length ? `: ${parts.join(", ")}` : "");
}

/** The scale that all bars of one list share: the largest sum below and above zero. */
export function scale(answers) {
  const sum = (answer, sign) =>
    Object.values(answer.parts).reduce((all, v) => all + Math.max(0, sign * v), 0);
  const below = Math.max(0, ...answers.map((answer) => sum(answer, -1)));
  const above = Math.max(1e-9, ...answers.map((answer) => sum(answer, 1)));
  return { below, width: below + above };
}

/** The bar of an answer; parts below zero extend to the left of the line at zero. */
export function bar(answer, { below, width }) {
  const box = el("span", { class: "bar", role: "img", "aria-label": `score ${inWords(answer)}` });
  const percent = (value) => `${(100 * value) / width}%`;
  let left = below;
  let right = below;
  for (const [name, value] of Object.entries(answer.parts)) {
    const size = Math.abs(value);
    const piece = el("span", { class: `piece ${colour(name)}`, title: `${name} ${value.toFixed(2)}` });
    if (value < 0) left -= size;
    piece.style.left = percent(value < 0 ? left : right);
    piece.style.width = percent(size);
    if (value >= 0) right += size;
    box.append(piece);
  }
  if (below > 0) {
    const zero = el("span", { class: "zero" });
    zero.style.left = percent(below);
    box.append(zero);
  }
  return box;
}

/** What the colours of the bars mean, of all parts that some answer has. */
export function legend(answers) {
  const names = COLOURS.filter((name) => answers.some((answer) => name in answer.parts));
  return names.map((name) =>
    el("li", { title: MEANING[name] }, el("span", { class: `swatch ${colour(name)}` }), name),
  );
}

const colour = (name) => (COLOURS.includes(name) ? `part-${name}` : "part-other");
