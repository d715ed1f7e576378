// Which model answers: the choosers, filled from what is served.

import * as api from "./api.js";
import { byId, h } from "./dom.js";

const RETRY_MS = 2000; // while the service loads its models, or serves none
const SHOWN = [3, 5, 10]; // classes on offer, where the model has as many

export class Models {
  #served = null; // not known yet
  #timer = 0;

  /** `changed()` is called when another model, version or number of classes was chosen. */
  constructor(changed) {
    byId("options").addEventListener("submit", (event) => event.preventDefault());
    byId("model").addEventListener("change", () => {
      this.#showVersions();
      changed();
    });
    byId("version").addEventListener("change", () => {
      this.#describe();
      changed();
    });
    byId("top-k").addEventListener("change", changed);
  }

  /** Returns when the models are known; until the service is ready it asks again. */
  async load() {
    while (!(await this.#ask())) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    addEventListener("focus", () => this.#ask()); // they may have changed while one looked elsewhere
  }

  /** Asks once more: with another key, or as the models may have changed. */
  refresh() {
    return this.#ask();
  }

  async #ask() {
    try {
      this.#show(await api.models());
    } catch (failure) {
      if (this.#served === null) byId("model-note").textContent = failure.message;
    }
    clearTimeout(this.#timer);
    if (this.#served?.length === 0) this.#timer = setTimeout(() => this.#ask(), RETRY_MS);
    return this.#served !== null;
  }

  /** What was chosen stays, where it is still served. */
  #show(served) {
    const before = [byId("model").value, byId("version").value];
    this.#served = served;
    if (served.length === 0) {
      for (const id of ["model", "version"]) {
        byId(id).replaceChildren();
        byId(id).disabled = true;
      }
      byId("model-note").textContent = "No model is served just now.";
      return;
    }
    const names = [...new Set(served.map((model) => model.name))];
    byId("model").replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    const first = served.find((model) => model.default) ?? served[0];
    byId("model").value = names.includes(before[0]) ? before[0] : first.name;
    byId("model").disabled = names.length < 2;
    this.#showVersions(before[1]);
  }

  #showVersions(before) {
    const versions = this.#served.filter((model) => model.name === byId("model").value);
    const options = versions.map((model) => h("option", { value: model.version }, called(model)));
    byId("version").replaceChildren(...options);
    const first = versions.find((model) => model.default) ?? versions[0];
    byId("version").value = versions.some((model) => model.version === before) ? before : first.version;
    byId("version").disabled = versions.length < 2;
    this.#describe();
  }

  #describe() {
    const { classes, architecture, provider, precision } = this.#chosen();
    byId("model-note").textContent = `${classes} classes, ${architecture}, ${precision} on ${provider}`;
    this.#offer(SHOWN.map((count) => Math.min(count, classes)));
  }

  /** The number of classes chosen stays, where the model has as many. */
  #offer(counts) {
    const before = Number(byId("top-k").value);
    byId("top-k").replaceChildren(...[...new Set(counts)].map((count) => h("option", {}, String(count))));
    byId("top-k").value = String(counts.find((count) => count >= before) ?? counts.at(-1));
  }

  #chosen() {
    const [name, version] = [byId("model").value, byId("version").value];
    return this.#served?.find((model) => model.name === name && model.version === version);
  }

  /** What `api.classify` takes; without a model where none is served. */
  get choice() {
    const { name, version } = this.#chosen() ?? {};
    return { model: name, version, topK: Number(byId("top-k").value) };
  }
}

/** A version by its number, and by its aliases. */
function called({ version, aliases = [] }) {
  return aliases.length ? `${version} (${aliases.join(", ")})` : version;
}
