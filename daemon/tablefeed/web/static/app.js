// The page: takes each picture of the daemon and shows it.

import { change, Refused } from "./actions.js";
import { drawHour } from "./chart.js";
import { $, attribute, h, icon, keyed, part, show, text } from "./dom.js";
import { drawFeeds, sumOfFeeds } from "./feeds.js";
import { ago, clock, count, files, moment, rate, sentence, size, until, visible } from "./format.js";
import { History } from "./history.js";
import { Live } from "./live.js";
import { drawNodes } from "./nodes.js";
import { drawFiles, drawTroubles, troublesOf } from "./trouble.js";
import { drawUploads } from "./uploads.js";

let picture = null;
let takenAt = 0; // when this browser got it, on its own clock
let link = "connecting";
let announced = "";

const does = {
  pause: (feed, verb) => attempt(async () => {
    const said = await change(`/api/feeds/${encodeURIComponent(feed)}/${verb}`);
    if (said) tell(said.paused ? `${said.feed} is paused. What is being sent is finished; the rest waits.` : `${said.feed} goes on.`);
  }),
  retryFile: (id) => attempt(() => retry({ ids: [id] })),
  retryFeed: (feed) => attempt(() => retry({ feed })),
};

async function retry(wanted) {
  const back = [];
  const left = [];
  for (let after = 0; after !== null;) {
    const said = await change("/api/retry", after ? { ...wanted, after } : wanted);
    if (!said) return;
    back.push(...said.put_back);
    left.push(...said.not_put_back);
    after = said.next;
  }
  const words = back.length === 1 ? `${visible(back[0].path)} is tried again.` : `${files(back.length)} are tried again.`;
  const why = left.length ? `Not put back: ${left.slice(0, 3).map((file) => visible(file.problem)).join("; ")}${left.length > 3 ? `; and ${count(left.length - 3)} more` : ""}.` : "";
  tell([back.length || !left.length ? words : "", why].filter(Boolean).join(" "), left.length > 0);
}

async function attempt(what) {
  try {
    await what();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(sentence(error.message), true);
  }
}

let fading = null;

function tell(words, wrong = false) {
  clearTimeout(fading);
  text($("notice-text"), words);
  $("notice").classList.toggle("bad", wrong);
  show($("notice"), true);
  say(words);
  if (!wrong) fading = setTimeout(() => show($("notice"), false), 8000);
}

const say = (words) => text($("said"), words);

// The daemon's time now: its last word, and what has passed here since.
const time = () => Date.parse(picture.now) + (fresh() ? performance.now() - takenAt : 0);

const fresh = () => link === "live" || link === "polled";

function onPicture(next) {
  if (picture && (next.pid !== picture.pid || next.started_at !== picture.started_at)) say("The daemon was started anew.");
  picture = next;
  takenAt = performance.now();
  document.body.classList.remove("unseen");
  draw();
}

function draw() {
  const now = time();
  about(now);
  headline(now);
  totals(now);
  drawTroubles(picture, now);
  drawFeeds(picture, now, does);
  drawUploads(picture);
  drawNodes(picture);
  drawHour(picture.hour);
  drawFiles(picture, now, does);
  bandwidth();
  history.see(picture);
}

function about(now) {
  text($("node"), visible(picture.node));
  text($("version"), `version ${picture.version}`);
  text($("uptime"), `running since ${moment(Date.parse(picture.started_at), now)}`);
}

function headline(now) {
  const sign = !picture.ok ? "bad" : picture.draining || picture.headline !== "all is well" ? "wait" : "ok";
  attribute($("state"), "data-sign", sign);
  if ($("badge").dataset.sign !== sign) {
    $("badge").dataset.sign = sign;
    $("badge").replaceChildren(icon(sign === "wait" ? "bad" : sign));
  }
  text($("headline"), sentence(picture.headline));
  text($("next"), next(now));
  if (picture.headline !== announced) {
    if (announced) say(sentence(picture.headline));
    announced = picture.headline;
  }
}

// What is going on, and what comes next.
function next(now) {
  const words = [];
  const total = picture.totals;
  const speed = picture.uploads.reduce((all, upload) => all + upload.rate, 0);
  if (picture.uploads.length) words.push(`${files(picture.uploads.length)} in flight at ${rate(speed)}`);
  if (total.queued) words.push(`${files(total.queued)} queued`);
  const moments = [...troublesOf(picture), ...picture.feeds.filter((feed) => feed.retrying)].map((one) => one.next_try_at).filter(Boolean);
  if (moments.length) words.push(`next try ${until(Math.min(...moments.map((at) => Date.parse(at))), now)}`);
  const unsettled = sumOfFeeds(picture, "unsettled");
  if (unsettled) words.push(`${files(unsettled)} not whole yet`);
  if (!words.length) words.push("Nothing is waiting");
  if (total.last_delivery_at) words.push(`last delivery ${ago(Date.parse(total.last_delivery_at), now)}`);
  return sentence(words.join(" · "));
}

