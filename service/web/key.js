// The key, where the service asks for one: kept by this tab alone, until it is closed.

const NAME = "api-key";

function held() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return kept; // storage is forbidden here: this page's own memory must do
  }
}

let kept = "";

/** What a request brings. */
export function keyHeader() {
  const key = held();
  return key ? { "x-api-key": key } : {};
}

/** The service refused the key, or the want of one: ask for it. */
export function keyWanted() {
  const form = document.getElementById("key-form");
  if (!form) return;
  document.getElementById("key-note").textContent = held() ? "The service does not know this key." : "This service needs a key.";
  form.hidden = false;
}

/** Listens to the form; `changed()` is called when a key was entered. */
export function startKey(changed) {
  const form = document.getElementById("key-form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const field = document.getElementById("key");
    kept = field.value.trim();
    try {
      sessionStorage.setItem(NAME, kept);
    } catch {
      // Kept by this page.
    }
    field.value = "";
    form.hidden = true;
    changed();
  });
}
