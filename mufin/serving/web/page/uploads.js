// Pictures that a person gives: chosen, dropped anywhere on the page, or pasted.

import { byId, el, iconButton, notice } from "./dom.js";
import { picture, preview } from "./pictures.js";

export const MOST = 16; // per product, as the server's limit

/** The pictures among these files; says how many of them are none. */
export function onlyPictures(files) {
  const kept = [...files].filter((file) => file.type.startsWith("image/"));
  const dropped = files.length - kept.length;
  if (dropped) notice(`${dropped} of ${files.length} files left out: not a picture.`);
  return kept;
}

/** `before` and then `added`, at most as many as a product may have. */
export function joined(before, added) {
  const all = [...before, ...added];
  if (all.length > MOST) notice(`A product has at most ${MOST} pictures; the first ones were kept.`);
  return all.slice(0, MOST);
}

/** Shows files as small pictures with a button each that removes it. */
export function showThumbnails(list, files, onremove) {
  list.replaceChildren(
    ...files.map((file, i) => {
      const name = `Remove picture ${i + 1}${file.name ? `, ${file.name}` : ""}`;
      const remove = () => {
        onremove(files.filter((other) => other !== file));
        (list.querySelectorAll("button")[Math.min(i, files.length - 2)] ?? list).focus();
      };
      const shown = picture(preview(file), `picture ${i + 1}`);
      return el("li", { class: "thumbnail" }, shown, iconButton("cross", name, remove));
    }),
  );
}

/** Calls `onfiles` with the pictures of a file field, and lets the same file be chosen again. */
export function listen(input, onfiles) {
  input.addEventListener("change", () => {
    const files = onlyPictures(input.files);
    input.value = "";
    if (files.length) onfiles(files);
  });
}

/** Takes pictures that are dropped on the page or pasted; `target()` says who gets them. */
export function takeDropped(target) {
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0; // dragenter and dragleave come for every element below the pointer
  const show = (on) => byId("drop").classList.toggle("over", on);
  addEventListener("dragenter", (event) => {
    if (holdsFiles(event)) show((depth += 1) > 0);
  });
  addEventListener("dragleave", (event) => {
    if (holdsFiles(event)) show((depth = Math.max(0, depth - 1)) > 0);
  });
  addEventListener("dragover", (event) => {
    if (holdsFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    show((depth = 0) > 0);
    give(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    const typing = event.target.matches?.("input, textarea");
    if (typing && event.clipboardData.types.includes("text/plain")) return; // text with pictures
    event.preventDefault();
    give(event.clipboardData.files);
  });
  const give = (files) => {
    const kept = onlyPictures(files);
    if (kept.length) target()(kept);
  };
}
