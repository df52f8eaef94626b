// The HTTP API: every request of the page goes through here.

import { say } from "./dom.js";
import { keep, kept } from "./storage.js";

const KEY = "mufin-api-key";
const LONGEST = 10; // seconds that the page waits for a server that is busy

/** What a server refused, or that there was none; `message` is a sentence for the person. */
export class ApiError extends Error {
  constructor(message, status = 0, field = null) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

export const apiKey = () => kept("sessionStorage", KEY);
export const keepApiKey = (key) => keep("sessionStorage", KEY, key);

/** The response to a request; raises ApiError. A busy server is asked once more. */
export async function request(path, options = {}, retry = true) {
  const headers = { ...options.headers };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const why = navigator.onLine ? "the server does not answer" : "this device is offline";
    throw new ApiError(`Nothing was loaded: ${why}. Try again when it is back.`);
  }
  if (response.ok) return response;
  if (response.status === 503 && retry) {
    const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST);
    say(`The server is busy; trying again in ${seconds} s.`);
    await pause(seconds * 1000, options.signal);
    return request(path, options, false);
  }
  throw await refusal(response);
}

async function refusal(response) {
  const content = await response.json().catch(() => ({}));
  const said = typeof content.error === "string" ? content.error : "";
  const text = said || `The server answered with the status ${response.status}; try again later`;
  const counted = text.replace(/images\.(\d+)/g, (_, number) => `picture ${Number(number) + 1}`);
  const whole = /[.!?]$/.test(counted) ? counted : `${counted}.`;
  return new ApiError(whole, response.status, content.field ?? null);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

const json = async (path, options) => (await request(path, options)).json();

/** A body as JSON, or as a form if there are pictures. */
function body(part, content, pictures) {
  if (!pictures.length) {
    const headers = { "Content-Type": "application/json" };
    return { headers, body: JSON.stringify(content) };
  }
  const form = new FormData();
  form.append(part, JSON.stringify(content));
  pictures.forEach((file) => form.append("images", file, file.name || "picture"));
  return { body: form };
}

export const model = () => json("/v1/model");

export function recommend(query, pictures, signal) {
  return json("/v1/recommend", { method: "POST", signal, ...body("query", query, pictures) });
}

/** Products whose title or id contains the text; all if it is empty. */
export async function find(text, limit, signal) {
  const query = new URLSearchParams({ text, limit });
  return (await json(`/v1/products?${query}`, { signal })).products;
}

const path = (uid) => `/v1/products/${encodeURIComponent(uid)}`;
const known = new Map(); // promises of products by uid

/** What the server knows of a product; raises ApiError, with status 404 for an unknown one. */
export function product(uid) {
  if (!known.has(uid)) {
    const found = json(path(uid));
    found.catch(() => known.delete(uid));
    known.set(uid, found);
  }
  return known.get(uid);
}

export async function putProduct(uid, content, pictures) {
  const sent = json(path(uid), { method: "PUT", ...body("product", content, pictures) });
  known.delete(uid);
  return sent;
}

export async function deleteProduct(uid) {
  await request(path(uid), { method: "DELETE" });
  known.delete(uid);
}
