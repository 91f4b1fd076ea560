// Lines over the last hour, as SVG. A crosshair follows the pointer, or the
// arrow keys while the plot has the focus; the legend then tells the values of
// that instant.

import { clock, el, now, setText } from "./dom.js";

const MINUTE_MS = 60000;
// Minutes across: the hour, or as much of it as there is.
const WINDOWS = [12, 20, 40, 60];
const HEIGHT = 190;
const LEFT = 54;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 24;
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The next of 1, 2, 5, 10, 20 ... so that three steps reach above `max`.
function step(max) {
  const rough = Math.max(max, 0.003) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
}

// `lines`: { label, class, value(point) }; a value of null is a gap.
export function plot(place, { lines, unit, about }) {
  const canvas = svg("svg", { class: "plot", role: "img", tabindex: "0", "aria-label": about });
  const legend = el("div", { class: "legend" });
  const values = lines.map((line) => {
    const value = el("b");
    legend.append(el("span", { class: `key ${line.class}` }, el("span", { class: "muted" }, line.label), value));
    return value;
  });
  const when = el("span", {});
  legend.append(when);
  place.replaceChildren(canvas, legend);
  let points = [];
  let chosen = null;
  let minutes = WINDOWS[0];

  const draw = () => {
    const width = Math.max(place.clientWidth, 200);
    const end = now();
    const age = points.length > 0 ? end - Date.parse(points[0].at) : 0;
    minutes = WINDOWS.find((window) => age <= window * MINUTE_MS) ?? WINDOWS.at(-1);
    const across = minutes * MINUTE_MS;
    const shown = points.filter((point) => end - Date.parse(point.at) <= across);
    const all = shown.flatMap((point) => lines.map((line) => line.value(point) ?? 0));
    const grid = step(Math.max(0, ...all));
    const top = 3 * grid;
    const x = (at) => LEFT + (1 - (end - Date.parse(at)) / across) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    canvas.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const parts = [];
    for (let index = 0; index <= 3; index += 1) {
      const at = y(index * grid);
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      parts.push(svg("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, unit(index * grid)));
    }
    for (const part of width < 420 ? [1, 0.5, 0] : [1, 0.75, 0.5, 0.25, 0]) {
      const at = LEFT + (1 - part) * (width - LEFT - RIGHT);
      const anchor = part === 0 ? "end" : part === 1 ? "start" : "middle";
      parts.push(svg("text", { x: at, y: HEIGHT - 6, "text-anchor": anchor },
        part === 0 ? "now" : `−${part * minutes} min`));
    }
    for (const line of lines) parts.push(...curve(shown, line, x, y));
    const at = chosen === null ? null : shown.find((point) => point.at === chosen);
    if (at) parts.push(svg("line", { class: "cross", x1: x(at.at), x2: x(at.at), y1: TOP, y2: HEIGHT - BOTTOM }));
    canvas.replaceChildren(...parts);
    tell(at ?? shown.at(-1), Boolean(at));
    if (shown.length === 0) {
      canvas.append(svg("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" },
        "The first point comes within ten seconds."));
    }
  };

  const tell = (point, isChosen) => {
    lines.forEach((line, index) => {
      const value = point ? line.value(point) : null;
      setText(values[index], value === null ? "–" : unit(value));
    });
    setText(when, isChosen ? `at ${clock(point.at)}` : "");
  };

  const choose = (clientX) => {
    const box = canvas.getBoundingClientRect();
    const part = (clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    const at = now() - (1 - part) * minutes * MINUTE_MS;
    const near = (point) => Math.abs(Date.parse(point.at) - at);
    const best = points.reduce((a, b) => (a && near(a) <= near(b) ? a : b), null);
    chosen = best?.at ?? null;
    draw();
  };
  canvas.addEventListener("pointermove", (event) => choose(event.clientX));
  canvas.addEventListener("pointerleave", () => { chosen = null; draw(); });
  canvas.addEventListener("blur", () => { chosen = null; draw(); });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || points.length === 0) return;
    event.preventDefault();
    const from = points.findIndex((point) => point.at === chosen);
    const index = (from < 0 ? points.length : from) + move;
    chosen = points[Math.min(Math.max(index, 0), points.length - 1)].at;
    draw();
  });
  new ResizeObserver(draw).observe(place);
  return (next) => { points = next; draw(); };
}

// A line with the area below it, in as many pieces as there are without gaps.
function curve(points, line, x, y) {
  const pieces = [];
  let piece = [];
  let last = null;
  for (const point of points) {
    const value = line.value(point);
    const gap = last !== null && Date.parse(point.at) - last > 35000;
    if ((value === null || gap) && piece.length > 0) { pieces.push(piece); piece = []; }
    if (value !== null) piece.push([x(point.at), y(value)]);
    last = Date.parse(point.at);
  }
  if (piece.length > 0) pieces.push(piece);
  return pieces.flatMap((piece) => {
    const path = `M${piece.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}`;
    const [from, to] = [piece[0][0], piece.at(-1)[0]];
    const bottom = y(0);
    // A single point has no length.
    if (piece.length === 1) return [svg("circle", { class: line.class, cx: from, cy: piece[0][1], r: 2 })];
    return [
      svg("path", { class: `area ${line.class}`, d: `${path}L${to} ${bottom}L${from} ${bottom}Z` }),
      svg("path", { class: `line ${line.class}`, d: path }),
    ];
  });
}
