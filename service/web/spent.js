// Which model answered, and what the time went into.

import { duration, h } from "./dom.js";

const STAGES = [
  ["read", "Read"],
  ["decode", "Decode"],
  ["queue", "Queue"],
  ["infer", "Infer"],
  ["rest", "Rest"],
];

/** `timings` are the service's, in seconds; `seconds` is what the page waited, so the difference is the way there. */
export function showSpent(place, model, timings, seconds) {
  const told = Object.values(timings ?? {}).reduce((sum, value) => sum + value, 0);
  const parts = { ...timings, rest: Math.max(0, seconds - told) };
  const all = Math.max(seconds, told);
  const bar = h("div", { class: "stages", "aria-hidden": "true" });
  const legend = h("dl", { class: "legend" });
  for (const [key, name] of STAGES) {
    if (parts[key] === undefined) continue;
    const piece = h("i", { class: `stage-${key}` });
    piece.style.flexGrow = String(parts[key] / all);
    bar.append(piece);
    const mark = h("i", { class: `stage-${key}`, "aria-hidden": "true" });
    legend.append(h("div", {}, h("dt", {}, mark, name), h("dd", {}, duration(parts[key]))));
  }
  const who = h("p", { class: "who" }, h("b", {}, model.name), ` version ${model.version}, ${duration(seconds)}`);
  place.replaceChildren(who, bar, legend);
}
