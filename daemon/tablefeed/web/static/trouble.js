// What is in the way, and files that have trouble.

import { $, attribute, h, icon, keyed, part, show, text } from "./dom.js";
import { ago, count, files, moment, sentence, until, visible } from "./format.js";

const TITLES = {
  directory: (feed) => `The directory of ${feed} cannot be used`,
  delivery: (feed) => `${feed} cannot deliver`,
  archive: (feed) => `${feed} cannot archive`,
  server: (feed) => `${feed} waits for a server`,
  stale: (feed) => `No file came for ${feed}`,
};

// All troubles, the worst first, each with a title; a server's is told once and not for each of its feeds.
export function troublesOf(picture) {
  const found = [];
  if (picture.ledger_problem) {
    found.push({ key: "ledger", title: "The ledger cannot be read", reason: picture.ledger_problem, remedy: missing(picture), sign: "bad" });
  }
  if (picture.ledger_held_up) {
    found.push({ key: "ledger-held-up", title: "The ledger cannot be written", reason: picture.ledger_held_up, remedy: "", sign: "bad" });
  }
  for (const node of picture.fleet.nodes.filter((one) => !one.living && one.waiting)) {
    found.push({ key: `node ${node.name}`, title: `Node ${visible(node.name)} is away`, reason: `${files(node.waiting)} in its directories must wait, where no other node can take them.`, remedy: "Start it again.", sign: "bad" });
  }
  for (const feed of picture.feeds) {
    for (const trouble of feed.troubles) {
      if (trouble.node || (trouble.kind === "server" && picture.servers.length)) continue;
      const title = (TITLES[trouble.kind] || TITLES.delivery)(visible(feed.name));
      found.push({ ...trouble, key: `${feed.name} ${trouble.kind} ${trouble.reason}`, title, sign: trouble.kind === "server" ? "wait" : "bad" });
    }
  }
  for (const server of picture.servers) {
    found.push({ ...server, key: server.origin, title: `${visible(server.origin)} fails`, remedy: `Nothing: the files of ${listed(server.feeds.map(visible))} are sent when it works again.`, sign: "wait" });
  }
  return [...found, ...troublesElsewhere(picture)];
}

const NAMED = 3;

const listed = (names) => `${names.slice(0, NAMED).join(", ")}${names.length > NAMED ? ` and ${count(names.length - NAMED)} more` : ""}`;

// What is in the way on other nodes: once where it is the same on many.
function troublesElsewhere(picture) {
  const same = new Map();
  for (const feed of picture.feeds) {
    for (const trouble of feed.troubles.filter((one) => one.node)) {
      const key = `elsewhere ${trouble.kind} ${trouble.reason} ${trouble.remedy}`;
      const others = same.get(key);
      if (others) others.push([feed.name, trouble]);
      else same.set(key, [[feed.name, trouble]]);
    }
  }
  const found = [...same].map(([key, there]) => {
    const names = listed(there.map(([feed, trouble]) => visible(`${feed} on ${trouble.node}`)));
    const first = there.map(([, trouble]) => trouble).sort((one, other) => (Date.parse(one.since) || Infinity) - (Date.parse(other.since) || Infinity))[0];
    const title = first.kind === "server" && there.length > 1 ? `${names} wait for a server` : (TITLES[first.kind] || TITLES.delivery)(names);
    return { ...first, key, title, sign: first.kind === "server" ? "wait" : "bad" };
  });
  for (const node of picture.fleet.nodes.filter((one) => one.more_troubles)) {
    const more = `${count(node.more_troubles)} more ${node.more_troubles === 1 ? "trouble" : "troubles"}`;
    found.push({ key: `more of ${node.name}`, title: `Node ${visible(node.name)} has ${more}`, reason: "Only the first are told to other nodes.", remedy: "See its own page.", sign: "bad" });
  }
  return found;
}

// A database of PostgreSQL says itself what to do.
function missing(picture) {
  if (picture.fleet.now) return "What comes from it is old or missing here.";
  return `What comes from it is missing here.${/PostgreSQL/.test(picture.ledger_problem) ? "" : " See whether its disk is full or broken."}`;
}

export function drawTroubles(picture, now) {
  const found = troublesOf(picture);
  show($("trouble"), found.length > 0);
  keyed($("troubles"), found, (trouble) => trouble.key, card, (element, trouble) => {
    text(part(element, "title"), trouble.title);
    text(part(element, "reason"), sentence(trouble.reason));
    text(part(element, "remedy"), sentence(trouble.remedy));
    show(part(element, "mend"), Boolean(trouble.remedy));
    text(part(element, "when"), when(trouble, now));
  });
}

function card(trouble) {
  return h("li", { class: `card ${trouble.sign}` },
    icon(trouble.sign),
    h("div", {},
      h("h3", { "data-part": "title" }),
      h("p", { class: "reason", "data-part": "reason" }),
      h("p", { class: "mend", "data-part": "mend" }, h("strong", {}, "To do: "), h("span", { "data-part": "remedy" })),
      h("p", { class: "sub", "data-part": "when" })));
}

function when(trouble, now) {
  const words = [];
  if (trouble.since) words.push(`${trouble.kind === "stale" ? "overdue since" : "since"} ${moment(Date.parse(trouble.since), now)} (${ago(Date.parse(trouble.since), now)})`);
  if (trouble.next_try_at) words.push(`next try ${until(Date.parse(trouble.next_try_at), now)}`);
  return words.join(" · ");
}

const SHOWN = 50;

export function drawFiles(picture, now, does) {
  const found = picture.files;
  show($("failing"), found.length > 0);
  text($("failing-sum"), found.length >= SHOWN ? `the latest ${SHOWN}` : files(found.length));
  keyed($("failing-rows"), found, (file) => file.id, (file) => fileRow(file, does), (element, file) => {
    const refused = file.state === "rejected";
    const pill = part(element, "state");
    if (pill.dataset.refused !== String(refused)) {
      pill.dataset.refused = String(refused);
      pill.className = `pill ${refused ? "bad" : "wait"}`;
      pill.replaceChildren(icon(refused ? "bad" : "wait"), h("span"));
    }
    text(pill.lastElementChild, refused ? "refused" : file.next_try_at ? `next try ${until(Date.parse(file.next_try_at), now)}` : "waiting");
    text(part(element, "reason"), sentence(file.reason));
    const tries = file.attempts ? ` · failed ${file.attempts === 1 ? "once" : `${count(file.attempts)} times`}` : "";
    text(part(element, "when"), `${ago(Date.parse(file.changed_at), now)}${refused ? "" : tries}`);
    attribute(part(element, "when"), "title", moment(Date.parse(file.changed_at), now));
    show(part(element, "retry"), refused && picture.may.change);
  });
}

function fileRow(file, does) {
  return h("li", { class: "row" },
    h("div", { class: "row-text" },
      h("p", { class: "file" }, h("bdi", {}, visible(file.path)), h("span", { class: "of" }, visible(file.node ? `${file.feed} on ${file.node}` : file.feed))),
      h("p", { class: "reason", "data-part": "reason" })),
    h("div", { class: "row-side" }, h("span", { class: "pill", "data-part": "state" }), h("span", { class: "sub", "data-part": "when" })),
    h("button", { type: "button", "data-part": "retry", hidden: true, "aria-label": `Retry ${visible(file.path)}`, click: () => does.retryFile(file.id) }, "Retry"));
}
