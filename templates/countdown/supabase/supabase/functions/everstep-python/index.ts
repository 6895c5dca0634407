// Experimental: the Python function itself, inside the Edge Function, by Pyodide. It takes the place of the relay.
//
// The interpreter is booted once for each isolate, from what build.ts wrote, and serves every request of it. What ends
// it (JSON nested without end does) ends the isolate: the due row stays, and the bell rings again.
import { loadPyodide, version } from "pyodide";

const env = (name: string): string => {
  const value = Deno.env.get(name);
  if (!value) throw new Error(`${name} is missing`);
  return value;
};
const [url, key, secret] = ["SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "EVERSTEP_SECRET"].map(env);
const build = new URL("./build/", import.meta.url).pathname;

async function post(to: string, headers: string, body: string): Promise<string> {
  const signal = AbortSignal.timeout(30_000);
  const answer = await fetch(to, { method: "POST", headers: JSON.parse(headers), body, redirect: "manual", signal });
  return JSON.stringify([answer.status, await answer.text()]);
}

async function boot() {
  const pyodide = await loadPyodide({ stdLibURL: `${build}python-${version}.zip` });
  pyodide.FS.writeFile("/app.zip", await Deno.readFile(`${build}app.zip`));
  const start = pyodide.runPython(`
import sys
sys.path.insert(0, "/app.zip")

def start(*given):
    from app import app
    from everstep_supabase.edge import Edge
    edge = Edge(app, *given)

    async def serve(what, secret, read):
        async def body():
            return (await read()).to_bytes()
        return await edge(what, secret, body)
    return serve

start`);
  return start(url, key, secret, post);
}

const serve = await boot();

async function answer(request: Request): Promise<Response> {
  const what = new URL(request.url).pathname.split("/").pop() ?? "";
  if (!["wake", "webhook", "sweep"].includes(what)) return new Response(null, { status: 404 });
  if (request.method !== "POST") return new Response(null, { status: 405, headers: { allow: "POST" } });
  const read = async () => new Uint8Array(await request.arrayBuffer()); // once the secret holds
  try {
    const [status, type, text] = JSON.parse(await serve(what, request.headers.get("x-everstep-secret") ?? "", read));
    return new Response(text, { status, headers: { "content-type": type } });
  } catch (error) {
    console.error(String(error));
    return new Response(null, { status: 500 });
  }
}

const port = Deno.env.get("EVERSTEP_EDGE_PORT"); // for tests; on Supabase the platform decides
if (port) Deno.serve({ hostname: "127.0.0.1", port: Number(port) }, answer);
else Deno.serve(answer);
