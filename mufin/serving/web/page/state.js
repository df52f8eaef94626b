// What the page shows, as one value; all of it but uploaded pictures is in the address.

export const K = 12;
const LATER = 250; // milliseconds: browsers refuse hundreds of changes of the address per minute

const EMPTY = {
  uids: [], // products of the catalog that are asked about
  avoid: [], // products whose scores count against an answer
  title: "", // of a product that is not in the catalog
  texts: [], // its texts beside the title
  category: [], // its category
  pictures: [], // its pictures, as File; never in the address
  k: K,
  fold: false,
  modalities: null, // null: all
  beta: null, // null: the model's own
  where: {}, // conditions by attribute
  why: null, // the answer whose reasons are shown
  lost: 0, // pictures that a reload of the page took away
};

let state = { ...EMPTY };
const listeners = [];
const uploads = new Map(); // pictures of entries of the history
let number = 0;
let timer = 0;

export const current = () => state;

/** Calls `listener(state, before, again)` after each change; `again`: by the address. */
export const onChange = (listener) => listeners.push(listener);

/** Whether a product is described that is not in the catalog. */
export const describes = (s) =>
  Boolean(s.title.trim()) || [s.texts, s.pictures, s.category].some((given) => given.length > 0);

/** The change that describes no product. */
export const UNDESCRIBED = { title: "", texts: [], category: [], pictures: [] };

/** Whether there is a question: anything but settings. */
export const asked = (s = state) => s.uids.length > 0 || describes(s);

/** Changes the state; `push` makes an entry for the browser's back button. */
export function change(patch, push = false) {
  const before = state;
  if (push) flush();
  state = { ...state, lost: 0, ...patch };
  if (push) write("pushState");
  else if (!timer) timer = setTimeout(flush, LATER);
  tell(before);
}

/** Asks about this product alone, with the same settings. */
export function askAbout(uid) {
  change({ ...UNDESCRIBED, uids: [uid], avoid: [], why: null }, true);
}

/** The address of the state now; changes of the last moments are written first. */
export function address() {
  flush();
  return new URL(search(state), location.href).href;
}

/** The state as the query string of an address, "?" alone for an empty one. */
export function search(s) {
  const out = new URLSearchParams();
  s.uids.forEach((uid) => out.append("p", uid));
  s.avoid.forEach((uid) => out.append("avoid", uid));
  if (s.title) out.set("title", s.title);
  s.texts.forEach((text) => out.append("text", text));
  s.category.forEach((name) => out.append("category", name));
  if (s.k !== K) out.set("k", s.k);
  if (s.fold) out.set("fold", "1");
  if (s.modalities) out.set("by", s.modalities.join(","));
  if (s.beta !== null) out.set("beta", s.beta);
  if (Object.keys(s.where).length) out.set("where", JSON.stringify(s.where));
  if (s.why) out.set("why", s.why);
  return `?${out}`;
}

/** The state that a query string says; what cannot be read counts as absent. */
export function parsed(text) {
  const given = new URLSearchParams(text);
  const distinct = (name) => [...new Set(given.getAll(name).filter(Boolean))];
  const beta = given.has("beta") ? Number(given.get("beta")) : NaN;
  const uids = distinct("p");
  return {
    ...EMPTY,
    uids,
    avoid: distinct("avoid").filter((uid) => !uids.includes(uid)),
    title: given.get("title") ?? "",
    texts: distinct("text"),
    category: given.getAll("category").filter(Boolean),
    k: /^\d{1,6}$/.test(given.get("k") ?? "") ? Number(given.get("k")) : K,
    fold: given.get("fold") === "1",
    modalities: given.get("by")?.split(",").filter(Boolean) ?? null,
    beta: beta >= 0 && beta <= 1 ? beta : null,
    where: conditions(given.get("where")),
    why: given.get("why"),
  };
}

function conditions(text) {
  try {
    const value = JSON.parse(text ?? "{}");
    return value && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

/** Takes the state from the address, now and whenever the person goes back or forward. */
export function start() {
  addEventListener("popstate", () => {
    clearTimeout(timer);
    timer = 0;
    read();
  });
  addEventListener("pagehide", flush);
  read();
}

function read() {
  const before = state;
  const { key, count = 0 } = history.state ?? {};
  const pictures = uploads.get(key) ?? [];
  state = { ...parsed(location.search), pictures, lost: count - pictures.length };
  tell(before, true);
}

function tell(before, again = false) {
  listeners.forEach((listener) => listener(state, before, again));
}

/** Writes the state into the present entry of the history, if it is not there yet. */
function flush() {
  if (!timer) return;
  clearTimeout(timer);
  timer = 0;
  write("replaceState");
}

function write(method) {
  const count = state.pictures.length;
  const key = `${performance.timeOrigin} ${++number}`; // of this load of the page alone
  if (count) uploads.set(key, state.pictures);
  const text = search(state);
  try {
    history[method]({ key, count }, "", text === "?" ? location.pathname : text);
  } catch {
    // too many changes at once: the next one writes it
  }
}
