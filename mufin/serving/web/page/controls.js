// Settings of a question: what is read of the products, the mix of scores, the number of answers.

import { byId, el, notice, rounded } from "./dom.js";
import { K, change } from "./state.js";

const MODALITIES = {
  text: ["Texts", "the meaning of the title and of other texts"],
  lexical: ["Words", "the very words of the title"],
  image: ["Pictures", "what the pictures show"],
};

let own = { beta: 0.5, modalities: [] };

/** Builds the settings that this model has; `info` is the answer of /v1/model. */
export function start(info) {
  own = { beta: info.mix.beta, modalities: info.modalities };
  byId("modalities").replaceChildren(...info.modalities.map(modality));
  byId("modality-box").hidden = info.modalities.length < 2;
  byId("mix").hidden = info.mix.network_weight === 0; // there, beta changes nothing
  byId("own-mark").style.setProperty("--part", own.beta);
  byId("own-value").textContent = `The model's own value is ${rounded(own.beta)}.`;
  byId("beta").addEventListener("input", () => change({ beta: Number(byId("beta").value) }));
  byId("beta-reset").addEventListener("click", () => change({ beta: null }));
  byId("fold").addEventListener("change", () => change({ fold: byId("fold").checked }));
  byId("k").addEventListener("input", () => {
    const k = byId("k").valueAsNumber;
    if (Number.isInteger(k) && k >= 1) change({ k });
  });
  byId("k").addEventListener("blur", () => {
    if (!(byId("k").valueAsNumber >= 1)) change({ k: K });
  });
}

function modality(name) {
  const [title, meaning] = MODALITIES[name] ?? [name, ""];
  const box = el("input", { type: "checkbox", value: name, onchange: switched });
  return el("label", { class: "switch", title: meaning }, box, el("span", {}, title));
}

const boxes = () => [...byId("modalities").querySelectorAll("input")];

function switched(event) {
  const chosen = boxes().filter((box) => box.checked);
  if (!chosen.length) {
    event.target.checked = true;
    notice("One of them must stay on.");
    return;
  }
  const all = chosen.length === own.modalities.length;
  change({ modalities: all ? null : chosen.map((box) => box.value) });
}

/** On a phone the settings begin closed; beside the answers they are always open. */
export function startFolding() {
  const wide = matchMedia("(min-width: 800px)");
  const fit = () => (byId("settings").open = wide.matches);
  wide.addEventListener("change", fit);
  fit();
}

/** Shows the settings of a state. */
export function show(state) {
  const on = state.modalities ?? own.modalities;
  boxes().forEach((box) => (box.checked = on.includes(box.value)));
  const beta = state.beta ?? own.beta;
  byId("beta").value = beta;
  byId("beta").setAttribute(
    "aria-valuetext",
    `${rounded(beta)}: ${Math.round(100 * beta)} % classifier, the rest similarity`,
  );
  byId("beta-value").textContent = rounded(beta);
  byId("beta-reset").hidden = state.beta === null;
  byId("fold").checked = state.fold;
  if (byId("k").valueAsNumber !== state.k) byId("k").value = state.k;
}
