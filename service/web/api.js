// The service's API (openapi.json), as this page uses it. Addresses are relative: a proxy may serve it under a prefix.

import { keyHeader, keyWanted } from "./key.js";

const AT_ONCE = 4; // requests of this page: enough to fill batches, few enough to leave room for others

/** What the service, or the way to it, says went wrong. `code` is the service's, or "unreachable". */
export class Failure extends Error {
  constructor(code, message, status = 0) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

let running = 0;
const waiting = [];

async function inTurn(work, signal) {
  if (running < AT_ONCE) running += 1;
  else await new Promise((resolve) => waiting.push(resolve));
  try {
    signal?.throwIfAborted();
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) next(); // has this one's place
    else running -= 1;
  }
}

async function ask(address, options = {}) {
  let response;
  const headers = { ...options.headers, ...keyHeader() };
  try {
    response = await fetch(address, { cache: "no-store", credentials: "same-origin", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(
      "unreachable",
      options.body
        ? "No answer came. The service may be down, or it refused the file while it was being sent because it is too large."
        : "The service cannot be reached.",
    );
  }
  if (response.ok) return response;
  let error = null;
  try {
    ({ error } = await response.json());
  } catch {
    // Not the service's own answer: a proxy's.
  }
  if (error?.code === "unauthorized") keyWanted();
  throw new Failure(error?.code ?? "unreachable", error?.message ?? `The answer was ${response.status}.`, response.status);
}

function address(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

async function askOfImage(path, query, image, signal) {
  return inTurn(async () => {
    const began = performance.now();
    const headers = { "content-type": "application/octet-stream", accept: "application/json" };
    const response = await ask(address(path, query), { method: "POST", body: image, headers, signal });
    const { model, results } = await response.json();
    const [result] = results;
    if (result.error) throw new Failure(result.error.code, result.error.message);
    return { ...result, model, seconds: (performance.now() - began) / 1000 };
  }, signal);
}

/** `{predictions, scores, timings, model, seconds}`; `seconds` is how long this page waited. */
export function classify(image, { model, version, topK }, signal) {
  const query = { model, version, top_k: topK, include: "predictions,scores,timings" };
  return askOfImage("v1/classify", query, image, signal);
}

/** The class activation map of class `index`, as the API gives it. */
export async function explain(image, { model, version }, index, signal) {
  return (await askOfImage("v1/explain", { model, version, class: index }, image, signal)).heatmap;
}

export async function embed(image, { model, version }, signal) {
  return (await askOfImage("v1/embed", { model, version }, image, signal)).embedding;
}

export async function models() {
  return (await (await ask("v1/models")).json()).models;
}

export async function metrics() {
  return (await ask("metrics")).text();
}

/** Empty where the service is ready, else why not. */
export async function unready() {
  try {
    await ask("readyz");
    return "";
  } catch (failure) {
    return failure.message;
  }
}
