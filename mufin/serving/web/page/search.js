// The search field: a combobox whose list holds products of the catalog.

import { find } from "./api.js";
import { byId, el, endNotice, notice } from "./dom.js";
import { picture } from "./pictures.js";

const LIMIT = 12;
const WAIT = 100; // milliseconds without a further key before the server is asked

let input, list, onpick, onerror;
let found = [];
let active = -1; // number of the option that the keyboard is at
let timer = 0;
let stale = false; // whether the list is of an earlier text
let entered = false; // whether Enter came before the list
let running = new AbortController();

/** `pick(product)` is called with a product that was chosen, `fail(error)` where none are found. */
export function start(pick, fail) {
  [input, list, onpick, onerror] = [byId("search"), byId("options"), pick, fail];
  input.addEventListener("input", later);
  input.addEventListener("keydown", key);
  input.addEventListener("focus", () => input.value.trim() && later());
  input.addEventListener("blur", close);
  list.addEventListener("mousedown", (event) => event.preventDefault()); // keeps the focus
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) choose(Number(option.dataset.number));
  });
}

function later() {
  clearTimeout(timer);
  running.abort();
  const text = input.value.trim();
  if (!text) return close();
  stale = true;
  entered = false;
  running = new AbortController();
  const { signal } = running;
  timer = setTimeout(() => look(text, signal), WAIT);
}

async function look(text, signal) {
  try {
    const products = await find(text, LIMIT, signal);
    if (signal.aborted) return;
    const pick = entered;
    open(products, text);
    if (pick && products.length) choose(0);
  } catch (error) {
    if (signal.aborted) return;
    close();
    onerror(error);
  }
}

function open(products, text) {
  found = products;
  active = -1;
  stale = entered = false;
  list.replaceChildren(...products.map(option));
  if (!products.length) list.append(el("li", { class: "nothing" }, `Nothing has “${text}” in it.`));
  list.hidden = false;
  input.setAttribute("aria-expanded", "true");
  input.removeAttribute("aria-activedescendant");
  const count = products.length === LIMIT ? `the first ${LIMIT}` : products.length;
  notice(`${count} products found; use the arrow keys`);
}

function option(product, number) {
  const details = product.category.length ? product.category.join(" › ") : product.uid;
  return el(
    "li",
    { role: "option", id: `option-${number}`, "data-number": number, "aria-selected": "false" },
    picture(product.pictures[0]),
    el(
      "span",
      { class: "option-text" },
      el("span", { class: "option-title", dir: "auto" }, product.title || product.uid),
      el("span", { class: "muted small", dir: "auto" }, details),
    ),
  );
}

function close() {
  clearTimeout(timer);
  running.abort();
  if (!list.hidden) endNotice();
  found = [];
  active = -1;
  stale = false;
  list.hidden = true;
  list.replaceChildren();
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
}

function key(event) {
  if (event.isComposing) return;
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (move) {
    event.preventDefault();
    if (list.hidden) later();
    else step(move);
  } else if (event.key === "Enter") {
    event.preventDefault();
    if (stale) entered = true;
    else if (found.length) choose(Math.max(active, 0));
  } else if (event.key === "Escape") {
    event.preventDefault();
    if (list.hidden) input.value = "";
    close();
  }
}

function step(move) {
  if (!found.length) return;
  list.children[active]?.setAttribute("aria-selected", "false");
  active = active < 0 && move < 0 ? found.length - 1 : (active + move + found.length) % found.length;
  const option = list.children[active];
  option.setAttribute("aria-selected", "true");
  option.scrollIntoView({ block: "nearest" });
  input.setAttribute("aria-activedescendant", option.id);
}

function choose(number) {
  const product = found[number];
  input.value = "";
  close();
  onpick(product);
}
