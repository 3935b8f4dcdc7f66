// What changes something: asked for with the token, which this tab alone keeps.

import { $, show, text } from "./dom.js";

const KEPT = "tablefeed-token";

export class Refused extends Error {}

// Send a change; gives the answer, or null when somebody would rather not. Throws Refused with words for people.
export async function change(path, body = {}) {
  let wrong = "";
  for (;;) {
    const token = (!wrong && sessionStorage.getItem(KEPT)) || (await askForToken(wrong));
    if (token === null) return null;
    const answer = await send(path, body, token);
    const said = await answer.json().catch(() => ({}));
    if (![401, 403, 429].includes(answer.status)) sessionStorage.setItem(KEPT, token);
    if (answer.ok) return said;
    wrong = said.error || `The daemon answered ${answer.status}.`;
    if (answer.status === 401) sessionStorage.removeItem(KEPT);
    else throw new Refused(wrong);
  }
}

async function send(path, body, token) {
  try {
    return await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
      cache: "no-store",
    });
  } catch {
    throw new Refused("The daemon cannot be reached, so nothing was changed as far as this page knows.");
  }
}

// A token is sent in a header, which takes plain signs alone.
const sendable = (token) => /^[\x21-\x7e]+$/.test(token);

function askForToken(wrong) {
  const dialog = $("token-dialog");
  text($("token-wrong"), wrong);
  show($("token-wrong"), Boolean(wrong));
  $("token").value = "";
  return new Promise((resolve) => {
    const done = new AbortController();
    const end = (token) => {
      done.abort();
      $("token").value = "";
      if (dialog.open) dialog.close();
      resolve(token);
    };
    $("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = $("token").value.trim();
      if (sendable(token)) end(token);
      else {
        text($("token-wrong"), "A token has no spaces and none but plain signs.");
        show($("token-wrong"), true);
      }
    }, { signal: done.signal });
    $("token-cancel").addEventListener("click", () => end(null), { signal: done.signal });
    dialog.addEventListener("close", () => end(null), { signal: done.signal });
    dialog.showModal();
    $("token").focus();
  });
}
