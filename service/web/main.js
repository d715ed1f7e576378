// The page: its views, and the pictures in it.

import { unready } from "./api.js";
import { Card } from "./card.js";
import { Comparison } from "./compare.js";
import { announce, byId } from "./dom.js";
import { startIntake } from "./intake.js";
import { startKey } from "./key.js";
import { Models } from "./models.js";
import { Status } from "./status.js";
import { startTheme } from "./theme-toggle.js";

const READY_EVERY_MS = 10_000;
const TITLES = { classify: "Classify", status: "Status" };

const cards = [];
const comparison = new Comparison();
const models = new Models(() => {
  for (const card of cards) card.classify(models.choice);
  comparison.show();
});
const status = new Status();
let loaded = Promise.resolve();

async function take(files) {
  tell("");
  if (!byId("status").hidden) location.hash = "#/";
  const added = files.map((file) => new Card(file, file.name || "Pasted picture", { remove, compare, renewed }));
  for (const card of added.toReversed()) {
    cards.unshift(card);
    byId("cards").prepend(card.element);
  }
  showCount();
  announce(added.length === 1 ? `${added[0].name}: classifying` : `Classifying ${added.length} pictures`);
  await loaded;
  for (const card of added) card.classify(models.choice);
}

function discard(card) {
  comparison.remove(card);
  cards.splice(cards.indexOf(card), 1);
  card.discard();
  showCount();
}

function remove(card) {
  const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
  discard(card);
  announce(`${card.name} removed`);
  (next?.querySelector(".remove") ?? byId("files")).focus();
}

async function renewed() {
  await models.refresh();
  return models.choice;
}

async function compare(card) {
  await loaded;
  comparison.toggle(card);
}

function showCount() {
  byId("classify").classList.toggle("working", cards.length > 0);
  byId("empty").hidden = cards.length > 0;
  byId("results-bar").hidden = cards.length === 0;
  byId("results-title").textContent = cards.length === 1 ? "1 picture" : `${cards.length} pictures`;
}

function tell(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

async function takeExample() {
  let picture;
  try {
    const response = await fetch("web/ship.jpg");
    if (!response.ok) throw new Error(`The answer was ${response.status}.`);
    picture = await response.blob();
  } catch {
    tell("The example could not be fetched. Try again.");
    return;
  }
  take([new File([picture], "ship.jpg", { type: "image/jpeg" })]);
  byId("results-title").focus({ preventScroll: true }); // the button is gone
}

/** The view that the address names; a link within the page is none. */
function route(first) {
  const name = location.hash === "#/status" ? "status" : "classify";
  for (const key of Object.keys(TITLES)) byId(key).hidden = key !== name;
  for (const link of document.querySelectorAll("[data-route]")) {
    if (link.dataset.route === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[name]} · ResNet serving`;
  if (name === "status") status.start();
  else status.stop();
  if (!first) byId(`${name}-title`).focus({ preventScroll: true });
}

async function showReady() {
  const reason = await unready();
  const state = reason ? "no" : "yes";
  if (byId("ready").dataset.state !== state) byId("ready").textContent = reason ? "Not ready" : "Ready";
  byId("ready").dataset.state = state;
  byId("ready").title = reason;
}

startTheme();
startIntake(take, tell);
startKey(async () => {
  if (await models.refresh()) {
    for (const card of cards) if (card.element.classList.contains("failed")) card.classify(models.choice);
  }
  byId("files").focus();
});
byId("example").addEventListener("click", takeExample);
byId("clear").addEventListener("click", () => {
  for (const card of [...cards]) discard(card);
  announce("All pictures removed");
  byId("files").focus();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  byId("main").focus();
});
addEventListener("hashchange", () => route(false));
route(true);
showReady();
setInterval(() => document.hidden || showReady(), READY_EVERY_MS);
loaded = models.load();
