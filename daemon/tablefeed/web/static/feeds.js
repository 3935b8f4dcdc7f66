// The table of feeds.

import { $, attribute, h, icon, keyed, part, show, text } from "./dom.js";
import { ago, count, duration, moment, size, until, visible } from "./format.js";

const STATES = {
  ok: ["ok", "well"],
  paused: ["pause", "paused by hand"],
  unusable: ["bad", "directory unusable"],
  blocked: ["bad", "blocked"],
  waiting: ["wait", "waiting for a server"],
  stale: ["bad", "no file for too long"],
};

const STATE_OF = { directory: "unusable", delivery: "blocked", archive: "blocked", server: "waiting", stale: "stale" };

export function drawFeeds(picture, now, does) {
  const may = picture.may.change;
  const living = new Set(picture.fleet.nodes.filter((node) => node.living).map((node) => node.name));
  keyed($("feed-rows"), picture.feeds, (feed) => feed.name, (feed) => row(feed.name, does), (element, feed) => fill(element, feed, now, may, picture.node, living));
  show($("locked"), !may);
  $("feed-rows").closest("table").classList.toggle("locked", !may);
}

const cell = (name, label) => h("td", { role: "cell", "data-label": label }, h("span", { class: "value", "data-part": name }), h("span", { class: "sub", "data-part": `${name}-sub` }));

function row(name, does) {
  return h("tr", { role: "row" },
    h("th", { role: "rowheader", scope: "row" },
      h("span", { class: "name" }, visible(name)), " ",
      h("span", { class: "pill", "data-part": "state" }),
      h("span", { class: "sub path", "data-part": "place" })),
    cell("queued", "Queued"), cell("flight", "In flight"), cell("today", "Delivered today"),
    cell("refused", "Refused"), cell("arrival", "Last arrival"), cell("delivery", "Last delivery"),
    h("td", { role: "cell", class: "actions" }, h("div", { class: "buttons-of" },
      h("button", { type: "button", "data-part": "retry", hidden: true, "aria-label": `Retry all refused files of ${name}`, click: () => does.retryFeed(name) }, "Retry refused"),
      h("button", { type: "button", "data-part": "pause", click: (event) => does.pause(name, event.currentTarget.dataset.does) }))));
}

function fill(element, feed, now, may, here, living) {
  state(part(element, "state"), feed, now, living);
  text(part(element, "place"), place(feed, here));
  pair(element, "queued", feed.queued, feed.queued ? size(feed.queued_bytes) : "", waitingFor(feed, now));
  pair(element, "flight", feed.uploading, feed.archiving ? `${count(feed.archiving)} to archive` : "");
  pair(element, "today", feed.delivered_today, feed.delivered_today ? size(feed.bytes_today) : "");
  pair(element, "refused", feed.refused, "");
  part(element, "refused").classList.toggle("alarm", feed.refused > 0);
  time(element, "arrival", feed.last_arrival_at, now, expectation(feed, now));
  time(element, "delivery", feed.last_delivery_at, now, "");
  const pause = part(element, "pause");
  const verb = feed.state === "paused" || feed.paused_at ? "resume" : "pause";
  attribute(pause, "data-does", verb);
  attribute(pause, "aria-label", `${verb === "pause" ? "Pause" : "Resume"} ${feed.name}`);
  text(pause, verb === "pause" ? "Pause" : "Resume");
  show(pause, may);
  show(part(element, "retry"), may && feed.refused > 0);
}

function state(pill, feed, now, living) {
  const [sign, said] = stateOf(feed, now, living);
  if (pill.dataset.sign !== sign) {
    pill.className = `pill ${sign}`;
    pill.dataset.sign = sign;
    pill.replaceChildren(icon(sign), h("span"));
  }
  text(pill.lastElementChild, said);
}

function stateOf(feed, now, living) {
  const [sign, words] = STATES[feed.state] || ["bad", feed.state];
  if (feed.state === "paused") return [sign, `paused ${ago(Date.parse(feed.paused_at), now)}`];
  if (feed.state === "ok" && !feed.here) return feed.nodes.some((node) => living.has(node)) ? [sign, "elsewhere"] : ["lost", "away"];
  const there = new Set(feed.troubles.filter((trouble) => STATE_OF[trouble.kind] === feed.state).map((trouble) => trouble.node));
  const partly = there.size && !there.has("") && feed.nodes.length > 1;
  return [sign, partly ? `${words} on ${count(there.size)} of ${count(feed.nodes.length)} nodes` : words];
}

const NAMED = 4;

// Where a feed's files come from and go to; and which other nodes serve it.
function place(feed, here) {
  const others = feed.nodes.filter((node) => node !== here);
  const named = others.slice(0, NAMED).map(visible).join(", ");
  const nodes = named && `on ${named}${others.length > NAMED ? ` and ${count(others.length - NAMED)} more` : ""}`;
  if (!feed.here) return nodes;
  return `${visible(feed.directory)} to ${visible(feed.datatable_id)}${nodes && `, also ${nodes}`}`;
}

function waitingFor(feed, now) {
  const words = [];
  if (feed.oldest_queued_at && feed.queued) words.push(`oldest ${duration((now - Date.parse(feed.oldest_queued_at)) / 1000)}`);
  if (feed.retrying && feed.next_try_at) words.push(`next try ${until(Date.parse(feed.next_try_at), now)}`);
  if (feed.unsettled) words.push(`${count(feed.unsettled)} not whole yet`);
  return words.join(", ");
}

function pair(element, name, number, beside, below = "") {
  const value = part(element, name);
  text(value, count(number));
  value.classList.toggle("none", !number);
  text(part(element, `${name}-sub`), [beside, below].filter(Boolean).join(", "));
}

function time(element, name, at, now, below) {
  const value = part(element, name);
  text(value, at ? ago(Date.parse(at), now) : "never");
  value.classList.toggle("none", !at);
  attribute(value, "title", at ? moment(Date.parse(at), now) : null);
  const sub = part(element, `${name}-sub`);
  text(sub, below);
  sub.classList.toggle("alarm", below.startsWith("overdue"));
}

// As it is configured: 26 h and not 1 d 2 h.
const every = (seconds) => (seconds > 86400 && seconds < 259200 && seconds % 86400 ? `${count(Math.round(seconds / 360) / 10)}\u00a0h` : duration(seconds));

function expectation(feed, now) {
  if (!feed.expect_every) return "";
  const stale = feed.troubles.find((trouble) => trouble.kind === "stale" && !(trouble.node && feed.here));
  if (stale && stale.since) return `overdue for ${duration((now - Date.parse(stale.since)) / 1000)}`;
  return `expected every ${every(feed.expect_every)}`;
}

export const sumOfFeeds = (picture, name) => picture.feeds.reduce((total, feed) => total + feed[name], 0);
