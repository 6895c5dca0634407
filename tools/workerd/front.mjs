// Stands before a Worker as Cloudflare does: hands over requests, ticks of crons and batches of queues.
export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname === "/cdn-cgi/handler/scheduled") {
      const done = await env.MAIN.scheduled({ cron: url.searchParams.get("cron") ?? "", scheduledTime: new Date() });
      return Response.json({ outcome: done.outcome });
    }
    if (url.pathname === "/cdn-cgi/handler/queue") {
      const messages = (await request.json()).map((one) => ({ timestamp: new Date(), attempts: 1, ...one }));
      const done = await env.MAIN.queue(url.searchParams.get("queue") ?? "jobs", messages);
      return Response.json(done);
    }
    return env.MAIN.fetch(request);
  },
};
