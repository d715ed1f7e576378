// Charts as inline SVG, each with its figures in words and as a table.

import { h, s } from "./dom.js";

const WIDTH = 600; // of the drawing, which is stretched to its place; text is HTML, so it is not
const HEIGHT = 160;
const TABLE_ROWS = 15;

/** The next of 1, 2, 5, 10, 20, ... */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

class Figure {
  /** `least`: the scale reaches at least to there, so that small changes look small. */
  constructor(title, { empty = "Nothing yet", format, least = 0 }) {
    this.title = title;
    this.least = least;
    this.format = format;
    this.now = h("span", { class: "now" });
    this.drawing = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.top = h("span", { class: "top" });
    this.middle = h("span", { class: "middle" });
    this.table = h("table", {});
    this.empty = h("p", { class: "none" }, empty);
    this.details = h("details", { ontoggle: () => this.fill() }, h("summary", {}, "As a table"), this.table);
    this.axis = h("div", { class: "axis", "aria-hidden": "true" });
    const plot = h("div", { class: "plot" }, this.top, this.middle, h("span", { class: "bottom" }, "0"), this.drawing, this.empty);
    this.element = h("figure", { class: "chart" }, h("figcaption", {}, h("b", {}, title), this.now), plot, this.axis, this.details);
  }

  scale(highest) {
    const top = ceiling(Math.max(highest, this.least));
    this.top.textContent = this.format(top);
    this.middle.textContent = this.format(top / 2);
    return (value) => HEIGHT - (HEIGHT * value) / top;
  }

  vacant(nothing) {
    this.empty.hidden = !nothing;
    this.element.classList.toggle("vacant", nothing);
  }

  fill() {
    if (!this.details.open) return;
    const [head, ...rows] = this.rows();
    const cells = (row, first) => row.map((text, i) => h(i && !first ? "td" : "th", { scope: first ? "col" : i ? null : "row" }, text));
    this.table.replaceChildren(
      h("caption", { class: "unseen" }, this.title),
      h("thead", {}, h("tr", {}, ...cells(head, true))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row, false)))),
    );
  }
}

/** Lines over time. `series`: `{key, name}`, drawn in this order; `span` in seconds. */
export class Lines extends Figure {
  #points = [];

  constructor(title, series, span, options) {
    super(title, options);
    this.series = series;
    this.span = span;
    const grid = [0, HEIGHT / 2, HEIGHT].map((y) => s("path", { class: "grid", d: `M0 ${y}H${WIDTH}` }));
    this.area = s("path", { class: "area" });
    this.paths = series.map((_, i) => s("path", { class: `line line-${i}` }));
    this.drawing.append(...grid, this.area, ...this.paths.toReversed());
    this.axis.append(h("span", {}, `${Math.round(span / 60)} minutes ago`), h("span", {}, "now"));
    if (series.length > 1) this.now.before(legend(series));
  }

  show(points) {
    this.#points = points;
    const values = points.flatMap((point) => this.series.map(({ key }) => point[key])).filter((value) => value !== null);
    const y = this.scale(Math.max(0, ...values));
    const now = points.at(-1)?.at ?? 0;
    const x = (at) => WIDTH - (WIDTH * (now - at)) / this.span;
    this.series.forEach(({ key }, i) => this.paths[i].setAttribute("d", line(points, key, x, y)));
    this.area.setAttribute("d", this.series.length === 1 ? area(points, this.series[0].key, x, y) : "");
    this.vacant(values.length === 0);
    const latest = this.series.map(({ key, name }) => [name, this.format(points.at(-1)?.[key] ?? NaN)]);
    this.now.textContent = this.series.length === 1 ? latest[0][1] : latest.map((pair) => pair.join(" ")).join(", ");
    this.drawing.setAttribute("aria-label", this.words(values, latest));
    this.fill();
  }

  words(values, latest) {
    if (values.length === 0) return `${this.title}: ${this.empty.textContent}`;
    const extent = `between ${this.format(Math.min(...values))} and ${this.format(Math.max(...values))}`;
    return `${this.title}: now ${latest.map((pair) => pair.join(" ")).join(", ")}; shown ${extent}`;
  }

  rows() {
    const head = ["Seconds ago", ...this.series.map(({ name }) => name)];
    const now = this.#points.at(-1)?.at ?? 0;
    const recent = this.#points.slice(-TABLE_ROWS).toReversed();
    return [head, ...recent.map((p) => [String(Math.round(now - p.at)), ...this.series.map(({ key }) => this.format(p[key] ?? NaN))])];
  }
}

function legend(series) {
  const keys = series.map(({ name }, i) => h("span", {}, s("svg", { viewBox: "0 0 24 8" }, s("path", { class: `line line-${i}`, d: "M0 4H24" })), name));
  return h("span", { class: "keys", "aria-hidden": "true" }, ...keys);
}

function line(points, key, x, y) {
  let pen = "M";
  let path = "";
  for (const point of points) {
    if (point[key] === null) {
      pen = "M";
      continue;
    }
    path += `${pen}${x(point.at).toFixed(1)} ${y(point[key]).toFixed(1)}`;
    if (pen === "M") path += "h0"; // a point alone is a dot
    pen = "L";
  }
  return path;
}

function area(points, key, x, y) {
  const known = points.filter((point) => point[key] !== null);
  if (known.length < 2) return "";
  return `${line(known, key, x, y)}V${HEIGHT}H${x(known[0].at).toFixed(1)}Z`;
}

/** Bars: `show([[name, value], ...], note)`. */
export class Bars extends Figure {
  #bars = [];

  show(bars, note) {
    this.#bars = bars;
    const y = this.scale(Math.max(0, ...bars.map(([, value]) => value)));
    const step = WIDTH / Math.max(1, bars.length);
    const pieces = bars.map(([, value], i) => {
      const top = y(value);
      return s("rect", { class: "bar-piece", x: i * step + step * 0.14, width: step * 0.72, y: top, height: HEIGHT - top });
    });
    const grid = [0, HEIGHT / 2, HEIGHT].map((at) => s("path", { class: "grid", d: `M0 ${at}H${WIDTH}` }));
    this.drawing.replaceChildren(...grid, ...pieces);
    this.axis.className = "axis even";
    this.axis.replaceChildren(...bars.map(([name]) => h("span", {}, name)));
    this.now.textContent = note;
    this.vacant(!bars.some(([, value]) => value > 0));
    const told = bars.filter(([, value]) => value > 0).map(([name, value]) => `${name}: ${this.format(value)}`);
    this.drawing.setAttribute("aria-label", `${this.title}, ${note}: ${told.join(", ") || this.empty.textContent}`);
    this.fill();
  }

  rows() {
    return [[this.title, "Count"], ...this.#bars.map(([name, value]) => [name, this.format(value)])];
  }
}
