"use strict";
// Uses a key/value engine through `node-vault` and prints one JSON line per step.
//
//     story.js MOUNT NAME OTHER MISSING      the server is VAULT_ADDR, the token VAULT_TOKEN

const [mount, name, other, missing] = process.argv.slice(2);
const connect = (token) => require("node-vault")({ apiVersion: "v1", endpoint: process.env.VAULT_ADDR, token });
let vault = connect(process.env.VAULT_TOKEN);

const step = async (title, run) => {
  let seen;
  try {
    seen = (await run()) ?? null;
  } catch (error) {
    seen = `status ${error.response?.statusCode ?? error.message}`;
  }
  process.stdout.write(`${JSON.stringify({ step: title, seen })}\n`);
};

const read = async (path) => {
  const { data } = await vault.read(`${mount}/data/${path}`);
  return [data.data, data.metadata.version];
};
const write = async (path, value, options) =>
  (await vault.write(`${mount}/data/${path}`, { data: { value }, options })).data.version;
const list = async () => (await vault.list(`${mount}/metadata`)).data.keys.sort();

(async () => {
  await step("health", async () => (await vault.health()).sealed);
  await step("initialized", async () => (await vault.initialized()).initialized);
  await step("status", async () => (await vault.status()).sealed);
  await step("lookup", async () => "ttl" in (await vault.tokenLookupSelf()).data);
  await step("renew", async () => Boolean((await vault.tokenRenewSelf()).auth.client_token));
  await step("read missing", () => read(missing));
  await step("list nothing", list);
  await step("write", () => write(name, "hunter2 ü\n"));
  await step("read", () => read(name));
  await step("cas 0 of what is there", () => write(name, "hunter2 ü\n", { cas: 0 }));
  await step("cas 0 of what is not", () => write(other, "x", { cas: 0 }));
  await step("write another value", () => write(other, "y"));
  await step("list", list);
  await step("metadata", async () => (await vault.read(`${mount}/metadata/${name}`)).data.current_version);
  await step("delete", async () => (await vault.delete(`${mount}/data/${name}`)) ?? "done");
  await step("read deleted", () => read(name));
  await step("delete all", async () => (await vault.delete(`${mount}/metadata/${name}`)) ?? "done");
  await step("delete other", async () => (await vault.delete(`${mount}/metadata/${other}`)) ?? "done");
  await step("list nothing again", list);
  vault = connect("hvs.nobody");
  await step("as nobody", () => read(name));
})();
