// One mesh: who is there, what waits, the leases, the audit chain.

import { postJson } from "./api.js";
import { $, bytes, clock, count, el, nameCell, setText, show, since, stateCell, table, until } from "./dom.js";

const STATUS = { idle: "good", working: "warn", dnd: "bad" };
const LEASES = { online: "good", released: "warn", lost: "bad" };
const ROLES = { session: "session", "control-plane": "daemon", service: "service" };
const AUDIT_ROWS_MAX = 200;

let meshId = null;

function groups(cell, peer) {
  const text = peer.groups.join("\n");
  if (cell.dataset.groups === text) return;
  cell.dataset.groups = text;
  cell.replaceChildren(...peer.groups.map((group) => el("span", { class: "tag" }, `@${group}`)));
}

function status(cell, peer) {
  if (peer.online) stateCell(cell, peer.status, STATUS[peer.status] ?? "");
  else stateCell(cell, "away", "muted");
}

function evictCell(cell, peer) {
  if (cell.firstChild) return;
  cell.append(el("button", {
    type: "button", class: "evict", "aria-label": `Evict ${peer.name}`, onclick: () => askToEvict(peer),
  }, "Evict"));
}

const peers = table($("peers"), {
  key: (peer) => peer.presence,
  empty: ["Nobody is here.", "Peers show up the moment they connect."],
  columns: [
    { label: "Peer", class: "name",
      draw: (cell, peer) => nameCell(cell, peer.name, `${peer.key} · ${ROLES[peer.role] ?? peer.role}`) },
    { label: "Status", draw: status },
    { label: "For", text: (peer) => since(peer.statusSince) },
    { label: "Groups", draw: groups },
    { label: "Node", text: (peer) => peer.node },
    { label: "Here for", class: "num", text: (peer) => since(peer.since) },
    { label: "", class: "num", draw: evictCell },
  ],
});

const held = table($("held"), {
  key: (one) => `${one.target} ${one.name}`,
  empty: ["Nothing waits.", "All that was sent has been confirmed."],
  columns: [
    { label: "For", class: "name", draw: (cell, one) => nameCell(cell, one.name ?? one.target, one.name ? one.target : "") },
    { label: "Messages", class: "num", text: (one) => count(one.messages) },
    { label: "Now / next / low", class: "num", text: (one) => `${one.now} / ${one.next} / ${one.low}` },
    { label: "Size", class: "num", text: (one) => bytes(one.ciphertextBytes) },
    { label: "Oldest", class: "num", text: (one) => since(one.oldestAt) },
  ],
});

const leases = table($("leases"), {
  key: (lease) => lease.presence,
  empty: ["No lease is held."],
  columns: [
    { label: "Presence", class: "name", draw: (cell, lease) => nameCell(cell, lease.name, `…${lease.presence.slice(-8)}`) },
    { label: "State", draw: (cell, lease) => stateCell(cell, lease.state, LEASES[lease.state] ?? "") },
    { label: "Age", class: "num", text: (lease) => since(lease.since) },
    { label: "Expires", class: "num", text: (lease) => until(lease.expiresAt) },
  ],
});

const says = (value) => !(Array.isArray(value) && value.length === 0);
const details = (row) => Object.entries(row.payload).filter(([, value]) => says(value))
  .map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(" · ");

// The enrolled name is above it; what the session called itself proves nothing.
function who(row) {
  const session = row.sessionName && row.sessionName !== row.actorName ? `as ${row.sessionName}` : "";
  return [row.actorKey, session].filter(Boolean).join(" ");
}

const audit = table($("audit"), {
  key: (row) => row.id,
  empty: ["Nothing has happened yet."],
  columns: [
    { label: "Event", class: "name", draw: (cell, row) => nameCell(cell, row.event, `row ${row.id}`) },
    { label: "Who", draw: (cell, row) => nameCell(cell, row.actorName ?? row.actor ?? "system", who(row)) },
    { label: "What", class: "small", text: details },
    { label: "Hash", class: "code", text: (row) => row.hash.slice(0, 12) },
    { label: "When", class: "num", text: (row) => clock(row.at) },
  ],
});

// Another mesh, or none, is shown from now on.
export function beginMesh(id) {
  meshId = id;
  setText($("verdict"), "");
}

export function keepAudit(rows, more) {
  const known = new Map([...rows, ...more].map((row) => [row.id, row]));
  return [...known.values()].sort((a, b) => b.id - a.id).slice(0, AUDIT_ROWS_MAX);
}

// What the mesh asks of messages to groups, to everyone and to topics, in words.
const secrecy = {
  off: "groups in clear", preferred: "groups sealed where all can open it",
  required: "groups sealed, never in clear",
};

export function drawMesh(state) {
  const mesh = state.mesh;
  if (!mesh) return;
  setText($("mesh-name"), mesh.slug);
  const about = [mesh.name === mesh.slug ? null : mesh.name, mesh.archivedAt ? "archived" : null,
    secrecy[mesh.sealing], `${count(mesh.leases.length)} of ${count(mesh.cap)} places taken`, mesh.id];
  setText($("mesh-about"), about.filter(Boolean).join(" · "));
  setText($("peers-count"), count(mesh.peers.length));
  setText($("leases-count"), count(mesh.leases.length));
  const waiting = mesh.held.reduce((total, one) => total + one.messages, 0);
  setText($("held-count"), mesh.heldTruncated ? `more than ${count(waiting)}` : count(waiting));
  peers(mesh.peers);
  held(mesh.held);
  leases(mesh.leases);
  audit(state.audit);
}

const dialog = $("confirm");
let onYes = null;
$("confirm-no").addEventListener("click", () => dialog.close());
$("confirm-yes").addEventListener("click", async () => {
  $("confirm-yes").disabled = true;
  try {
    const said = await onYes();
    dialog.close();
    toast(said);
  } catch (error) {
    setText($("confirm-error"), error.message);
    show($("confirm-error"), true);
  }
  $("confirm-yes").disabled = false;
});

function askToEvict(peer) {
  const mesh = meshId;
  setText($("confirm-title"), `Evict ${peer.name}?`);
  setText($("confirm-text"), "Its connection is closed as kicked, its place is free at once, and its peers "
    + "are told that it left. What waits for it stays. The audit chain records this.");
  setText($("confirm-yes"), `Evict ${peer.name}`);
  show($("confirm-error"), false);
  onYes = async () => {
    const path = `/meshes/${encodeURIComponent(mesh)}/presences/${encodeURIComponent(peer.presence)}/evict`;
    const { evicted } = await postJson(path);
    return evicted ? `${peer.name} was evicted.` : `${peer.name} had left already.`;
  };
  dialog.showModal();
}

$("verify").addEventListener("click", async () => {
  const verdict = $("verdict");
  const mesh = meshId;
  $("verify").disabled = true;
  verdict.className = "small muted";
  setText(verdict, "Walking the chain …");
  try {
    const { valid, rows, brokenAt } = await postJson(`/meshes/${encodeURIComponent(mesh)}/audit/verify`);
    verdict.className = `small state dot ${valid ? "good" : "bad"}`;
    setText(verdict, valid ? `The chain holds: ${count(rows)} rows.` : `The chain breaks at row ${brokenAt}.`);
  } catch (error) {
    verdict.className = "small bad";
    setText(verdict, error.message);
  }
  $("verify").disabled = false;
});

let toastEnds = null;
export function toast(text) {
  setText($("toast"), text);
  show($("toast"), true);
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => show($("toast"), false), 4000);
}
