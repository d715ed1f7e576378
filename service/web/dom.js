// Elements, numbers in words, and what screen readers are told.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (`onclick` and the like are listeners; null and false are left out) and children. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Text of what is between 0 and 1; never "100 %" or "0 %" of what is not quite that. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share > 0.999) return "> 99.9 %";
  return `${(100 * share).toFixed(1)} %`;
}

const short = new Intl.NumberFormat("en", {
  maximumSignificantDigits: 3,
  maximumFractionDigits: 2,
  roundingPriority: "lessPrecision",
});

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  return seconds >= 1 ? `${short.format(seconds)} s` : `${short.format(1000 * seconds)} ms`;
}

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${(count / 1e3).toFixed(0)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

/** As charts and tiles show it: a small one with three digits, a large one whole. */
export function number(value) {
  if (!Number.isFinite(value)) return "–";
  return Math.abs(value) < 100 ? short.format(value) : Math.round(value).toLocaleString("en");
}

let said = [];

/** Tells screen readers; what comes within a moment is said together, so that nothing is talked over. */
export function announce(text) {
  if (said.push(text) > 1) return;
  setTimeout(() => {
    byId("announce").textContent = said.join(". ");
    said = [];
  }, 250);
}
