// Calls of the admin API. The token stands in a header, never in an address;
// the event stream is read by fetch for that reason.

const KEY = "claudemesh-admin-token";
const API = "admin/v1";
// The broker says something every five seconds; three times that is silence.
const SILENCE_MS = 15000;
const PAUSE_MAX_MS = 10000;

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  clear: () => sessionStorage.removeItem(KEY),
};

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// What would steer the page's text or hide in it: marks of direction, controls, what
// has no width. Names come from peers; here everything that was read goes through.
const STEERS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]|\udb40[\udc00-\udc7f]/g;
const printable = (text) => text.replace(STEERS, "\ufffd");
const parse = (text) => JSON.parse(text, (key, value) => (typeof value === "string" ? printable(value) : value));

async function refusal(response) {
  if (response.status === 404 && !(response.headers.get("content-type") ?? "").includes("json")) {
    const refused = new Refused(404, "This broker's admin API is off: ADMIN_TOKEN is not set any more.");
    refused.isOff = true;
    return refused;
  }
  let message = `The broker answered ${response.status}.`;
  try { message = (await read(response)).error.message; } catch { /* not ours */ }
  return new Refused(response.status, message);
}

export async function call(method, path, { signal, bearer = token.get() } = {}) {
  const response = await fetch(`${API}${path}`, {
    method, signal, cache: "no-store", headers: { authorization: `Bearer ${bearer}` },
  });
  if (!response.ok) throw await refusal(response);
  return response;
}

const read = async (response) => parse(await response.text());
export const getJson = async (path, options) => read(await call("GET", path, options));
export const postJson = async (path) => read(await call("POST", path));

// Reads events until `stop` is called, and begins anew whenever that ends.
// `on.event(name, data)`, `on.live()`, `on.lost(seconds)`, `on.refused(error)`.
export function follow(path, on) {
  const stopped = new AbortController();
  let failures = 0;
  const run = async () => {
    while (!stopped.signal.aborted) {
      try {
        await readOnce(path, stopped.signal, on, () => { failures = 0; });
      } catch (error) {
        if (stopped.signal.aborted) return;
        if (error instanceof Refused && [401, 404].includes(error.status)) {
          on.refused(error);
          return;
        }
      }
      if (stopped.signal.aborted) return;
      const pause = Math.min(1000 * 2 ** failures, PAUSE_MAX_MS);
      failures += 1;
      for (let left = Math.ceil(pause / 1000); left > 0 && !stopped.signal.aborted; left -= 1) {
        on.lost(left);
        await new Promise((done) => setTimeout(done, 1000));
      }
    }
  };
  run();
  return () => stopped.abort();
}

async function readOnce(path, stop, on, isWell) {
  const quiet = new AbortController();
  const abort = () => quiet.abort();
  stop.addEventListener("abort", abort);
  let alarm = setTimeout(abort, SILENCE_MS);
  try {
    const response = await call("GET", path, { signal: quiet.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(alarm);
      alarm = setTimeout(abort, SILENCE_MS);
      isWell();
      waiting += value;
      const blocks = waiting.split("\n\n");
      waiting = blocks.pop();
      for (const block of blocks) dispatch(block, on);
      on.live();
    }
  } finally {
    clearTimeout(alarm);
    stop.removeEventListener("abort", abort);
  }
}

function dispatch(block, on) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (data.length > 0) on.event(name, parse(data.join("\n")));
}