function totals(now) {
  const total = picture.totals;
  const last = total.last_delivery_at && Date.parse(total.last_delivery_at);
  const tiles = [
    ["Queued", count(total.queued), total.queued ? size(total.queued_bytes) : "nothing waits"],
    ["In flight", count(total.uploading), total.archiving ? `${count(total.archiving)} to archive` : picture.uploads.length ? `${count(picture.uploads.length)} being sent${picture.fleet.now ? " here" : ""}` : picture.fleet.held.length ? "on other nodes" : total.uploading ? "waiting for their turn" : "nothing is sent"],
    ["Delivered today", count(total.delivered_today), size(total.bytes_today)],
    ["Refused", count(total.refused), total.refused ? "set aside in failed/" : "none set aside", total.refused > 0],
    ["Last delivery", last ? ago(last, now) : "never", last ? moment(last, now) : ""],
  ];
  keyed($("totals"), tiles, ([name]) => name, ([name]) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, h("span", { class: "big", "data-part": "big" }), h("span", { class: "sub", "data-part": "sub" }))), (element, [, big, sub, alarm]) => {
    text(part(element, "big"), big);
    text(part(element, "sub"), sub);
    element.classList.toggle("alarm", Boolean(alarm));
  });
}

function bandwidth() {
  const box = $("bandwidth");
  if (!box.firstChild) {
    box.append(h("span", { "data-part": "limit" }), " ", h("button", { type: "button", class: "plain", "data-part": "set", hidden: true, click: askForLimit }, "Change"));
    attribute(part(box, "set"), "aria-label", "Change the bandwidth");
  }
  const source = picture.bandwidth_source ? ` (${visible(picture.bandwidth_source)})` : "";
  const limited = picture.bandwidth !== null ? `Bandwidth ${rate(picture.bandwidth)}${source}` : `No bandwidth limit${picture.bandwidth_source === "configuration" ? "" : source}`;
  text(part(box, "limit"), picture.bandwidth === null && !picture.may.change ? "" : limited);
  show(part(box, "set"), picture.may.change);
}

function askForLimit() {
  const dialog = $("limit-dialog");
  const wrong = (words) => {
    text($("limit-wrong"), words);
    show($("limit-wrong"), Boolean(words));
  };
  const set = async (wanted) => {
    try {
      const said = await change("/api/bandwidth", { rate: wanted });
      if (!said) return;
      dialog.close();
      tell(wanted === null ? "The bandwidth is as configured." : wanted ? `The bandwidth is ${wanted}.` : "The bandwidth has no limit.");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      wrong(sentence(error.message));
    }
  };
  wrong("");
  $("rate").value = picture.bandwidth === null ? "" : rate(picture.bandwidth).replace(/\s/g, "");
  $("limit-form").onsubmit = (event) => {
    event.preventDefault();
    set($("rate").value.trim());
  };
  $("limit-cancel").onclick = () => dialog.close();
  $("limit-release").onclick = () => set(null);
  dialog.showModal();
}

const LINKS = { live: "live", polled: "looked at every 5 s", lost: "connection lost", ended: "the daemon has ended", waking: "looking again", connecting: "connecting" };

function onLink(next) {
  const before = link;
  if (!(next === "lost" && link === "ended")) link = next;
  if (before !== link && link === "lost") say("The connection to the daemon is lost.");
  if (before !== link && link === "ended") say("The daemon has ended.");
  if (fresh() && (before === "lost" || before === "ended")) say("The daemon is back.");
  truth();
}

// How old what is shown is, said where nobody can miss it.
function truth() {
  attribute($("link"), "data-link", link);
  text($("link-text"), LINKS[link]);
  document.body.classList.toggle("stale", !fresh());
  const away = link === "lost" || link === "ended";
  show($("lost"), away);
  if (away) {
    const what = link === "ended" ? "The daemon has ended." : "The connection to the daemon is lost.";
    const since = picture ? ` What you see is from ${clock(Date.parse(picture.now))}, ${ago(0, performance.now() - takenAt)}.` : "";
    text($("lost"), `${what}${since} Trying again by itself.`);
  }
  const sign = away || !picture ? "wait" : picture.ok ? "ok" : "bad";
  attribute($("icon"), "href", `/static/${sign}.svg`);
  const word = away ? "no connection" : picture ? (picture.ok ? "well" : "trouble") : "connecting";
  const title = `tablefeed${picture ? ` on ${visible(picture.node)}` : ""}: ${word}`;
  if (document.title !== title) document.title = title;
}

$("notice-close").addEventListener("click", () => show($("notice"), false));
const history = new History(does);
new Live(onPicture, onLink);
setInterval(() => {
  truth();
  if (picture && fresh() && !document.hidden) draw();
}, 1000);
