// How the service is doing, drawn from its own metrics while one looks.

import * as api from "./api.js";
import { Bars, Lines } from "./chart.js";
import { announce, byId, duration, h, number } from "./dom.js";
import { EVERY_S, History, LOOKS } from "./history.js";

const SPAN_S = EVERY_S * LOOKS;
const STATE_EVERY_S = 10; // where the state is all there is to see

export class Status {
  #history = new History();
  #timer = 0;
  #paused = false;
  #shown = false;
  #apart = false; // the metrics are on a port of their own
  #state = "";
  #tiles = new Map();
  #throughput = new Lines("Images a second", [{ key: "images", name: "Images a second" }], SPAN_S, { format: number, least: 4 });
  #latency = new Lines(
    "Latency",
    [
      { key: "p50", name: "p50" },
      { key: "p95", name: "p95" },
      { key: "p99", name: "p99" },
    ],
    SPAN_S,
    { format: duration, empty: "No requests in this time" },
  );
  #queue = new Lines("Images in the service", [{ key: "held", name: "held" }, { key: "queue", name: "queued" }], SPAN_S, { format: number, least: 4 });
  #batches = new Bars("Batch sizes", { format: number, least: 4, empty: "No batches yet" });
  #refusals = new Lines("Not served, a second", [{ key: "refused", name: "refused" }, { key: "failed", name: "failed" }], SPAN_S, { format: number, least: 1 });
  #slots = new Lines("Slots busy", [{ key: "busy", name: "Slots busy" }], SPAN_S, { format: number, least: 2 });

  constructor() {
    const charts = [this.#throughput, this.#latency, this.#queue, this.#batches, this.#refusals, this.#slots];
    byId("charts").append(...charts.map((chart) => chart.element));
    for (const [key, name] of TILES) {
      const [value, note] = [h("span", { class: "value" }, "–"), h("span", { class: "note" }, " ")];
      this.#tiles.set(key, { value, note });
      byId("tiles").append(h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, note)));
    }
    byId("pause").addEventListener("click", () => this.#pause(!this.#paused));
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#halt() : this.#go()));
  }

  start() {
    this.#shown = true;
    this.#showModels();
    this.#go();
  }

  stop() {
    this.#shown = false;
    this.#halt();
  }

  #pause(paused) {
    this.#paused = paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    announce(paused ? "Paused" : "Goes on");
    if (paused) this.#halt();
    else this.#go();
  }

  #halt() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  #go() {
    if (!this.#shown || this.#paused || document.hidden || this.#timer) return;
    this.#timer = setTimeout(() => this.#look(), 0);
  }

  async #look() {
    const timer = this.#timer;
    try {
      const [text, reason] = await Promise.all([this.#metrics(), api.unready()]);
      if (text !== null) this.#history.add(text, performance.now() / 1000);
      this.#showState(reason);
      if (text !== null) this.#show();
      this.#notice("");
    } catch (failure) {
      this.#tell("state", "No answer", failure.message);
      this.#notice(failure.message);
    }
    // Nothing new where it was halted meanwhile.
    if (this.#timer === timer) this.#timer = setTimeout(() => this.#look(), (this.#apart ? STATE_EVERY_S : EVERY_S) * 1000);
  }

  /** Null where they are on a port of their own. */
  async #metrics() {
    if (this.#apart) return null;
    try {
      return await api.metrics();
    } catch (failure) {
      if (failure.status !== 404) throw failure;
      this.#showApart();
      return null;
    }
  }

  #showApart() {
    this.#apart = true;
    byId("status-lead").textContent = "The metrics are on a port of their own (RESNET_METRICS_PORT): here is the state alone.";
    for (const [key, { value }] of this.#tiles) value.closest(".tile").hidden = key !== "state";
    byId("charts").hidden = true;
    document.querySelector("footer [href=metrics]").hidden = true;
  }

  #notice(text) {
    byId("status-notice").hidden = !text;
    if (byId("status-notice").textContent !== text) byId("status-notice").textContent = text;
  }

  #showState(reason) {
    const { last } = this.#history;
    const state = reason ? "Not ready" : "Ready";
    if (this.#state && this.#state !== state) announce(`The service is ${state.toLowerCase()}`);
    this.#state = state;
    const workers = last ? `${number(last.workers)} ${last.workers === 1 ? "worker" : "workers"}` : "";
    this.#tell("state", state, reason || workers);
  }

  #show() {
    const { last, points, batches } = this.#history;
    const now = points.at(-1);
    this.#tell("images", number(now?.images ?? NaN), `${number(last.images)} since the start`);
    this.#tell("requests", number(now?.requests ?? NaN), `${number(last.requests)} since the start`);
    this.#tell("p95", duration(now?.p95 ?? NaN), now?.p50 ? `median ${duration(now.p50)}` : "no requests just now");
    this.#tell("queue", number(last.queue), `${number(last.held)} in the service`);
    this.#tell("batch", number(last.batchCount ? last.batchImages / last.batchCount : NaN), `${number(last.batchCount)} batches`);
    this.#tell("slots", `${number(last.busy)} of ${number(last.slots)}`, "at this moment");
    this.#tell("refused", number(last.refused), `${number(last.failed)} failed`);
    for (const chart of [this.#throughput, this.#latency, this.#queue, this.#refusals, this.#slots]) chart.show(points);
    const sizes = batches.sizes.map(([bound, count], i, all) => [bracket(bound, all[i - 1]?.[0] ?? 0), count]);
    this.#batches.show(sizes.slice(0, Math.max(6, sizes.findLastIndex(([, count]) => count > 0) + 1)), batches.recent ? "last minutes" : "since the start");
  }

  #tell(key, value, note) {
    const tile = this.#tiles.get(key);
    tile.value.textContent = value;
    tile.note.textContent = note;
  }

  async #showModels() {
    let served;
    try {
      served = await api.models();
    } catch {
      return; // the notice says why
    }
    const rows = served.map((m) => h("tr", {}, h("th", { scope: "row" }, m.name), ...[m.version, m.architecture, number(m.classes), m.provider, m.precision].map((text) => h("td", {}, text))));
    const heads = ["Name", "Version", "Architecture", "Classes", "Runs on", "Precision"].map((text) => h("th", { scope: "col" }, text));
    byId("status-models").replaceChildren(h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows));
  }
}

const TILES = [
  ["state", "State"],
  ["images", "Images a second"],
  ["requests", "Requests a second"],
  ["p95", "95 % within"],
  ["queue", "Queue"],
  ["batch", "Images a batch"],
  ["slots", "Slots busy"],
  ["refused", "Refused"],
];

/** A bucket's name: "1", "2", "3–4", "65–128", "> 256". */
function bracket(bound, below) {
  if (bound === Infinity) return `> ${below}`;
  return bound - below <= 1 ? String(bound) : `${below + 1}–${bound}`;
}
