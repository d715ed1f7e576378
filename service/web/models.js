// Which model answers: the choosers, filled from what is served.

import * as api from "./api.js";
import { byId, h } from "./dom.js";

const RETRY_MS = 2000; // while the service loads its models

export class Models {
  #served = [];

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
    for (;;) {
      try {
        this.#served = await api.models();
        if (this.#served.length > 0) break;
      } catch (failure) {
        byId("model-note").textContent = failure.message;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
    const names = [...new Set(this.#served.map((model) => model.name))];
    byId("model").replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    byId("model").value = (this.#served.find((model) => model.default) ?? this.#served[0]).name;
    byId("model").disabled = names.length < 2;
    this.#showVersions();
  }

  #showVersions() {
    const versions = this.#served.filter((model) => model.name === byId("model").value);
    const options = versions.map((model) => h("option", { value: model.version }, model.version));
    byId("version").replaceChildren(...options);
    byId("version").value = (versions.find((model) => model.default) ?? versions[0]).version;
    byId("version").disabled = versions.length < 2;
    this.#describe();
  }

  #describe() {
    const { classes, architecture, provider, precision } = this.#chosen();
    byId("model-note").textContent = `${classes} classes, ${architecture}, ${precision} on ${provider}`;
  }

  #chosen() {
    const [name, version] = [byId("model").value, byId("version").value];
    return this.#served.find((model) => model.name === name && model.version === version);
  }

  /** What `api.classify` takes. */
  get choice() {
    const { name, version, classes } = this.#chosen();
    return { model: name, version, topK: Math.min(Number(byId("top-k").value), classes) };
  }
}
