// Pictures of products. With an API key they are fetched by script, as <img> sends no header.

import { apiKey, request } from "./api.js";
import { el } from "./dom.js";

const MOST = 400; // pictures that are held for the next view
const held = new Map(); // addresses of pictures that were fetched, by path; the oldest first
const waiting = new WeakMap(); // paths of images that are not on the screen yet

const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      load(target, waiting.get(target));
    }
  },
  { rootMargin: "300px" },
);

/** A square picture with a place of fixed size; without a path, or if it fails, a plain one. */
export function picture(path, alt = "") {
  const frame = el("span", { class: "picture" });
  if (!path) return empty(frame, alt);
  const img = el("img", { alt, loading: "lazy", decoding: "async", width: 300, height: 300 });
  img.addEventListener("error", () => empty(frame, alt));
  img.addEventListener("load", () => frame.classList.add("loaded"));
  frame.append(img);
  if (path.startsWith("blob:") || !apiKey()) {
    img.src = path;
  } else {
    waiting.set(img, path);
    observer.observe(img);
  }
  return frame;
}

function empty(frame, alt) {
  frame.classList.add("none");
  frame.replaceChildren(el("span", alt ? { role: "img", "aria-label": alt } : {}, "no picture"));
  return frame;
}

async function load(img, path) {
  try {
    if (!held.has(path)) keep(path, URL.createObjectURL(await (await request(path)).blob()));
    img.src = held.get(path);
  } catch {
    img.dispatchEvent(new Event("error"));
  }
}

function keep(path, address) {
  held.set(path, address);
  if (held.size <= MOST) return;
  const [oldest, old] = held.entries().next().value;
  URL.revokeObjectURL(old);
  held.delete(oldest);
}

const previews = new WeakMap(); // addresses of files that a person gave

/** The address under which an <img> shows a file. */
export function preview(file) {
  if (!previews.has(file)) previews.set(file, URL.createObjectURL(file));
  return previews.get(file);
}
