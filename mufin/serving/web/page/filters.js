// Conditions on answers, built from the attributes that the model has.

import { plain } from "./answers.js";
import { byId, el, rounded } from "./dom.js";
import { change, current } from "./state.js";

const FEW = 12; // values of a text attribute; more of them can be searched
const fields = []; // {name, show(condition)}

/** Builds a group of fields per attribute of /v1/model, the category first. */
export function start(attributes) {
  const names = Object.keys(attributes).sort((a, b) => (b === "category") - (a === "category"));
  const groups = names.map((name) => group(name, attributes[name])).filter(Boolean);
  byId("filters").replaceChildren(...groups);
  byId("filter-box").hidden = !groups.length;
  byId("clear-filters").addEventListener("click", () => change({ where: {} }));
}

/** Shows the conditions of a state. */
export function show(state) {
  fields.forEach((field) => field.show(state.where[field.name]));
  const count = Object.keys(state.where).length;
  byId("filter-count").textContent = count ? `${count} on` : "";
  byId("clear-filters").hidden = !count;
}

function group(name, fact) {
  const make = { number: numbers, flag, text: texts }[fact.kind];
  if (!make || (fact.kind === "number" && fact.min === undefined)) return null;
  if (fact.kind === "text" && !fact.values?.length) return null;
  const mark = el("span", { class: "muted small" });
  const { content, show } = make(name, fact);
  fields.push({
    name,
    show: (condition) => {
      mark.textContent = condition === undefined ? "" : summary(condition);
      show(condition);
    },
  });
  const label = name.charAt(0).toUpperCase() + plain(name).slice(1);
  return el(
    "details",
    { class: "filter", open: name === "category" },
    el("summary", {}, el("span", {}, label), mark),
    el("fieldset", {}, el("legend", { class: "spoken" }, label), content),
  );
}

/** What is chosen, in a few characters. */
function summary(condition) {
  if (typeof condition === "boolean") return condition ? "yes" : "no";
  if (Array.isArray(condition)) return condition.length > 1 ? `${condition.length}` : condition[0];
  if (condition === null || typeof condition !== "object") return String(condition);
  const { gte = "", lte = "" } = condition;
  return `${gte}–${lte}`;
}

/** Sets the condition of one attribute; undefined takes it away. */
function condition(name, value) {
  const where = { ...current().where };
  if (value === undefined) delete where[name];
  else where[name] = value;
  change({ where });
}

function numbers(name, { min, max }) {
  const field = (label, placeholder) =>
    el("input", { type: "number", step: "any", placeholder, "aria-label": label, oninput: changed });
  const changed = () => {
    const bounds = {};
    if (!Number.isNaN(low.valueAsNumber)) bounds.gte = low.valueAsNumber;
    if (!Number.isNaN(high.valueAsNumber)) bounds.lte = high.valueAsNumber;
    condition(name, Object.keys(bounds).length ? bounds : undefined);
  };
  const low = field(`Lowest ${plain(name)}`, rounded(min));
  const high = field(`Highest ${plain(name)}`, rounded(max));
  const show = (bounds) => {
    for (const [input, bound] of [[low, bounds?.gte], [high, bounds?.lte]]) {
      const value = bound === undefined ? NaN : bound;
      if (!Object.is(input.valueAsNumber, value)) input.value = bound ?? "";
    }
  };
  const content = el("div", { class: "range" }, low, el("span", {}, "to"), high);
  return { content, show };
}

function flag(name) {
  const options = [["any", undefined], ["yes", true], ["no", false]];
  const radios = options.map(([, value], i) =>
    el("input", {
      type: "radio",
      name: `flag-${name}`,
      checked: i === 0,
      onchange: () => condition(name, value),
    }),
  );
  const labels = options.map(([label], i) => el("label", { class: "switch" }, radios[i], label));
  const show = (value) => {
    options.forEach(([, option], i) => (radios[i].checked = Object.is(option, value)));
  };
  return { content: el("div", { class: "row" }, labels), show };
}

function texts(name, { values, more = false }) {
  const boxes = values.map((value) => el("input", { type: "checkbox", value, onchange: changed }));
  const labels = boxes.map((box, i) =>
    el("label", { class: "switch" }, box, el("span", { dir: "auto" }, values[i])),
  );
  function changed() {
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    condition(name, chosen.length ? chosen : undefined);
  }
  const show = (chosen) => {
    const all = chosen === undefined ? [] : [chosen].flat();
    boxes.forEach((box) => (box.checked = all.includes(box.value)));
  };
  const list = el("div", { class: "values" }, labels);
  if (more) list.append(el("p", { class: "muted small" }, "and less frequent ones"));
  if (values.length <= FEW) return { content: list, show };
  const narrow = el("input", {
    type: "search",
    placeholder: "Find a value",
    "aria-label": `Find a value of ${plain(name)}`,
    oninput: () => {
      const wanted = narrow.value.trim().toLowerCase();
      labels.forEach((label, i) => (label.hidden = !values[i].toLowerCase().includes(wanted)));
    },
  });
  return { content: el("div", { class: "stack" }, narrow, list), show };
}
