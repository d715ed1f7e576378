// What went wrong with a picture, in words that say what one can do.

import { announce } from "./dom.js";

const TITLES = {
  not_an_image: "Not a picture the service reads",
  bad_image: "The picture is damaged",
  image_too_large: "Too many pixels",
  image_too_costly: "Too costly to decode",
  decoder_crashed: "The picture is damaged",
  body_too_large: "The file is too large",
  overloaded: "The service is busy",
  not_ready: "The service is still loading",
  shutting_down: "The service is stopping",
  deadline_exceeded: "It took too long",
  no_model: "There is no model",
  unknown_model: "This model is not served any more",
  unreachable: "No answer",
  unauthorized: "The service needs a key",
  key_rate: "More pictures than your key may send",
  key_concurrency: "More pictures than your key may send",
};
// The same file would get the same answer.
const FINAL = new Set([
  "not_an_image", "bad_image", "image_too_large", "image_too_costly", "decoder_crashed", "body_too_large", "bad_request",
]);

export function showFailure(card, name, failure) {
  const title = TITLES[failure.code] ?? "The service failed";
  card.classList.add("failed");
  const box = card.querySelector(".failure");
  card.querySelector(".predictions").replaceChildren();
  card.querySelector(".predictions").hidden = true;
  card.querySelector(".heat").hidden = true;
  box.querySelector("h4").textContent = title;
  box.querySelector("p").textContent = sentence(failure.message);
  box.querySelector(".again").hidden = FINAL.has(failure.code);
  box.hidden = false;
  announce(`${name}: ${title}. ${sentence(failure.message)}`);
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
