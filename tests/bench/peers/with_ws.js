// Node's `ws`: the loop over `clients` from its documentation.
"use strict";

const { createClient } = require("redis");
const { WebSocket, WebSocketServer } = require("ws");

const [port, redisPort] = process.argv.slice(2).map(Number);

async function main() {
  const server = new WebSocketServer({ host: "127.0.0.1", port, backlog: 65535, perMessageDeflate: false });
  const redis = await createClient({ socket: { port: redisPort } }).connect();
  const asBytes = true; // encodes the body once, not once per client
  await redis.subscribe(
    "hello",
    (body) => {
      for (const client of server.clients) {
        if (client.readyState === WebSocket.OPEN) client.send(body, { binary: false });
      }
    },
    asBytes,
  );
}

main();
