// uWebSockets.js: every client subscribes to one topic of the server's own publish/subscribe.
"use strict";

const { createClient } = require("redis");

const [port, redisPort] = process.argv.slice(2).map(Number);

function library() {
  try {
    return require("uWebSockets.js"); // published by its author as a repository only
  } catch {
    return require("@btc-vision/uwebsockets.js"); // another party's build of the same source
  }
}

async function main() {
  const uws = library();
  const app = uws.App();
  app.ws("/ws", { compression: uws.DISABLED, open: (client) => client.subscribe("hello") });
  app.listen("127.0.0.1", port, (listening) => {
    if (!listening) throw new Error(`cannot listen at ${port}`);
  });
  const redis = await createClient({ socket: { port: redisPort } }).connect();
  await redis.subscribe("hello", (body) => app.publish("hello", body, false, false), true);
}

main();
