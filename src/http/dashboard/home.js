// Nodes, meshes and the last hour.

import { $, count, el, millis, nameCell, rate, setText, span, stateCell, table } from "./dom.js";
import { plot } from "./plot.js";

const TONES = { ready: "good", draining: "warn", degraded: "bad" };

const tiles = {};
for (const [id, label] of [["nodes", "Nodes ready"], ["sockets", "Sockets"], ["accepted", "Accepted"],
  ["delivered", "Delivered"], ["queued", "Waiting"]]) {
  const value = el("span");
  const small = el("small");
  $("tiles").append(el("div", { class: "tile" }, el("dt", {}, label), el("dd", {}, value, small)));
  tiles[id] = (text, about = "") => { setText(value, text); setText(small, about); };
}

const nodes = table($("nodes"), {
  key: (node) => node.id,
  empty: ["No node has said anything yet."],
  columns: [
    { label: "Node", class: "name", draw: (cell, node) => nameCell(cell, node.id, node.region ?? "") },
    { label: "State", draw: (cell, node) => stateCell(cell, node.state, TONES[node.state] ?? "bad") },
    { label: "Version", text: (node) => node.version },
    { label: "Sockets", class: "num", text: (node) => count(node.sockets) },
    { label: "Meshes", class: "num", text: (node) => count(node.meshes) },
    { label: "Accepted", class: "num", text: (node) => rate(node.acceptedPerSecond) },
    { label: "Delivered", class: "num", text: (node) => rate(node.deliveredPerSecond) },
    { label: "Bus lag", class: "num", text: (node) => millis(node.busLagMs) },
    { label: "Up for", class: "num", text: (node) => span(node.uptimeSeconds * 1000) },
  ],
});

function fill(cell, mesh) {
  if (!cell.firstChild) {
    const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("i"));
    cell.append(el("span", { class: "fill" }, el("span"), bar));
  }
  const [text, bar] = cell.firstChild.children;
  setText(text, `${count(mesh.places)} of ${count(mesh.cap)}`);
  bar.firstChild.style.width = `${Math.min(100, (100 * mesh.places) / mesh.cap)}%`;
  bar.classList.toggle("full", mesh.places >= 0.9 * mesh.cap);
}

const meshes = table($("meshes"), {
  key: (mesh) => mesh.id,
  empty: ["There is no mesh yet.", "claudemesh-broker mesh create <slug> makes one."],
  columns: [
    { label: "Mesh", class: "name",
      draw: (cell, mesh) => nameCell(cell, mesh.slug,
        mesh.archivedAt ? "archived" : mesh.name === mesh.slug ? "" : mesh.name,
        `#/mesh/${encodeURIComponent(mesh.id)}`) },
    { label: "Members", class: "num", text: (mesh) => count(mesh.members) },
    { label: "Places taken", class: "num", draw: fill },
    { label: "Sockets", class: "num", text: (mesh) => count(mesh.sockets) },
    { label: "Waiting", class: "num", text: (mesh) => count(mesh.queued) },
    { label: "Accepted", class: "num", text: (mesh) => rate(mesh.acceptedPerSecond) },
    { label: "Delivered", class: "num", text: (mesh) => rate(mesh.deliveredPerSecond) },
  ],
});

const perSecond = (value) => rate(value);
const throughput = plot($("throughput"), {
  unit: perSecond,
  about: "Messages per second over the last hour. Arrow keys tell single values.",
  lines: [
    { label: "accepted", class: "first", value: (point) => point.acceptedPerSecond },
    { label: "delivered", class: "second", value: (point) => point.deliveredPerSecond },
  ],
});
const something = (point, value) => (point.acceptedPerSecond > 0 ? value : null);
const latency = plot($("latency"), {
  unit: millis,
  about: "Latency over the last hour. Arrow keys tell single values.",
  lines: [
    { label: "until kept on disk", class: "first", value: (point) => something(point, point.acceptP99Ms) },
    { label: "until on its way out", class: "second", value: (point) => something(point, point.deliverP99Ms) },
  ],
});

export function drawHome(state) {
  const list = [...state.nodes.values()].sort((a, b) => a.id.localeCompare(b.id));
  const sum = (items, of) => items.reduce((total, item) => total + of(item), 0);
  const ready = list.filter((node) => node.state === "ready").length;
  tiles.nodes(`${ready}`, `of ${list.length}`);
  tiles.sockets(count(sum(list, (node) => node.sockets)));
  tiles.accepted(rate(sum(list, (node) => node.acceptedPerSecond)));
  tiles.delivered(rate(sum(list, (node) => node.deliveredPerSecond)));
  const all = [...state.meshes.values()];
  tiles.queued(count(sum(all, (mesh) => mesh.queued)), "messages");
  setText($("nodes-count"), count(list.length));
  nodes(list);
  all.sort((a, b) => Boolean(a.archivedAt) - Boolean(b.archivedAt) || b.places - a.places
    || b.queued - a.queued || a.slug.localeCompare(b.slug));
  const total = Math.max(state.meshesTotal, all.length);
  setText($("meshes-count"), total > all.length ? `${count(all.length)} of ${count(total)}` : count(total));
  meshes(all);
}

export function drawPlots(state) {
  setText($("throughput-of"), state.nodes.size > 1 ? `on ${state.node}` : "");
  throughput(state.points);
  latency(state.points);
}
