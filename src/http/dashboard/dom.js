// Small things: elements, tables whose rows stay the same elements, and words
// for numbers and instants. Text only ever goes in as text.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

// A table in `place`. `columns`: { label, class?, text(item) } or { label,
// class?, draw(cell, item) }. What it returns takes the rows and their keys;
// a row keeps its element, and with it the focus, for as long as its key is
// there.
export function table(place, { columns, key, empty }) {
  const head = el("tr", {}, ...columns.map((column) =>
    el("th", { scope: "col", class: column.class === "num" ? "num" : "" }, column.label)));
  const body = el("tbody");
  const whole = el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), body));
  const nothing = el("p", { class: "empty" }, el("strong", {}, empty[0]), empty[1] ?? "");
  const rows = new Map();
  let started = false;
  place.replaceChildren(whole, nothing);
  const row = (item) => {
    const cells = columns.map((column) =>
      el("td", { class: column.class ?? "", "data-label": column.label }));
    return el("tr", started ? { class: "fresh" } : {}, ...cells);
  };
  return (items) => {
    show(whole, items.length > 0);
    show(nothing, items.length === 0);
    const wanted = new Set(items.map(key));
    for (const [id, element] of rows) {
      if (!wanted.has(id)) { element.remove(); rows.delete(id); }
    }
    let previous = null;
    for (const item of items) {
      const id = key(item);
      if (!rows.has(id)) rows.set(id, row(item));
      const element = rows.get(id);
      const place = previous ? previous.nextSibling : body.firstChild;
      if (place !== element) body.insertBefore(element, place);
      previous = element;
      columns.forEach((column, index) => {
        const cell = element.children[index];
        if (column.draw) column.draw(cell, item);
        else setText(cell, column.text(item));
      });
    }
    started = true;
  };
}

// A cell that shows a word with a coloured dot.
export function stateCell(cell, word, tone) {
  if (!cell.firstChild) cell.append(el("span"));
  cell.firstChild.className = `state dot ${tone}`;
  setText(cell.firstChild, word);
}

// A cell with a main line and a smaller one.
export function nameCell(cell, name, about, href) {
  if (!cell.firstChild) cell.append(href ? el("a", { href }) : el("span"), el("small"));
  if (href) cell.firstChild.setAttribute("href", href);
  setText(cell.firstChild, name);
  setText(cell.lastChild, about);
}

const whole = new Intl.NumberFormat("en");
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const count = (number) => whole.format(number);

export function rate(perSecond) {
  if (perSecond === 0) return "0/s";
  return `${perSecond >= 100 ? whole.format(Math.round(perSecond)) : fine.format(perSecond)}/s`;
}

export function millis(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms >= 1000) return `${fine.format(ms / 1000)} s`;
  return `${fine.format(ms)} ms`;
}

export function bytes(number) {
  if (number < 1024) return `${number} B`;
  if (number < 1024 * 1024) return `${fine.format(number / 1024)} KiB`;
  return `${fine.format(number / 1024 / 1024)} MiB`;
}

// How long a span is, in the two units that matter.
export function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [size, unit] = parts[first];
  const text = `${Math.floor(seconds / size)} ${unit}`;
  const next = parts[first + 1];
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  return next && rest > 0 && first < 2 ? `${text} ${rest} ${next[1]}` : text;
}

// The broker's clock, as far as this one knows it.
let ahead = 0;
export const heard = (at) => { ahead = Date.parse(at) - Date.now(); };
export const now = () => Date.now() + ahead;
export const since = (at) => span(now() - Date.parse(at));
export const until = (at) => {
  const left = Date.parse(at) - now();
  return left > 0 ? `in ${span(left)}` : "due";
};
export const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });
