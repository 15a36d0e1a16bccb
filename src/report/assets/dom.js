// Building the page. Texts from data become text nodes and nothing else.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

/** Adds children to an element: nodes, texts, arrays of both; null and false are left out. */
function add(parent, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return parent;
}

function assign(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return element;
}

/** An HTML element with attributes (`onclick` and the like are listeners) and children. */
function el(name, attributes = {}, ...children) {
  return add(assign(document.createElement(name), attributes), children);
}

/** An SVG element. */
function svg(name, attributes = {}, ...children) {
  return add(assign(document.createElementNS(SVG_NAMESPACE, name), attributes), children);
}

/** A text that someone else wrote: its line breaks kept, its direction its own. */
function foreign(text, classes = "text") {
  return el("div", { class: classes, dir: "auto" }, text === "" ? el("span", { class: "small" }, "(empty)") : text);
}

/** Says something to those who hear the page. */
function announce(text) {
  document.getElementById("live").textContent = text;
}

const round2 = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
/** The id of what takes the focus after the next change of view; its heading otherwise. */
let focusNext = null;

const fixed2 = (value) => value.toFixed(2);
const shownScore = (value, write = tidy) => (value === null ? "–" : write(value));
const tidy = (value) => String(Math.round(value * 100) / 100);
const signed = (value) => (value === null ? "–" : signedNumber(value));
const signedNumber = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(2);
const percent = (share) => Math.round(share * 100) + " %";
const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
