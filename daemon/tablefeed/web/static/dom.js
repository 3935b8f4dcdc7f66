// Building the page. Text goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export const h = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);

export const s = (name, attributes = {}, ...children) => filled(document.createElementNS(SVG, name), attributes, children);

// Set only what differs, so that nothing is announced, selected or painted anew for nothing.
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

export function attribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

// Let `parent` hold one element an item, in this order; those that stay are the same elements, with their focus.
export function keyed(parent, items, key, create, update) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let element = there.get(name);
    there.delete(name);
    if (!element) {
      element = create(item);
      element.dataset.key = name;
    }
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const gone of there.values()) gone.remove();
}

// Elements inside one, by their data-part.
export const part = (element, name) => element.querySelector(`[data-part="${name}"]`);

const ICONS = {
  ok: "M4.5 9.4l2.8 2.8 6.2-6.6",
  bad: "M9 3.6v6.2M9 13.7v.1",
  wait: "M9 2.6a6.4 6.4 0 1 0 .01 0M9 5.8v3.5l2.3 1.4",
  pause: "M6.8 5v8M11.2 5v8",
  lost: "M5 5l8 8M13 5l-8 8",
};

export function icon(name) {
  return s("svg", { viewBox: "0 0 18 18", class: "icon", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));
}
