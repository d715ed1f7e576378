// Two pictures side by side, and how alike the network finds them.

import { byId, h } from "./dom.js";

/** Of two vectors of the same length, -1 to 1. */
export function cosine(a, b) {
  let dot = 0;
  let left = 0;
  let right = 0;
  for (let i = 0; i < a.length; i += 1) {
    dot += a[i] * b[i];
    left += a[i] * a[i];
    right += b[i] * b[i];
  }
  return left && right ? dot / Math.sqrt(left * right) : 0;
}

function inWords(value) {
  if (value > 0.98) return "Almost the same to the network";
  if (value > 0.8) return "Much alike";
  if (value > 0.5) return "Somewhat alike";
  return value > 0.2 ? "Little alike" : "Not alike";
}

/** At most two cards; a third one takes the place of the older. */
export class Comparison {
  #cards = [];
  #turn = 0;

  constructor() {
    byId("tray-close").addEventListener("click", () => this.end());
  }

  toggle(card) {
    if (this.#cards.includes(card)) this.#cards = this.#cards.filter((other) => other !== card);
    else this.#cards = [...this.#cards, card].slice(-2);
    this.show();
  }

  remove(card) {
    if (this.#cards.includes(card)) this.toggle(card);
    card.compared = false;
  }

  end() {
    const [first] = this.#cards;
    for (const card of this.#cards) card.compared = false;
    this.#cards = [];
    this.show();
    first?.element.querySelector(".compare").focus();
  }

  /** Draws it anew; also after the model was changed. */
  async show() {
    this.#turn += 1;
    const turn = this.#turn;
    for (const card of document.querySelectorAll(".card .compare")) card.setAttribute("aria-pressed", "false");
    for (const card of this.#cards) card.compared = true;
    byId("tray").hidden = this.#cards.length === 0;
    byId("tray").classList.toggle("half", this.#cards.length === 1);
    picked(byId("pick-a"), this.#cards[0]);
    picked(byId("pick-b"), this.#cards[1]);
    said("–", "Choose a second picture to compare.", null);
    if (this.#cards.length < 2) return;
    said("…", "Comparing.", null);
    try {
      const value = cosine(...(await Promise.all(this.#cards.map((card) => card.embedding()))));
      if (turn === this.#turn) said(value.toFixed(3), `${inWords(value)}: the cosine similarity of their embeddings.`, value);
    } catch (failure) {
      if (turn === this.#turn) said("–", failure.message, null);
    }
  }
}

function picked(figure, card) {
  const picture = card && h("img", { src: card.url, alt: "" });
  figure.querySelector(".frame").replaceChildren(...(picture ? [picture] : []));
  figure.querySelector("figcaption").textContent = card?.name ?? "";
  figure.classList.toggle("vacant", !card);
}

function said(figure, words, value) {
  byId("cosine").textContent = figure.replace("-", "−");
  byId("cosine-words").textContent = words;
  byId("scale").classList.toggle("known", value !== null);
  byId("scale").style.setProperty("--at", String(((value ?? 0) + 1) / 2));
}
