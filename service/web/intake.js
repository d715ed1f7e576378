// How pictures come in: dropped, pasted or chosen; on a phone the chooser offers the camera.

import { byId } from "./dom.js";

/** Calls `take(files)` with what comes, and `tell(text)` where something came that holds no file. */
export function startIntake(take, tell) {
  const input = byId("files");
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  startDrop(take, tell);
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    take(files);
  });
}

function startDrop(take, tell) {
  const body = document.body;
  let depth = 0; // enter and leave come for every element on the way
  const set = (value) => {
    depth = Math.max(0, value);
    body.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", (event) => {
    event.preventDefault();
    set(depth + 1);
  });
  document.addEventListener("dragleave", () => set(depth - 1));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    set(0);
    const files = [...event.dataTransfer.files];
    if (files.length > 0) take(files);
    else tell("That was a link or text. Save the picture and drop the file: the service fetches nothing from elsewhere.");
  });
}
