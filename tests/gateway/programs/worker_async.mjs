// A worker on the newer engine of the official TypeScript SDK, where functions are async; told what to do by lines.
import { appendFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Resonate } from "@resonatehq/sdk/async";

const { GATEWAY: url, GROUP: group, PID_NAME: pid, NOTES } = process.env;
const resonate = new Resonate({ url, group, pid });
const note = (text) => appendFileSync(NOTES, `${text}\n`);

async function shout(_info, text) {
  note(`shout ${text}`);
  return `${text.toUpperCase()}!`;
}
async function local(ctx, name) {
  const both = await Promise.all([ctx.run(shout, name), ctx.run(shout, `${name}s`)]);
  await ctx.sleep(100);
  return both;
}
async function mail(_info, question, id) {
  note(`mail ${question} ${id}`);
}
async function ask(ctx, question) {
  const answer = ctx.promise();
  await ctx.run(mail, question, answer.id);
  return `${question}: ${await answer}`;
}
async function factorial(ctx, n) {
  return n < 2 ? 1 : n * (await ctx.rpc("factorial", n - 1, ctx.options({ target: group })));
}
async function across(ctx, name, target, ...args) {
  return ctx.rpc(name, ...args, ctx.options({ target }));
}
for (const fn of [local, ask, factorial, across]) resonate.register(fn.name, fn);

const commands = {
  run: async ({ id, name, args }) => (await resonate.run(id, name, ...args)).result(),
  rpc: async ({ id, name, args, target }) =>
    (await resonate.rpc(id, name, ...args, resonate.options({ target: target ?? group }))).result(),
  pause: () => new Promise((done) => setTimeout(done, 10)),
};
console.log(JSON.stringify({ ready: pid }));
for await (const line of createInterface({ input: process.stdin })) {
  const { n, op, ...rest } = JSON.parse(line);
  Promise.resolve()
    .then(() => commands[op](rest))
    .then((value) => console.log(JSON.stringify({ n, value: value ?? null })))
    .catch((error) => console.log(JSON.stringify({ n, error: String(error?.message ?? error), name: error?.name })));
}
process.exit(0);
