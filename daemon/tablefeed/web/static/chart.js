// What was delivered in the last hour, minute by minute: bytes above, files below, on one axis of time.

import { $, attribute, h, keyed, s, show, text } from "./dom.js";
import { clock, count, files, size } from "./format.js";

const TOP = 20;
const BYTES = 104;
const GAP = 30;
const FILES = 46;
const BOTTOM = 22;
const LEFT = 62;
const HEIGHT = TOP + BYTES + GAP + FILES + BOTTOM;

const tip = h("p", { class: "tip", "aria-hidden": "true", hidden: true });
const mark = s("rect", { class: "mark", y: TOP, height: BYTES + GAP + FILES, width: 0, visibility: "hidden" });
let drawing = null;
let shown = [];
let width = 0;

export function drawHour(hour) {
  if (JSON.stringify(hour) === JSON.stringify(shown)) return;
  shown = hour;
  draw();
  table();
}

function draw() {
  const box = $("chart");
  width = Math.max(260, box.clientWidth);
  if (!drawing) start(box);
  attribute(drawing, "viewBox", `0 0 ${width} ${HEIGHT}`);
  attribute(drawing, "height", HEIGHT);
  attribute(drawing, "aria-label", summary());
  drawing.replaceChildren(
    ...panel("bytes", TOP, BYTES, shown.map((minute) => minute.bytes), niceBytes, size),
    ...panel("files", TOP + BYTES + GAP, FILES, shown.map((minute) => minute.files), niceCount, count),
    ...times(),
    mark,
  );
}

function start(box) {
  drawing = s("svg", { role: "img", class: "chart" });
  box.append(drawing, tip);
  drawing.addEventListener("pointermove", point);
  drawing.addEventListener("pointerleave", () => point(null));
  new ResizeObserver(() => box.clientWidth !== width && shown.length && draw()).observe(box);
}

const step = () => (width - LEFT - 4) / (shown.length || 60);

function panel(name, top, height, values, nice, format) {
  const most = nice(Math.max(...values, 0));
  const line = (value) => top + height - (height * value) / most;
  const parts = [s("text", { class: "what", x: LEFT, y: top - 7 }, name)];
  for (const value of height > 60 ? [0, most / 2, most] : [0, most]) {
    parts.push(s("line", { class: value ? "rule" : "rule base", x1: LEFT, x2: width - 4, y1: line(value), y2: line(value) }));
    parts.push(s("text", { class: "scale", x: LEFT - 8, y: line(value) + 4 }, format(value)));
  }
  values.forEach((value, at) => {
    if (!value) return;
    const tall = Math.max(1.5, (height * value) / most);
    const x = LEFT + at * step() + step() * 0.14;
    parts.push(s("rect", { class: `bar ${name}`, x, y: top + height - tall, width: step() * 0.72, height: tall, rx: Math.min(1.5, tall / 2) }));
  });
  return parts;
}

function times() {
  return shown.flatMap((minute, at) => {
    if (new Date(minute.at).getMinutes() % 10) return [];
    const x = LEFT + (at + 0.5) * step();
    const room = x > LEFT + 8 && x < width - 16;
    return room ? [s("text", { class: "time", x, y: HEIGHT - 6 }, clock(minute.at, false))] : [];
  });
}

// 1, 2 or 5 times a power of ten, of 1,024 bytes where there are so many.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((limit) => limit >= value);
}

function niceBytes(value) {
  let unit = 1;
  while (value / unit >= 1024) unit *= 1024;
  return Math.max(value ? 2 : 1024, Math.min(nice(value / unit), 1024) * unit);
}

const niceCount = (value) => Math.max(2, nice(value));

function summary() {
  const sum = (name) => shown.reduce((total, minute) => total + minute[name], 0);
  if (!sum("files")) return "Nothing was delivered in the last hour.";
  const most = shown.reduce((best, minute) => (minute.bytes > best.bytes ? minute : best));
  return `In the last hour ${files(sum("files"))} with ${size(sum("bytes"))} were delivered, most of them at ${clock(most.at, false)}: ${files(most.files)}, ${size(most.bytes)}.`;
}

function table() {
  const sum = (name) => shown.reduce((total, minute) => total + minute[name], 0);
  text($("hour-sum"), sum("files") ? `${files(sum("files"))}, ${size(sum("bytes"))}` : "nothing delivered");
  keyed($("hour-rows"), shown.filter((minute) => minute.files).reverse(), (minute) => minute.at,
    () => h("tr", {}, h("th", { scope: "row" }), h("td"), h("td")),
    (row, minute) => {
      text(row.children[0], clock(minute.at, false));
      text(row.children[1], count(minute.files));
      text(row.children[2], size(minute.bytes));
    });
}

function point(event) {
  const at = event && Math.floor((event.offsetX - LEFT) / step());
  const minute = event && event.offsetX >= LEFT ? shown[at] : undefined;
  show(tip, Boolean(minute));
  attribute(mark, "visibility", minute ? "visible" : "hidden");
  if (!minute) return;
  attribute(mark, "x", LEFT + at * step());
  attribute(mark, "width", step());
  text(tip, `${clock(minute.at, false)}  ${files(minute.files)}, ${size(minute.bytes)}`);
  tip.style.left = `${Math.min(Math.max(event.offsetX - tip.offsetWidth / 2, 0), width - tip.offsetWidth)}px`;
}
