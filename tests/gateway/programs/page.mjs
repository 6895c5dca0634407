// A tab as a worker: the official TypeScript SDK in a browser. The address says where its gateway is, and who it is.
// What its bodies did outlives the tab, in localStorage, for the test to read.
import { Resonate } from "@resonatehq/sdk";

const { url, token, group, pid } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const resonate = new Resonate({ url, token, group, pid, ttl: 1000 });
const remember = (text) => localStorage.setItem("ran", `${localStorage.getItem("ran") ?? ""}${text};`);

function* factorial(ctx, n) {
  yield* ctx.run(work, n);
  return n < 2 ? 1 : n * (yield* ctx.rpc("factorial", n - 1, ctx.options({ target: group })));
}
async function work(_ctx, n) {
  remember(n);
  if (String(n) === localStorage.getItem("stop")) await new Promise(() => {});
}
function* countdown(ctx, n, pause) {
  for (let left = n; left > 0; left--) {
    yield* ctx.run(notify, String(left));
    yield* ctx.sleep(pause);
  }
  yield* ctx.run(notify, "Done");
  return `counted down from ${n}`;
}
async function notify(_ctx, text) {
  remember(text);
}
async function mine() {
  await new Promise((done) => setTimeout(done, 20));
  return pid;
}
resonate.register("factorial", factorial);
resonate.register("work", work);
resonate.register("mine", mine);
resonate.register("countdown", countdown);
resonate.register("notify", notify);
document.title = "working";
