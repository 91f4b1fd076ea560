// Login, the event stream, and which page is shown.

import { Refused, follow, getJson, token } from "./api.js";
import { $, heard, setText, show } from "./dom.js";
import { drawHome, drawPlots } from "./home.js";
import { beginMesh, drawMesh, keepAudit, toast } from "./mesh.js";
import { beginShared, drawShared } from "./shared.js";

const HOUR_MS = 3600000;

const state = {
  node: "", nodes: new Map(), meshes: new Map(), meshesTotal: 0, mesh: null, audit: [], points: [],
};
let stop = null;
let shownMesh = null;

const byId = (items) => new Map(items.map((item) => [item.id, item]));

function apply(map, difference) {
  if (!difference) return;
  for (const item of difference.set) map.set(item.id, item);
  for (const id of difference.gone) map.delete(id);
}

function keepPoint(point) {
  if (!point || state.points.some((known) => known.at === point.at)) return;
  state.points = [...state.points, point].filter((one) => Date.now() - Date.parse(one.at) < 2 * HOUR_MS);
}

function onEvent(name, data) {
  if (name === "problem") { toast(data.message); return; }
  heard(data.at);
  if (name === "snapshot") {
    const isOther = state.node !== data.node;
    state.node = data.node;
    state.nodes = byId(data.nodes);
    state.meshes = byId(data.meshes);
    state.meshesTotal = data.meshesTotal;
    state.mesh = data.mesh;
    state.audit = keepAudit(data.audit, []);
    readSeries(isOther);
  } else if (name === "change") {
    apply(state.nodes, data.nodes);
    apply(state.meshes, data.meshes);
    if (data.mesh) state.mesh = data.mesh;
    if (data.audit) state.audit = keepAudit(state.audit, data.audit);
    keepPoint(data.point);
    if (data.point) drawPlots(state);
  }
  draw();
}

async function readSeries(isOther) {
  try {
    const series = await getJson("/series");
    if (isOther || series.node === state.node) state.points = series.points;
    drawPlots(state);
  } catch { /* the stream tells that the broker is gone */ }
}

function draw() {
  if (shownMesh === null) drawHome(state);
  else { drawMesh(state); drawShared(); }
}
// Ages grow also while nothing changes.
setInterval(() => { if (token.get() && stop) draw(); }, 1000);

function connection(tone, text) {
  $("connection").className = `pill dot ${tone}`;
  setText($("connection"), text);
  show($("connection"), true);
}

const watcher = {
  event: onEvent,
  live() {
    connection("good", "live");
    show($("lost"), false);
  },
  lost(seconds) {
    connection("bad", "offline");
    setText($("lost"), `Connection lost, retrying in ${seconds} s. What is shown may be old.`);
    show($("lost"), true);
  },
  refused(error) {
    if (error.status === 404 && !error.isOff && shownMesh !== null) {
      toast(error.message);
      location.hash = "#/";
      return;
    }
    logout(error.status === 401 ? "This token is not valid any more." : error.message);
  },
};

function open() {
  const match = location.hash.match(/^#\/mesh\/(.+)$/);
  const mesh = match ? decodeURIComponent(match[1]) : null;
  if (stop) stop();
  shownMesh = mesh;
  state.mesh = null;
  state.audit = [];
  show($("login"), false);
  show($("logout"), true);
  show($("home"), mesh === null);
  show($("mesh"), mesh !== null);
  window.scrollTo(0, 0);
  beginMesh(mesh);
  beginShared(mesh);
  const known = state.meshes.get(mesh);
  setText($("mesh-name"), known ? known.slug : mesh ? "…" : "");
  setText($("mesh-about"), "");
  document.title = known ? `${known.slug} – claudemesh broker` : "claudemesh broker";
  if (mesh !== null) $("mesh-name").focus({ preventScroll: true });
  connection("", "connecting …");
  stop = follow(mesh === null ? "/events" : `/events?mesh=${encodeURIComponent(mesh)}`, watcher);
}

function logout(why) {
  if (stop) stop();
  stop = null;
  beginShared(null);
  token.clear();
  for (const id of ["home", "mesh", "logout", "connection", "lost"]) show($(id), false);
  show($("login"), true);
  show($("login-error"), Boolean(why));
  setText($("login-error"), why ?? "");
  $("token").value = "";
  $("token").focus();
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  $("login-button").disabled = true;
  show($("login-error"), false);
  try {
    await getJson("/nodes", { bearer: given });
    token.set(given);
    $("token").value = "";
    open();
  } catch (error) {
    const text = error instanceof Refused
      ? error.status === 401 ? "That is not the admin token." : error.message
      : "The broker does not answer. Is it running?";
    setText($("login-error"), text);
    show($("login-error"), true);
    $("token").select();
  }
  $("login-button").disabled = false;
});
$("logout").addEventListener("click", () => logout());
window.addEventListener("hashchange", () => { if (token.get()) open(); });

if (token.get()) open();
else logout();
