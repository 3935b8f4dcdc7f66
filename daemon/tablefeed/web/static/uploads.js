// What is being sent now.

import { $, attribute, h, keyed, part, show, text } from "./dom.js";
import { count, duration, files, rate, size, visible } from "./format.js";

export function drawUploads(picture) {
  const found = picture.uploads;
  const all = found.reduce((total, upload) => total + upload.rate, 0);
  show($("no-uploads"), !found.length);
  text($("no-uploads"), picture.fleet.held.length ? "Nothing is being sent from here." : "Nothing is being sent.");
  text($("flight-sum"), found.length ? `${files(found.length)}, ${rate(all)}` : "");
  keyed($("uploads"), found, (upload) => upload.id, item, (element, upload) => {
    const share = upload.size ? upload.sent / upload.size : 0;
    const bar = part(element, "bar");
    attribute(bar, "value", share.toFixed(4));
    attribute(bar, "aria-valuetext", `${Math.floor(share * 100)} %`);
    text(part(element, "share"), `${Math.floor(share * 100)} %`);
    text(part(element, "figures"), figures(upload));
  });
}

function item(upload) {
  const name = visible(upload.path);
  return h("li", {},
    h("p", { class: "file" }, h("bdi", {}, name), h("span", { class: "share", "data-part": "share" })),
    h("progress", { max: "1", value: "0", "data-part": "bar", "aria-label": `Upload of ${name}` }),
    h("p", { class: "sub", "data-part": "figures" }));
}

function figures(upload) {
  const words = [visible(upload.feed), `${size(upload.sent)} of ${size(upload.size)}`];
  if (upload.rate >= 1) {
    words.push(rate(upload.rate));
    if (upload.sent < upload.size) words.push(`${duration((upload.size - upload.sent) / upload.rate)} left`);
    else words.push("waiting for the store’s word");
  } else if (upload.sent < upload.size) words.push("standing still");
  if (upload.attempts) words.push(`failed ${upload.attempts === 1 ? "once" : `${count(upload.attempts)} times`} before`);
  return words.join(" · ");
}
