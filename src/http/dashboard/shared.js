// What a mesh shares, by name and time. Values stay where they are.

import { getJson } from "./api.js";
import { $, count, el, nameCell, setText, since, stateCell, table, until } from "./dom.js";

const PAUSE_MS = 5000;
const STATUS = { open: "", claimed: "warn", done: "good" };

const when = (schedule) => schedule.cron ? `${schedule.cron} ${schedule.timezone ?? "UTC"}` : "once";
const held = (task) => task.claimExpiresAt ? `${task.claimedBy}, ends ${until(task.claimExpiresAt)}` : task.claimedBy ?? "";
const calls = (hook) => hook.direction === "out"
  ? `${count(hook.waiting)} wait, ${count(hook.deadLetters)} given up` : "";

// What is listed: a line for each, in the order of the page.
const LISTS = [
  { id: "tasks", title: "Tasks", key: (task) => task.id, empty: ["Nothing is to be done."], columns: [
    { label: "Task", class: "name", draw: (cell, task) => nameCell(cell, task.title, task.id.slice(0, 8)) },
    { label: "Status", draw: (cell, task) => stateCell(cell, task.status, STATUS[task.status] ?? "") },
    { label: "By", text: held },
    { label: "Since", class: "num", text: (task) => since(task.createdAt) } ] },
  { id: "schedules", title: "Scheduled messages", key: (one) => one.id, empty: ["Nothing is to be sent later."], columns: [
    { label: "For", class: "name", draw: (cell, one) => nameCell(cell, one.target, one.sealed ? "sealed" : "") },
    { label: "From", text: (one) => one.by ?? "" },
    { label: "Repeats", text: when },
    { label: "Sent", class: "num", text: (one) => until(one.dueAt) } ] },
  { id: "state", title: "State", key: (entry) => entry.key, empty: ["No value is shared."], columns: [
    { label: "Key", class: "name", text: (entry) => entry.key },
    { label: "Version", class: "num", text: (entry) => count(entry.version) },
    { label: "By", text: (entry) => entry.updatedBy ?? "" },
    { label: "Changed", class: "num", text: (entry) => since(entry.updatedAt) } ] },
  { id: "topics", title: "Topics", key: (topic) => topic.name, empty: ["There are no topics."], columns: [
    { label: "Topic", class: "name", draw: (cell, topic) => nameCell(cell, `#${topic.name}`, topic.archivedAt ? "archived" : "") },
    { label: "Seen by", text: (topic) => topic.visibility },
    { label: "Members", class: "num", text: (topic) => count(topic.members) },
    { label: "Since", class: "num", text: (topic) => since(topic.createdAt) } ] },
  { id: "webhooks", title: "Webhooks", key: (hook) => hook.name, empty: ["There are no webhooks."], columns: [
    { label: "Webhook", class: "name", draw: (cell, hook) => nameCell(cell, hook.name, hook.events.join(" ")) },
    { label: "Called by", text: (hook) => (hook.direction === "in" ? "others" : "the broker") },
    { label: "Calls", text: calls },
    { label: "Last", class: "num", text: (hook) => (hook.deliveredAt ? since(hook.deliveredAt) : "") } ] },
];

for (const list of LISTS) {
  const place = el("div", { id: `shared-${list.id}` });
  const heading = el("h2", { id: `shared-${list.id}-title` }, `${list.title} `);
  list.count = el("span", { class: "count", id: `shared-${list.id}-count` });
  heading.append(list.count);
  $("shared").append(el("section", { class: "card", "aria-labelledby": heading.id }, heading, place));
  list.draw = table(place, list);
}

let shown = null;
let asking = null;
// Which beginning is the last: an answer to an earlier one is late.
let turn = 0;

// Another mesh, or none, is shown from now on.
export function beginShared(id) {
  turn += 1;
  shown = null;
  clearTimeout(asking);
  for (const list of LISTS) { setText(list.count, ""); list.draw([]); }
  if (id !== null) ask(id, turn);
}

async function ask(id, mine) {
  try {
    const shared = await getJson(`/meshes/${encodeURIComponent(id)}/shared`);
    if (mine !== turn) return;
    shown = shared;
    drawShared();
  } catch { /* the stream tells that the broker is gone */ }
  if (mine === turn) asking = setTimeout(() => ask(id, mine), PAUSE_MS);
}

export function drawShared() {
  if (shown === null) return;
  for (const list of LISTS) {
    const { rows, more } = shown[list.id];
    setText(list.count, more ? `more than ${count(rows.length)}` : count(rows.length));
    list.draw(rows);
  }
}
