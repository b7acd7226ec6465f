// Introduces the connection, the stream and the drawings to each other.

import { stayConnected } from "./connection.js";
import { List } from "./list.js";
import { drawPanel } from "./panel.js";
import { Stream } from "./stream.js";

const TICK_MS = 250; // the countdown to the next attempt is told in seconds, and this far off at most

const stream = new Stream();
const list = new List(document.getElementById("messages"));
let link;

stayConnected({
  stream,
  hear(frame) {
    list.add(stream.take(frame));
    drawPanel(link, stream);
  },
  tell(now) {
    link = now;
    drawPanel(link, stream);
  },
});

setInterval(() => link.retryAt !== null && drawPanel(link, stream), TICK_MS);
