// Light or dark: as the system has it, until a person chooses.

import { byId } from "./dom.js";
import { keep, kept } from "./storage.js";

const NAME = "mufin-theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const TEXT = { auto: "system", light: "light", dark: "dark" };

function show(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${TEXT[theme]}`;
}

export function start() {
  let theme = kept("localStorage", NAME);
  if (!(theme in NEXT)) theme = "auto";
  show(theme);
  byId("theme").addEventListener("click", () => {
    theme = NEXT[theme];
    keep("localStorage", NAME, theme);
    show(theme);
  });
}
