// The theme's button: as the system, light, dark, and round again.

import { announce, byId } from "./dom.js";

const NAMES = { auto: "Auto", light: "Light", dark: "Dark" };
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const SAID = { auto: "as the system", light: "light", dark: "dark" };

const current = () => document.documentElement.dataset.theme ?? "auto";

function show() {
  byId("theme-name").textContent = NAMES[current()];
  byId("theme").setAttribute("aria-label", `${NAMES[current()]}. Theme: ${SAID[current()]}. Change it`);
}

export function startTheme() {
  show();
  byId("theme").addEventListener("click", () => {
    const next = NEXT[current()];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // Not kept, but shown.
    }
    show();
    announce(`Theme: ${SAID[next]}`);
  });
}
