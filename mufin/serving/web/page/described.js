// The form of a product that is not in the catalog: title, further texts, category, pictures.

import { byId } from "./dom.js";
import { asked, change, current, describes } from "./state.js";
import { asLines, textsIn } from "./texts.js";
import { joined, listen, showThumbnails } from "./uploads.js";

export function start() {
  byId("title").addEventListener("input", () => described({ title: byId("title").value }));
  byId("texts").addEventListener("input", () => described({ texts: textsIn(byId("texts")) }));
  byId("category").addEventListener("input", () => {
    const names = byId("category").value.split(">").map((name) => name.trim());
    described({ category: names.filter(Boolean) });
  });
  listen(byId("files"), give);
}

/** A question that was empty before gets an entry of the history of its own. */
function described(patch) {
  change({ ...patch, why: null }, !asked());
}

/** Adds pictures to the described product. */
export function give(files) {
  described({ pictures: joined(current().pictures, files) });
}

/** Shows the described product of a state; what a person is typing is left alone. */
export function show(state) {
  const { pictures, title, texts, category, lost } = state;
  if (byId("title").value !== title) byId("title").value = title;
  if (document.activeElement !== byId("texts")) byId("texts").value = asLines(texts);
  if (document.activeElement !== byId("category")) byId("category").value = category.join(" > ");
  showThumbnails(byId("thumbnails"), pictures, (kept) => described({ pictures: kept }));
  if (describes(state)) byId("describe").open = true;
  byId("lost").hidden = !lost;
  byId("lost").textContent =
    lost === 1
      ? "1 picture of this view was not kept; add it again."
      : `${lost} pictures of this view were not kept; add them again.`;
}
