// Posts each message on the Redis channel to nchan, over one connection, without waiting for the answers.
"use strict";

const { connect } = require("node:net");
const { createClient } = require("redis");

const [port, redisPort] = process.argv.slice(2).map(Number);

async function main() {
  const nchan = connect({ host: "127.0.0.1", port, noDelay: true });
  nchan.resume(); // discards the answers
  const redis = await createClient({ socket: { port: redisPort } }).connect();
  await redis.subscribe("hello", (body) => {
    const size = Buffer.byteLength(body);
    nchan.write(`POST /publish HTTP/1.1\r\nHost: bench\r\nContent-Length: ${size}\r\n\r\n${body}`);
  });
}

main();
