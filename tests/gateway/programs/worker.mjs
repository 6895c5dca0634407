// A worker of the official TypeScript SDK, told by lines of JSON on its standard input what to do as a client.
// `NOTES` names a file that gets one line for each body that really ran.
// `PUSH` makes it a worker with an address of its own, to which messages are pushed, on `PORT` if there is one.
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Codec, HttpNetwork, Resonate } from "@resonatehq/sdk";

const { GATEWAY: url, GROUP: group = "default", PID_NAME: pid, NOTES, TOKEN: token, PREFIX: prefix } = process.env;
const network = process.env.PUSH ? new HttpNetwork({ url, token, adapter: await pushed() }) : undefined;
const resonate = new Resonate({ url, group, pid, token, prefix, network, ttl: Number(process.env.TTL ?? 60000) });
const codec = new Codec();
const note = (text) => appendFileSync(NOTES, `${text}\n`);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function pushed() {
  const callbacks = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    response.end();
    for (const callback of callbacks) callback(JSON.parse(body));
  });
  await new Promise((done) => server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", done));
  const own = `http://127.0.0.1:${server.address().port}/`;
  return {
    unicast: own,
    anycast: own,
    match: (target) => (target === group ? own : `poll://any@${target}`),
    init: async () => {},
    stop: async () => server.close(),
    onReceive: (callback) => callbacks.push(callback),
  };
}

function* local(ctx, name) {
  const first = yield* ctx.run(shout, name);
  const second = yield* ctx.run(shout, first);
  return { first, second };
}
async function shout(_ctx, text) {
  note(`shout ${text}`);
  return text.toUpperCase() + "!";
}
function* remote(ctx, name, target) {
  return "got " + (yield* ctx.rpc("greet", name, ctx.options({ target })));
}
async function greet(_ctx, name) {
  note(`greet ${name} by ${pid}`);
  return `hello ${name}`;
}
function* nap(ctx, ms) {
  const before = yield* ctx.date.now();
  yield* ctx.sleep(ms);
  return (yield* ctx.date.now()) - before >= ms;
}
function* ask(ctx, question) {
  const answer = yield* ctx.promise();
  yield* ctx.run(mail, question, answer.id);
  return `${question}: ${yield* answer}`;
}
async function mail(_ctx, question, id) {
  note(`mail ${question} ${id}`);
}
function* chain(ctx, n) {
  yield* ctx.run(shout, `link ${n}`);
  if (n === 0) return "end";
  const next = yield* ctx.detached("chain", n - 1, ctx.options({ target: group }));
  return next.id;
}
function* factorial(ctx, n) {
  note(`factorial ${n}`);
  return n < 2 ? 1 : n * (yield* ctx.rpc("factorial", n - 1, ctx.options({ target: group })));
}
function* tree(ctx, id, n) {
  const name = yield* ctx.run(shout, `${id} ${n}`);
  return n < 2 ? name : `${name} ${yield* ctx.rpc("tree", id, n - 1, ctx.options({ target: group }))}`;
}
function* slow(ctx, count) {
  for (let step = 0; step < count; step++) yield* ctx.run(tick, step);
  return count;
}
async function tick(_ctx, step) {
  note(`tick ${step} by ${pid}`);
  await pause(Number(process.env.PAUSE ?? 0));
}
async function where(_ctx, what) {
  note(`where ${what} by ${pid}`);
  await pause(20);
  return pid;
}
function* fails(ctx) {
  yield* ctx.run(boom, ctx.options({ retryPolicy: undefined }));
}
async function boom() {
  throw new RangeError("out of range");
}
function* across(ctx, name, target, ...args) {
  try {
    return { value: yield* ctx.rpc(name, ...args, ctx.options({ target })) };
  } catch (error) {
    return { error: error instanceof Error, name: error.name, message: error.message };
  }
}
function* refuse(_ctx, what) {
  throw new RangeError(`no ${what}`);
}
async function nothing() {}

for (const fn of [local, remote, greet, nap, ask, chain, factorial, tree, slow, where, fails, across, refuse, nothing])
  resonate.register(fn.name, fn);

const commands = {
  run: ({ id, name, args }) => resonate.run(id, name, ...args),
  rpc: ({ id, name, args, target }) => resonate.rpc(id, name, ...args, resonate.options(target ? { target } : {})),
  begin: async ({ id, name, args, target }) =>
    (await resonate.beginRpc(id, name, ...args, resonate.options(target ? { target } : {}))).id,
  result: async ({ id }) => (await resonate.get(id)).result(),
  resolve: ({ id, value }) => resonate.promises.resolve(id, codec.encode(value)),
  promise: ({ id }) => resonate.promises.get(id),
  schedule: async ({ id, cron, name, args }) => (await resonate.schedule(id, cron, name, ...args)) && null,
  unschedule: ({ id }) => resonate.schedules.delete(id),
  pause: () => pause(10),
};

console.log(JSON.stringify({ ready: pid, address: network?.unicast }));
for await (const line of createInterface({ input: process.stdin })) {
  const { n, op, ...rest } = JSON.parse(line);
  Promise.resolve()
    .then(() => commands[op](rest))
    .then((value) => console.log(JSON.stringify({ n, value: value ?? null })))
    .catch((error) => console.log(JSON.stringify({ n, error: String(error?.message ?? error), name: error?.name })));
}
await resonate.stop();
process.exit(0);
