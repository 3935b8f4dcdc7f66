// Values as people read them. Pure.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (unit < UNITS.length - 1 && Number(value.toFixed(unit ? 1 : 0)) >= 1024) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(unit && value < 100 ? 1 : 0).replace(/\.0$/, "")}\u00a0${UNITS[unit]}`;
}

export const rate = (bytes) => `${size(bytes)}/s`;

export const count = (number) => number.toLocaleString("en");

export const files = (number) => `${count(number)} ${number === 1 ? "file" : "files"}`;

// Seconds in the two largest units that are not nothing.
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}\u00a0s`;
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, length]) => whole >= length);
  const [unit, length] = parts[first];
  const [smaller, part] = parts[first + 1];
  const rest = Math.floor((whole % length) / part);
  const shown = rest && !(smaller === "s" && whole >= 600) ? ` ${rest}\u00a0${smaller}` : "";
  return `${Math.floor(whole / length)}\u00a0${unit}${shown}`;
}

// What is long ago need not be told to the second.
function age(seconds) {
  if (seconds >= 86400 * 10) return `${Math.round(seconds / 86400)}\u00a0d`;
  return duration(seconds < 60 ? seconds : Math.floor(seconds / 60) * 60);
}

export const ago = (then, now) => (now - then < 1500 ? "just now" : `${age((now - then) / 1000)} ago`);

export const until = (then, now) => (then - now < 1500 ? "now" : `in ${duration((then - now) / 1000)}`);

const two = (number) => String(number).padStart(2, "0");

export function clock(moment, seconds = true) {
  const date = new Date(moment);
  return `${two(date.getHours())}:${two(date.getMinutes())}${seconds ? `:${two(date.getSeconds())}` : ""}`;
}

export function day(moment) {
  const date = new Date(moment);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

// The time alone where it is of the same day as `now`.
export const moment = (then, now) => (day(then) === day(now) ? clock(then) : `${day(then)} ${clock(then)}`);

const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}\u115f\u1160\u3164\uffa0]/gu;

// Text of others with all that cannot be seen, or that turns the direction of what follows, written out.
export function visible(text) {
  return String(text).replace(HIDDEN, (sign) => {
    const code = sign.codePointAt(0);
    if (sign === "\n") return "\\n";
    if (sign === "\t") return "\\t";
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

// Reasons are written in the middle of a line; here they are sentences.
export function sentence(text) {
  const shown = visible(text);
  return /^[a-z]+[ ,;]|^[a-z]+: /.test(shown) ? shown[0].toUpperCase() + shown.slice(1) : shown;
}
