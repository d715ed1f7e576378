// One picture: what the network sees in it, where, and what that took.

import { classify, embed, explain, Failure } from "./api.js";
import { announce, byId, bytes, h, percent } from "./dom.js";
import { draw } from "./heatmap.js";
import { showFailure } from "./failure.js";
import { showSpent } from "./spent.js";

const HINT = "Choose a class to see where in the picture it comes from.";

export class Card {
  #choice = null; // {model, version, topK} that the predictions are of
  #work = new AbortController();
  #heat = null; // index of the class whose map is shown
  #maps = new Map(); // by class index: the API's heatmaps
  #embeddings = new Map(); // by model and version
  #renewed; // resolves to what is chosen of what is served now

  /** `on` has `remove(card)`, `compare(card)` and `renewed()`, the choice after the models were asked for anew. */
  constructor(file, name, on) {
    this.#renewed = on.renewed;
    this.file = file;
    this.name = name;
    this.url = URL.createObjectURL(file);
    this.element = byId("card").content.firstElementChild.cloneNode(true);
    this.#find("h3").textContent = name;
    this.#find("h3").title = name;
    this.#find(".remove").setAttribute("aria-label", `Remove ${name}`);
    this.#find(".remove").addEventListener("click", () => on.remove(this));
    this.#find(".compare").setAttribute("aria-label", `Compare ${name}`);
    this.#find(".compare").addEventListener("click", () => on.compare(this));
    this.#find(".again").addEventListener("click", () => this.classify(this.#choice, true));
    this.#find(".opacity input").addEventListener("input", () => this.#setOpacity());
    this.#showPicture();
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }

  #showPicture() {
    const image = this.#find("img");
    image.alt = this.name;
    this.#find(".facts").textContent = bytes(this.file.size);
    image.addEventListener("load", () => {
      this.#setRatio(image.naturalWidth, image.naturalHeight);
      this.#find(".facts").textContent = `${image.naturalWidth} × ${image.naturalHeight}, ${bytes(this.file.size)}`;
    });
    image.addEventListener("error", () => {
      this.#find(".picture").hidden = true;
      this.#find(".no-preview").hidden = false;
    });
    image.src = this.url;
  }

  #setRatio(width, height) {
    this.#find(".picture").style.setProperty("--ratio", String(width / height));
  }

  /** Ask the service; a question still open is given up. With `anew`, `choice` may not be served any more. */
  async classify(choice, anew = false) {
    if (!this.element.isConnected) return; // removed
    this.#work.abort();
    this.#work = new AbortController();
    const { signal } = this.#work;
    this.#choice = choice;
    this.#maps.clear();
    this.#hideHeat();
    this.#wait();
    try {
      const answer = await (anew ? this.#askAnew(signal) : this.#ask(signal));
      if (signal.aborted) return;
      this.#showPredictions(answer);
    } catch (failure) {
      if (signal.aborted) return;
      showFailure(this.element, this.name, failure);
    } finally {
      if (!signal.aborted) this.element.setAttribute("aria-busy", "false");
    }
  }

  async #ask(signal) {
    try {
      return await classify(this.file, this.#choice, signal);
    } catch (failure) {
      if (failure.code !== "unknown_model") throw failure;
      return this.#askAnew(signal);
    }
  }

  async #askAnew(signal) {
    const choice = await this.#renewed();
    signal.throwIfAborted();
    this.#choice = choice;
    if (!choice.model) throw new Failure("no_model", "No model is served just now.");
    return classify(this.file, choice, signal);
  }

  #wait() {
    this.element.setAttribute("aria-busy", "true");
    this.element.classList.remove("failed");
    this.#find(".failure").hidden = true;
    this.#find(".warning").hidden = true;
    const rows = Array.from({ length: this.#choice.topK }, () => h("li", { class: "waiting", "aria-hidden": "true" }));
    this.#find(".predictions").replaceChildren(...rows);
    this.#find(".predictions").hidden = false;
    this.#find(".spent").replaceChildren();
    this.#find(".heat").hidden = false;
    this.#note(HINT);
  }

  #showPredictions({ predictions, scores, timings, model, seconds }) {
    this.#find(".predictions").replaceChildren(...predictions.map((prediction) => this.#row(prediction)));
    this.#find(".warning").hidden = !scores?.out_of_distribution;
    this.#find(".warning").textContent = "Unlike the images this model was trained on: read the classes with care.";
    showSpent(this.#find(".spent"), model, timings, seconds);
    const [best] = predictions;
    announce(best ? `${this.name}: ${best.label}, ${percent(best.probability)}` : `${this.name}: no class`);
  }

  #row(prediction) {
    const bar = h("i", { class: "fill" });
    bar.style.setProperty("--share", String(prediction.probability));
    const button = h(
      "button",
      { type: "button", class: "prediction", "aria-pressed": "false", "data-index": prediction.index },
      h("span", { class: "label" }, prediction.label),
      h("span", { class: "track", "aria-hidden": "true" }, bar),
      h("span", { class: "percent" }, percent(prediction.probability)),
    );
    button.addEventListener("click", () => this.#toggleHeat(prediction));
    return h("li", {}, button);
  }

  async #toggleHeat({ index, label }) {
    if (this.#heat === index) {
      this.#hideHeat();
      this.#note(HINT);
      return;
    }
    this.#press(index);
    this.#heat = index;
    const { signal } = this.#work;
    try {
      if (!this.#maps.has(index)) this.#maps.set(index, await explain(this.file, this.#choice, index, signal));
      if (this.#heat !== index || signal.aborted) return;
      this.#showHeat(this.#maps.get(index), label);
    } catch (failure) {
      if (this.#heat !== index || signal.aborted) return;
      this.#hideHeat();
      this.#note(`There is no map of ${label}: ${failure.message}.`);
    }
  }

  #showHeat(map, label) {
    const canvas = this.#find("canvas");
    draw(canvas, map);
    canvas.setAttribute("aria-label", `Map of where ${label} is seen in ${this.name}`);
    canvas.hidden = false;
    this.#find(".opacity").hidden = false;
    this.#setOpacity();
    this.#note(`Where the network sees ${label}: bright parts speak for it.`);
  }

  #hideHeat() {
    this.#heat = null;
    this.#press(null);
    this.#find("canvas").hidden = true;
    this.#find(".opacity").hidden = true;
  }

  #press(index) {
    for (const button of this.element.querySelectorAll(".prediction")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.index) === index));
    }
  }

  #note(text) {
    this.#find(".heat-note").textContent = text;
  }

  #setOpacity() {
    const slider = this.#find(".opacity input");
    this.#find("canvas").style.opacity = String(Number(slider.value) / 100);
    slider.setAttribute("aria-valuetext", `${slider.value} %`);
  }

  set compared(chosen) {
    this.#find(".compare").setAttribute("aria-pressed", String(chosen));
  }

  /** The picture's embedding under the model that the card shows; asked for once. */
  embedding() {
    const key = JSON.stringify([this.#choice.model, this.#choice.version]);
    if (!this.#embeddings.has(key)) {
      const asked = embed(this.file, this.#choice);
      asked.catch(() => this.#embeddings.delete(key)); // asked again the next time
      this.#embeddings.set(key, asked);
    }
    return this.#embeddings.get(key);
  }

  discard() {
    this.#work.abort();
    this.element.remove();
    URL.revokeObjectURL(this.url);
  }
}
