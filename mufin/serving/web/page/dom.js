// Elements made from data. Text from the server only ever becomes a text node.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element: `el("a", {class: "card", href: "?p=1", onclick: f}, "text", child)`. */
export function el(name, options = {}, ...children) {
  return filled(document.createElement(name), options, children);
}

/** The same for an element of SVG. */
export function svg(name, options = {}, ...children) {
  return filled(document.createElementNS(SVG, name), options, children);
}

function filled(element, options, children) {
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Text that only a screen reader says. */
export const spoken = (text) => el("span", { class: "spoken" }, text);

const NOTICE = 4000; // milliseconds

let state = ""; // what the live region says while there is no notice
let timer = 0;

/** Says how things stand in the polite live region; a notice is not cut short by it. */
export function say(text) {
  state = text;
  if (!timer) byId("status").textContent = state;
}

/** Says what has just happened, for a few seconds. */
export function notice(text) {
  clearTimeout(timer);
  timer = setTimeout(endNotice, NOTICE);
  byId("status").textContent = text;
}

/** Says again how things stand. */
export function endNotice() {
  clearTimeout(timer);
  timer = 0;
  byId("status").textContent = state;
}

/** Shows an error with a button to try again, or hides it if the text is empty. */
export function showError(text, again = null) {
  const box = byId("error");
  const button = again && el("button", { type: "button", class: "plain", onclick: again });
  if (button) button.textContent = "Try again";
  box.replaceChildren(...(text ? [el("p", {}, text), ...(button ? [button] : [])] : []));
  box.hidden = !text;
}

const ICONS = {
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  cross: "M4 4l8 8M12 4l-8 8",
  pencil: "M3 13l.8-3L11 2.8 13.2 5 6 12.2 3 13z",
  thumb: "M8 13V3M4 9l4 4 4-4",
};

/** A button that shows an icon and is named by a text. */
export function iconButton(icon, name, onclick, options = {}) {
  const picture = svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" });
  picture.append(svg("path", { d: ICONS[icon] }));
  const given = { type: "button", class: "icon-button", title: name, "aria-label": name, onclick };
  return el("button", { ...given, ...options }, picture);
}

/** A number with at most `digits` digits after the point. */
export const rounded = (value, digits = 2) => String(Number(value.toFixed(digits)));
