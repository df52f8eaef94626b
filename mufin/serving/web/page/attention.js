// Which descriptor of the question goes to which of an answer (MUFIN Fig. 5a): lines and words.

import { byId, rounded, svg } from "./dom.js";
import { nameOf as nameOfText } from "./texts.js";

const WIDE = matchMedia("(min-width: 800px)"); // below, the list in the card stands alone
const PLACES = [0.6, 0.45, 0.72, 0.32, 0.84]; // on a line, where its number may stand

let shown = null; // {answer, box}
let frame = 0;

/** "picture 2 → title, 0.61 by attention"; `nameOf` says of which product, where there are many. */
export function inWords(why, nameOf) {
  return why.map((reason) => {
    const of = nameOf(reason.query.uid);
    const from = of ? `${of}: ${named(reason.query)}` : named(reason.query);
    return `${from} → ${named(reason.answer)}, ${reason.weight.toFixed(2)} by ${reason.by}`;
  });
}

function named({ kind, number, text }) {
  if (kind === "text") return nameOfText(number) + (text ? ` “${text}”` : "");
  return kind === "picture" ? `picture ${number + 1}` : kind;
}

/** Draws the lines of an answer's card, or none for null. */
export function draw(card) {
  if (shown?.box !== card?.box) unmark();
  shown = card && { answer: card.answer, box: card.box };
  byId("cards").classList.toggle("dimmed", Boolean(shown?.answer.why.length) && WIDE.matches);
  shown?.box.classList.add("lit");
  redraw();
}

function unmark() {
  shown?.box.classList.remove("lit");
  document.querySelectorAll(".node.lit").forEach((element) => element.classList.remove("lit"));
}

/** Keeps the lines at their places when the page moves below them. */
export function start() {
  for (const name of ["scroll", "resize"]) {
    addEventListener(name, () => shown && redraw(), { passive: true, capture: true });
  }
  WIDE.addEventListener("change", redraw);
  new ResizeObserver(() => shown && redraw()).observe(byId("results"));
}

function redraw() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    const overlay = byId("attention");
    if (!shown || !WIDE.matches || !shown.box.isConnected) return overlay.replaceChildren();
    const { answer, box } = shown;
    const strip = byId("question").getBoundingClientRect();
    const taken = [];
    const lines = answer.why.map((why) => line(why, box, strip, taken));
    overlay.replaceChildren(...lines.flatMap((one) => one.below), ...lines.flatMap((one) => one.above));
  });
}

const NONE = { below: [], above: [] };

/** The line and the number of one reason; none if an end is not on the page. */
function line(why, box, strip, taken) {
  const from = find(byId("asked"), why.query);
  const to = find(box, why.answer);
  if (!from || !to) return NONE;
  const a = from.getBoundingClientRect();
  const b = to.getBoundingClientRect();
  if (b.bottom < strip.bottom) return NONE; // the answer is scrolled away below the question
  from.classList.add("lit");
  to.classList.add("lit");
  const x1 = clamp(a.left + a.width / 2, strip.left, strip.right);
  const x2 = b.left + b.width / 2;
  const y1 = Math.min(a.bottom, strip.bottom);
  const y2 = Math.max(b.top, strip.bottom);
  const bend = Math.max(24, (y2 - y1) / 2);
  const curve = [x1, y1, x1, y1 + bend, x2, y2 - bend, x2, y2];
  const strength = Math.min(1, Math.abs(why.weight));
  const d = `M${curve[0]} ${curve[1]}C${curve.slice(2).join(" ")}`;
  const path = svg("path", {
    d,
    class: why.weight < 0 ? "thread against" : "thread",
    "stroke-width": rounded(1.5 + 7 * strength),
    opacity: rounded(0.35 + 0.65 * strength),
  });
  const [x, y] = free(curve, taken);
  const text = svg("text", { x, y: y + 4, class: "weight" }, why.weight.toFixed(2));
  const back = svg("rect", { x: x - 20, y: y - 10, width: 40, height: 20, rx: 10, class: "pill" });
  return { below: [path, dot(x1, y1), dot(x2, y2)], above: [back, text] };
}

/** The first place on a line where no other number stands, which it then takes. */
function free(curve, taken) {
  const apart = ([x, y]) => taken.every(([a, b]) => Math.abs(x - a) > 42 || Math.abs(y - b) > 22);
  const places = PLACES.map((t) => at(curve, t));
  const place = places.find(apart) ?? places[0];
  taken.push(place);
  return place;
}

const dot = (cx, cy) => svg("circle", { cx, cy, r: 3.5, class: "end" });
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** The point of a Bézier curve at t. */
function at(curve, t) {
  const s = 1 - t;
  const weights = [s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t];
  return [0, 1].map((axis) => weights.reduce((sum, w, i) => sum + w * curve[2 * i + axis], 0));
}

/** The element of a descriptor; pictures beyond those shown have one together. */
function find(box, { uid, kind, number }) {
  const all = [...box.querySelectorAll(".node")].filter(
    ({ dataset }) => dataset.kind === kind && dataset.uid === (uid ?? ""),
  );
  return all.find(({ dataset }) => Number(dataset.number) === number) ?? all.at(-1);
}
