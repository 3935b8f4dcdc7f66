// The nodes of the fleet, and what the others work on.

import { $, attribute, h, icon, keyed, part, show, text } from "./dom.js";
import { ago, count, files, moment, size, visible } from "./format.js";

const HELD = 20; // lines of files on other nodes

export function drawNodes(picture) {
  const fleet = picture.fleet;
  show($("nodes"), fleet.nodes.length > 0);
  if (fleet.nodes.length) {
    const now = Date.parse(fleet.now);
    const unnamed = fleet.living + fleet.over - fleet.nodes.length;
    text($("nodes-sum"), `${count(fleet.living)} living${fleet.over ? `, ${count(fleet.over)} over` : ""}${unnamed > 0 ? `; the first ${count(fleet.nodes.length)}` : ""}`);
    keyed($("node-rows"), fleet.nodes, (node) => node.name, row, (element, node) => fill(element, node, now));
  }
  drawHeld(fleet.held);
}

const cell = (name, label) => h("td", { role: "cell", "data-label": label }, h("span", { class: "value", "data-part": name }), h("span", { class: "sub", "data-part": `${name}-sub` }));

function row(node) {
  return h("tr", { role: "row" },
    h("th", { role: "rowheader", scope: "row" },
      h("span", { class: "name" }, visible(node.name)), " ",
      h("span", { class: "pill", "data-part": "state" }),
      h("span", { class: "sub path", "data-part": "feeds" })),
    cell("seen", "Last sign of life"), cell("flight", "In flight"), cell("waiting", "In its directories"),
    cell("started", "Started"), cell("version", "Version"));
}

const NAMED = 6;

function fill(element, node, now) {
  const troubles = node.troubles.length + node.more_troubles;
  const sign = node.living ? (troubles ? "bad" : "ok") : node.waiting ? "bad" : "lost";
  const pill = part(element, "state");
  if (pill.dataset.sign !== sign) {
    pill.dataset.sign = sign;
    pill.className = `pill ${sign}`;
    pill.replaceChildren(icon(sign), h("span"));
  }
  text(pill.lastElementChild, !node.living ? "over" : troubles ? `living, ${count(troubles)} ${troubles === 1 ? "trouble" : "troubles"}` : "living");
  const feeds = node.feeds.slice(0, NAMED).map(visible).join(", ");
  const more = node.feeds.length - NAMED;
  text(part(element, "feeds"), [node.here ? "this one" : "", `${feeds}${more > 0 ? ` and ${count(more)} more` : ""}`].filter(Boolean).join(" \u00b7 "));
  time(part(element, "seen"), node.seen_at, now);
  time(part(element, "started"), node.started_at, now);
  number(element, "flight", node.uploading, node.archiving ? `${count(node.archiving)} to archive` : "");
  number(element, "waiting", node.waiting, "");
  part(element, "waiting").classList.toggle("alarm", node.waiting > 0 && !node.living);
  text(part(element, "version"), visible(node.version));
}

function time(element, at, now) {
  text(element, ago(Date.parse(at), now));
  attribute(element, "title", moment(Date.parse(at), now));
}

function number(element, name, value, below) {
  text(part(element, name), count(value));
  part(element, name).classList.toggle("none", !value);
  text(part(element, `${name}-sub`), below);
}

function drawHeld(held) {
  show($("held"), held.length > 0);
  keyed($("held-rows"), held.slice(0, HELD), (file) => file.id, heldRow, (element, file) => {
    text(part(element, "what"), `${file.state === "uploaded" ? "being archived" : "being sent"} by ${visible(file.node)}`);
  });
  const more = held.length - HELD;
  text($("held-more"), more > 0 ? `and ${files(more)} more` : "");
  show($("held-more"), more > 0);
}

function heldRow(file) {
  return h("li", { class: "row" },
    h("div", { class: "row-text" }, h("p", { class: "file" }, h("bdi", {}, visible(file.path)), h("span", { class: "of" }, `${visible(file.feed)}, ${size(file.size)}`))),
    h("div", { class: "row-side" }, h("span", { class: "sub", "data-part": "what" })));
}
