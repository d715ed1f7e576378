// The service's metrics over the last minutes: what each look at them tells, beside the looks before it.

import { buckets, parse, quantile, separate, since, sum } from "./prometheus.js";

export const EVERY_S = 2;
export const LOOKS = 90; // kept: three minutes
const SMOOTH = 5; // looks that percentiles are taken over: a few requests make no percentile

const forModels = ({ model }) => Boolean(model); // requests that reached a model: not those of this page
const refused = ({ reason }) => reason !== "cancelled" && reason !== "too_large";
const failed = ({ code, model }) => Boolean(model) && code.startsWith("5") && code !== "503" && code !== "504";

function look(text, at) {
  const samples = parse(text);
  return {
    at,
    images: sum(samples, "resnet_images_total"),
    requests: sum(samples, "resnet_requests_total", forModels),
    refused: sum(samples, "resnet_rejected_total", refused),
    failed: sum(samples, "resnet_requests_total", failed),
    latency: buckets(samples, "resnet_request_seconds", forModels),
    batches: buckets(samples, "resnet_batch_images"),
    batchImages: sum(samples, "resnet_batch_images_sum"),
    batchCount: sum(samples, "resnet_batch_images_count"),
    queue: sum(samples, "resnet_queue_images"),
    held: sum(samples, "resnet_images_held"),
    slots: sum(samples, "resnet_slots"),
    busy: sum(samples, "resnet_slots_busy"),
    workers: sum(samples, "resnet_workers_ready"),
  };
}

export class History {
  #looks = [];
  points = []; // one for each pair of looks

  /** `at` in seconds. */
  add(text, at) {
    const now = look(text, at);
    const before = this.#looks.at(-1);
    const earlier = this.#looks.at(-SMOOTH) ?? this.#looks[0];
    this.#looks = [...this.#looks, now].slice(-LOOKS - 1);
    if (before) this.points = [...this.points, point(before, earlier, now)].slice(-LOOKS);
  }

  get last() {
    return this.#looks.at(-1);
  }

  /** Batches by size, `[upper bound, count]`: since the first look kept, or since the start where none came since. */
  get batches() {
    const recent = since(this.#looks[0].batches, this.last.batches);
    const some = (recent.at(-1)?.[1] ?? 0) > 0;
    return { recent: some, sizes: separate(some ? recent : this.last.batches) };
  }
}

function point(before, earlier, now) {
  const seconds = now.at - before.at;
  const rate = (key) => Math.max(0, now[key] - before[key]) / seconds;
  const latency = since(earlier.latency, now.latency);
  return {
    at: now.at,
    images: rate("images"),
    requests: rate("requests"),
    refused: rate("refused"),
    failed: rate("failed"),
    p50: quantile(0.5, latency),
    p95: quantile(0.95, latency),
    p99: quantile(0.99, latency),
    queue: now.queue,
    held: now.held,
    busy: now.busy,
  };
}
