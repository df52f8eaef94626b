// Light or dark: as the system has it, until a person chooses.

import { byId } from "./dom.js";

const NAME = "mufin-theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const TEXT = { auto: "system", light: "light", dark: "dark" };

function show(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${TEXT[theme]}`;
}

export function start() {
  let theme = localStorage.getItem(NAME);
  if (!(theme in NEXT)) theme = "auto";
  show(theme);
  byId("theme").addEventListener("click", () => {
    theme = NEXT[theme];
    localStorage.setItem(NAME, theme);
    show(theme);
  });
}
