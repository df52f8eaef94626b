// Adds, changes and removes products of the catalog while the server runs.

import { deleteProduct, product, putProduct, request } from "./api.js";
import { byId, el, notice } from "./dom.js";
import { asLines, textsIn } from "./texts.js";
import { joined, listen, showThumbnails } from "./uploads.js";

let files = [];
let kinds = {}; // of the attributes of the model, by name
let done = () => {};

/** `changed(uid)` is called after each change that the server has kept. */
export function start(attributes, changed) {
  kinds = attributes;
  done = changed;
  const dialog = byId("editor");
  byId("edit").addEventListener("click", () => show());
  byId("edit-load").addEventListener("click", () => load(byId("edit-uid").value.trim()));
  byId("edit-close").addEventListener("click", () => dialog.close());
  byId("edit-remove").addEventListener("click", () => tried(remove));
  byId("edit-form").addEventListener("submit", (event) => {
    event.preventDefault();
    tried(save);
  });
  listen(byId("edit-files"), give);
  addEventListener("edit-product", (event) => {
    show();
    byId("edit-uid").value = event.detail;
    load(event.detail);
  });
}

/** Whether the form is open, so that dropped pictures are for it. */
export const isOpen = () => byId("editor").open;

/** Adds pictures to the product in the form. */
export const give = (added) => pictures(joined(files, added));

function pictures(now) {
  files = now;
  showThumbnails(byId("edit-pictures"), files, pictures);
}

function show() {
  byId("edit-form").reset();
  fill({ title: "", texts: [], category: [], attributes: {} });
  pictures([]);
  message("");
  byId("editor").showModal();
}

function fill({ title, texts, category, attributes }) {
  byId("edit-title").value = title;
  byId("edit-texts").value = asLines(texts);
  byId("edit-category").value = category.join(" > ");
  const names = new Set([...Object.keys(kinds), ...Object.keys(attributes)]);
  names.delete("category");
  const fields = [...names].map((name) => field(name, kinds[name]?.kind, attributes[name]));
  byId("edit-attributes").replaceChildren(...fields);
}

/** The field of an attribute; one without a value leaves the attribute out. */
function field(name, kind, value) {
  const shared = { "data-name": name };
  if (kind === "flag" || typeof value === "boolean") {
    const options = ["", "yes", "no"].map((text) => el("option", { value: text }, text || "—"));
    const input = el("select", { ...shared, "data-kind": "flag" }, options);
    input.value = value === undefined || value === null ? "" : value ? "yes" : "no";
    return el("label", {}, name, input);
  }
  const number = kind === "number" || typeof value === "number";
  const type = number ? { type: "number", step: "any", "data-kind": "number" } : { type: "text" };
  return el("label", {}, name, el("input", { ...shared, ...type, value: value ?? "" }));
}

/** The product that the form describes. */
function given() {
  const attributes = {};
  for (const input of byId("edit-attributes").querySelectorAll("[data-name]")) {
    const { name, kind } = input.dataset;
    if (input.value === "") continue;
    attributes[name] =
      kind === "flag" ? input.value === "yes" : kind === "number" ? Number(input.value) : input.value;
  }
  return {
    title: byId("edit-title").value.trim(),
    texts: textsIn(byId("edit-texts")),
    category: byId("edit-category").value.split(">").map((name) => name.trim()).filter(Boolean),
    attributes,
  };
}

/** Fills the form with what the server knows, pictures too: saving replaces all of a product. */
async function load(uid) {
  if (!uid) return message("Give the id of a product.");
  message("Loading …");
  try {
    const found = await product(uid);
    const kept = await Promise.all(found.pictures.map(file));
    if (byId("edit-uid").value.trim() !== uid) return;
    fill(found);
    pictures(kept);
    message("This is what the server has. Saving replaces all of it.");
  } catch (error) {
    message(error.message);
  }
}

async function file(path, i) {
  const content = await (await request(path)).blob();
  return new File([content], `picture-${i + 1}`, { type: content.type });
}

async function exists(uid) {
  try {
    await product(uid);
    return true;
  } catch (error) {
    if (error.status === 404) return false;
    throw error;
  }
}

async function save(uid) {
  const there = await exists(uid);
  if (there && !(await confirmed(`Replace ${uid} by what the form says?`, "Replace"))) return "";
  const kept = await putProduct(uid, given(), files);
  done(uid);
  const use = kept.answerable ? "it can be an answer from now on" : "it is not an answer";
  return `${uid} is ${there ? "changed" : "added"}; ${use}.`;
}

async function remove(uid) {
  const question = `Remove ${uid} from the catalog? It will be no answer any more.`;
  if (!(await confirmed(question, "Remove"))) return "";
  await deleteProduct(uid);
  done(uid);
  return `${uid} is removed.`;
}

/** Does a change of the product in the form, and says how it went. */
async function tried(action) {
  const uid = byId("edit-uid").value.trim();
  if (!uid) {
    message("Give the id of a product.");
    return byId("edit-uid").focus();
  }
  message("Waiting for the server …");
  byId("edit-form").setAttribute("aria-busy", "true");
  try {
    const text = await action(uid);
    message(text);
    if (text) notice(text);
  } catch (error) {
    message(error.message, true);
  }
  byId("edit-form").removeAttribute("aria-busy");
}

function message(text, wrong = false) {
  byId("edit-message").textContent = text;
  byId("edit-message").classList.toggle("warning", wrong);
}

/** Asks yes or no in a dialog of its own; whoever closes it says no. */
function confirmed(question, yes) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent = question;
  byId("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
