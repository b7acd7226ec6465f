// Socket.IO with its Redis adapter, WebSocket transport only, releasing requests as its page on memory advises.
"use strict";

const { createServer } = require("node:http");
const { createAdapter } = require("@socket.io/redis-adapter");
const { createClient } = require("redis");
const { Server } = require("socket.io");

const [port, redisPort] = process.argv.slice(2).map(Number);

async function main() {
  const publisher = createClient({ socket: { port: redisPort } });
  const [forAdapter, redis] = [publisher.duplicate(), publisher.duplicate()];
  await Promise.all([publisher.connect(), forAdapter.connect(), redis.connect()]);
  const http = createServer();
  const server = new Server(http, {
    adapter: createAdapter(publisher, forAdapter),
    transports: ["websocket"],
    perMessageDeflate: false,
    serveClient: false,
  });
  server.engine.on("connection", (socket) => {
    socket.request = null; // saves memory, as that page advises
  });
  http.listen({ host: "127.0.0.1", port, backlog: 65535 });
  await redis.subscribe("hello", (body) => server.emit("message", body));
}

main();
