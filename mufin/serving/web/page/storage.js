// What a browser keeps for the page; one that keeps nothing forgets it with the page.

const forgotten = new Map();

/** The text that was kept under a name, "" for none; `area` is "localStorage" or the other. */
export function kept(area, name) {
  try {
    return window[area].getItem(name) ?? "";
  } catch {
    return forgotten.get(name) ?? "";
  }
}

export function keep(area, name, text) {
  try {
    window[area].setItem(name, text);
  } catch {
    forgotten.set(name, text);
  }
}
