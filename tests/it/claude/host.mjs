// A host made of a real client library: prints one object for each step.
// Arguments: the folder with the packages, the library's generation, the program and its
// arguments.
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, generation, command, ...args] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const say = (step, value) => console.log(JSON.stringify({ step, value }));

const libraries = {
  first: () => ({
    ...require("@modelcontextprotocol/sdk/client/index.js"),
    ...require("@modelcontextprotocol/sdk/client/stdio.js"),
  }),
  second: () => ({
    ...require("@modelcontextprotocol/client"),
    ...require("@modelcontextprotocol/client/stdio"),
  }),
};
const { Client, StdioClientTransport } = libraries[generation]();
const options = { capabilities: {}, versionNegotiation: { mode: "auto" } };
const transport = new StdioClientTransport({ command, args, env: process.env, stderr: "ignore" });
const client = new Client({ name: generation, version: "1" }, options);
const call = (name, given, options) =>
  generation === "first"
    ? client.callTool({ name, arguments: given }, undefined, options)
    : client.callTool({ name, arguments: given }, options);
const pushed = new Promise((resolve) => {
  client.fallbackNotificationHandler = async (notification) => {
    if (notification.method === "notifications/claude/channel") resolve(notification.params);
  };
});

await client.connect(transport);
say("initialized", {
  negotiated: client.getNegotiatedProtocolVersion?.() ?? null,
  experimental: client.getServerCapabilities().experimental,
  instructions: client.getInstructions().length,
});
say("listed", (await client.listTools()).tools.map((tool) => tool.name));
const message = await pushed;
say("pushed", message);
const gone = new AbortController();
const cancelled = call("check_messages", {}, { signal: gone.signal });
gone.abort("not wanted");
say("cancelled", await cancelled.then(() => false, () => true));
const answer = { to: "bob", message: "from a real client", reply_to: message.meta.message_id };
const called = await call("send_message", answer);
say("called", { text: called.content[0].text, isError: called.isError === true });
const { pid } = transport;
await client.close();
const runs = () => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};
say("ended", { runs: runs() });
