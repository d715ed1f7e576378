// Prometheus' text format, read; and what one gets from it.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

const ESCAPED = { n: "\n", "\\": "\\", '"': '"' };

/** By name: a list of `{labels, value}`. */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!found) continue;
    const [, name, inside = "", value] = found;
    const labels = {};
    for (const [, key, escaped] of inside.matchAll(LABEL)) {
      labels[key] = escaped.replace(/\\(.)/g, (_, letter) => ESCAPED[letter] ?? letter);
    }
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value: numeric(value) });
  }
  return samples;
}

function numeric(text) {
  if (text === "+Inf") return Infinity;
  return text === "-Inf" ? -Infinity : Number(text);
}

const any = () => true;

/** Of all samples of `name` whose labels please `which`. */
export function sum(samples, name, which = any) {
  return (samples.get(name) ?? []).reduce((total, { labels, value }) => (which(labels) ? total + value : total), 0);
}

/** A histogram's buckets as `[upper bound, count up to it]`, in order, added up over all labels. */
export function buckets(samples, name, which = any) {
  const counts = new Map();
  for (const { labels, value } of samples.get(`${name}_bucket`) ?? []) {
    if (!which(labels)) continue;
    const bound = numeric(labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].sort(([a], [b]) => a - b);
}

/** What came between two states of a histogram; all of `now` where the service began anew in between. */
export function since(before, now) {
  const old = new Map(before);
  const grown = now.map(([bound, count]) => [bound, count - (old.get(bound) ?? 0)]);
  return grown.some(([, count]) => count < 0) ? now : grown;
}

/** As PromQL's histogram_quantile: linear within a bucket, the highest finite bound beyond; null where there is nothing. */
export function quantile(share, cumulative) {
  const all = cumulative.at(-1)?.[1] ?? 0;
  if (all === 0) return null;
  const rank = share * all;
  let lower = 0;
  let below = 0;
  for (const [bound, count] of cumulative) {
    if (count >= rank && count > below) {
      return bound === Infinity ? lower : lower + ((bound - lower) * (rank - below)) / (count - below);
    }
    [lower, below] = [bound, count];
  }
  return lower;
}

/** `[upper bound, count in this bucket alone]`. */
export function separate(cumulative) {
  return cumulative.map(([bound, count], i) => [bound, count - (i ? cumulative[i - 1][1] : 0)]);
}
