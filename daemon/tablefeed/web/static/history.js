// The history, with its search.

import { $, attribute, h, icon, keyed, part, show, text } from "./dom.js";
import { ago, duration, moment, rate, sentence, size, visible } from "./format.js";

const SIGNS = { archived: "ok", uploaded: "ok", skipped: "ok", rejected: "bad", gone: "lost", queued: "wait", uploading: "wait" };
const PAUSE = 250; // milliseconds after the last key
const LEAST = 3000; // milliseconds between two looks for what is new

export class History {
  #does;
  #may = false;
  #found = new Map();
  #next = null;
  #asking = null;
  #typing = null;
  #lookedAt = -Infinity;
  #mark = "";

  constructor(does) {
    this.#does = does;
    $("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#anew();
    });
    $("q").addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#anew(), PAUSE);
    });
    for (const name of ["q-feed", "q-state"]) $(name).addEventListener("change", () => this.#anew());
    $("more").addEventListener("click", () => this.#load(this.#next));
  }

  // Look for what is new when the picture says that there may be something.
  see(picture) {
    this.#feeds(picture.feeds.map((feed) => feed.name));
    const redraw = this.#may !== picture.may.change;
    this.#may = picture.may.change;
    if (redraw) this.#draw();
    const totals = picture.totals;
    const mark = [totals.queued, totals.uploading, totals.archiving, totals.refused, totals.delivered_today, picture.pid].join();
    if (mark === this.#mark || performance.now() - this.#lookedAt < LEAST) return;
    this.#mark = mark;
    if (!this.#asking) this.#load(null);
  }

  #feeds(names) {
    const select = $("q-feed");
    if (names.join("\n") === [...select.options].slice(1).map((option) => option.value).join("\n")) return;
    const chosen = select.value;
    select.replaceChildren(select.options[0], ...names.map((name) => h("option", { value: name }, visible(name))));
    select.value = names.includes(chosen) ? chosen : "";
  }

  #anew() {
    clearTimeout(this.#typing);
    this.#found.clear();
    this.#load(null);
  }

  async #load(before) {
    this.#asking?.abort();
    const asking = new AbortController();
    this.#asking = asking;
    this.#lookedAt = performance.now();
    const query = new URLSearchParams();
    for (const [name, id] of [["q", "q"], ["feed", "q-feed"], ["state", "q-state"]]) {
      if ($(id).value.trim()) query.set(name, $(id).value.trim());
    }
    if (before) query.set("before", before);
    try {
      const answer = await fetch(`/api/files?${query}`, { cache: "no-store", signal: asking.signal });
      const said = await answer.json();
      if (!answer.ok) throw new Error(said.error);
      this.#take(said, before);
    } catch (error) {
      if (!asking.signal.aborted) text($("history-note"), error instanceof TypeError ? "The daemon cannot be asked now." : sentence(error.message));
    } finally {
      if (this.#asking === asking) this.#asking = null;
    }
  }

  #take(said, before) {
    const refreshed = !before && this.#found.size > 0;
    for (const file of said.files) this.#found.set(file.id, file);
    if (!refreshed) this.#next = said.next;
    const searching = $("q").value.trim() || $("q-feed").value || $("q-state").value;
    let note = "";
    if (!said.complete && !refreshed) note = "There are older files that were not searched yet.";
    else if (!this.#found.size) note = searching ? "Nothing that fits is recorded." : "Nothing has been recorded yet. Files show up here when they are whole.";
    if (!refreshed || !this.#found.size) text($("history-note"), note);
    text($("more"), said.complete || refreshed ? "Show older" : "Search older");
    show($("more"), this.#next !== null);
    this.#draw();
  }

  #draw() {
    const rows = [...this.#found.values()].sort((a, b) => b.id - a.id).flatMap((file) => [{ file, key: file.id }, { file, key: `${file.id}-more` }]);
    keyed($("records"), rows, (row) => row.key, (row) => (row.key === row.file.id ? this.#row(row.file) : this.#more(row.file)), (element, row) => this.#fill(element, row));
  }

  #row(file) {
    const id = `details-${file.id}`;
    return h("tr", { role: "row", class: "record" },
      h("td", { role: "cell", class: "when", "data-part": "when" }),
      h("td", { role: "cell", class: "feed" }, visible(file.feed), h("span", { class: "sub", "data-part": "node", hidden: true })),
      h("td", { role: "cell", class: "state" }, h("span", { class: "pill", "data-part": "state" })),
      h("td", { role: "cell", class: "size" }, size(file.size)),
      h("td", { role: "cell", class: "where" }, h("bdi", { class: "file" }, visible(file.path)), h("span", { class: "sub", "data-part": "what" })),
      h("td", { role: "cell", class: "open" }, h("button", {
        type: "button", class: "plain", "aria-expanded": "false", "aria-controls": id, "aria-label": `Details of ${visible(file.path)}`,
        click: (event) => this.#toggle(event.currentTarget, id),
      }, "Details")));
  }

  #more(file) {
    return h("tr", { role: "row", class: "details", id: `details-${file.id}`, hidden: true },
      h("td", { role: "cell", colspan: "6" }, h("dl", { "data-part": "list" }),
        h("p", {}, h("button", { type: "button", "data-part": "retry", hidden: true, "aria-label": `Retry ${visible(file.path)}`, click: () => this.#does.retryFile(file.id) }, "Retry"))));
  }

  #toggle(button, id) {
    const open = button.getAttribute("aria-expanded") !== "true";
    attribute(button, "aria-expanded", open);
    text(button, open ? "Close" : "Details");
    show($(id), open);
  }

  #fill(element, { file, key }) {
    if (key !== file.id) {
      keyed(part(element, "list"), receipt(file), ([name]) => name, () => h("div", {}, h("dt"), h("dd", {}, h("bdi"))), (line, [name, value]) => {
        text(line.firstElementChild, name);
        text(line.lastElementChild.firstElementChild, value);
      });
      show(part(element, "retry"), file.refused && this.#may);
      return;
    }
    const now = Date.now();
    text(part(element, "when"), moment(Date.parse(file.changed_at), now));
    const pill = part(element, "state");
    if (pill.dataset.state !== file.state) {
      pill.dataset.state = file.state;
      pill.className = `pill ${SIGNS[file.state] || "wait"}`;
      pill.replaceChildren(icon(SIGNS[file.state] || "wait"), h("span", {}, file.state === "rejected" ? "refused" : file.state));
    }
    const nodes = whose(file);
    show(part(element, "node"), nodes !== "");
    text(part(element, "node"), nodes);
    text(part(element, "what"), file.what === file.destination ? visible(file.what) : sentence(file.what));
  }
}

// In a fleet: where a file lies, and who sent it where that says more.
function whose(file) {
  const by = file.sender && file.sender !== file.node && `sent by ${visible(file.sender)}`;
  return [file.node && `on ${visible(file.node)}`, by].filter(Boolean).join(", ");
}

function receipt(file) {
  const now = Date.now();
  const at = (value) => value && `${moment(Date.parse(value), now)} (${ago(Date.parse(value), now)})`;
  const took = (Date.parse(file.finished_at) - Date.parse(file.started_at)) / 1000;
  const speed = took > 0 ? `, ${rate(file.size / took)}` : "";
  const sent = file.finished_at && `in ${took < 1 ? `${Math.round(took * 1000)} ms` : duration(took)}${speed}`;
  const equal = file.etag && (file.verified ? " (equals the MD5)" : " (not an MD5)");
  return [
    ["Number", String(file.id)],
    ["Size", `${size(file.size)} (${file.size.toLocaleString("en")} bytes)`],
    ["Dropped", at(file.dropped_at)],
    ["Queued", at(file.queued_at)],
    ["Failures", file.attempts ? String(file.attempts) : null],
    ["Last failure", at(file.failed_at)],
    ["Reason", file.reason],
    ["Delivered", at(file.finished_at)],
    ["Sent", sent],
    ["MD5", file.md5],
    ["ETag", file.etag && file.etag + equal],
    ["Answer", file.status && String(file.status)],
    ["Request id", file.request_id],
    ["Store", file.origin],
    ["Node", file.node],
    ["Sent by", file.sender],
    ["Datatable", file.target],
    ["Same content as", file.duplicate_of && String(file.duplicate_of)],
    ["Lies at", file.removed_at ? null : file.destination],
    ["Deleted", at(file.removed_at)],
  ].filter(([, value]) => value).map(([name, value]) => [name, visible(value)]);
}
