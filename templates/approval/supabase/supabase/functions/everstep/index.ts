// The relay: checks the secret, forwards wake-ups and webhooks to the Python function, answers with its status.
//
// verify_jwt is off in config.toml: the secret header is the authentication. A call that fails here is nobody's loss,
// for the due row stays and the bell rings again.
const target = (Deno.env.get("EVERSTEP_TARGET") ?? "").replace(/\/$/, "");
const secret = new TextEncoder().encode(Deno.env.get("EVERSTEP_SECRET") ?? "");
if (!target) throw new Error("EVERSTEP_TARGET: the URL of the Python function");
if (secret.length < 16) throw new Error("EVERSTEP_SECRET: at least 16 bytes");

const digest = async (bytes: Uint8Array<ArrayBuffer>) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

// In constant time: digests are compared, never the secret.
async function same(given: string): Promise<boolean> {
  const [a, b] = await Promise.all([digest(new TextEncoder().encode(given)), digest(secret)]);
  return a.reduce((difference, byte, i) => difference | (byte ^ b[i]), 0) === 0;
}

async function relay(request: Request): Promise<Response> {
  if (request.method !== "POST") return new Response(null, { status: 405, headers: { allow: "POST" } });
  const given = request.headers.get("x-everstep-secret") ?? "";
  if (!(await same(given))) return new Response(null, { status: 401 });
  const path = new URL(request.url).pathname.split("/").pop();
  const to = path === "webhook" || path === "sweep" ? path : "wake";
  try {
    const answer = await fetch(`${target}/${to}`, {
      method: "POST",
      body: await request.arrayBuffer(),
      headers: { "content-type": "application/json", "x-everstep-secret": given },
      redirect: "manual",
      signal: AbortSignal.timeout(140_000), // below the gateway's idle limit of 150 s
    });
    const type = answer.headers.get("content-type") ?? "application/json";
    return new Response(answer.body, { status: answer.status, headers: { "content-type": type } });
  } catch (error) {
    return new Response(String(error), { status: 502 });
  }
}

const port = Deno.env.get("EVERSTEP_RELAY_PORT"); // for tests; on Supabase the platform decides
if (port) Deno.serve({ hostname: "127.0.0.1", port: Number(port) }, relay);
else Deno.serve(relay);
