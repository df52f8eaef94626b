// Turns the state into a question, and keeps answers in step with it: the latest question wins.

import { recommend } from "./api.js";
import { asked } from "./state.js";

const WAIT = 120; // milliseconds without a further change before a question is sent

/** The JSON of POST /v1/recommend for a state. */
export function query(state) {
  const out = { uids: state.uids, k: state.k, reasons: true };
  if (state.title.trim()) out.title = state.title.trim();
  if (state.texts.length) out.texts = state.texts;
  if (state.category.length) out.category = state.category;
  if (state.avoid.length) out.avoid = state.avoid;
  if (state.fold) out.fold = true;
  if (state.modalities) out.modalities = state.modalities;
  if (state.beta !== null) out.mix = { beta: state.beta };
  if (Object.keys(state.where).length) out.where = state.where;
  return out;
}

let timer = 0;
let running = new AbortController();
let latest = "";
let pictures = [];

/** Asks soon, unless this question was the last one; `on` has waiting, answered, failed, nothing. */
export function ask(state, on, { anew = false, now = false } = {}) {
  if (!asked(state)) return stop(on);
  const text = JSON.stringify(query(state));
  if (!anew && text === latest && same(pictures, state.pictures)) return;
  latest = text;
  pictures = state.pictures;
  clearTimeout(timer);
  running.abort();
  running = new AbortController();
  const { signal } = running;
  on.waiting();
  timer = setTimeout(() => send(state, signal, on), now ? 0 : WAIT);
}

function stop(on) {
  clearTimeout(timer);
  running.abort();
  latest = "";
  pictures = [];
  on.nothing();
}

const same = (a, b) => a.length === b.length && a.every((file, i) => file === b[i]);

async function send(state, signal, on) {
  try {
    const found = await recommend(query(state), state.pictures, signal);
    if (!signal.aborted) on.answered(found, state);
  } catch (error) {
    if (!signal.aborted) on.failed(error);
  }
}
