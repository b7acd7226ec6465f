// Plays histories (JSON on standard input: [[step, …], …], see tests/client_histories.py) to the page's ClientProtocol,
// and writes what came of each: items in the words of those histories, where it resumes, and its counts.

import { text } from "node:stream/consumers";
import { ClientProtocol } from "../../hello/web/page/client-protocol.js";

function play(steps) {
	const protocol = new ClientProtocol();
	const items = [];
	for (const step of steps) {
		if (step === "position rejected") protocol.resetPosition();
		else if (step !== "disconnected") items.push(...protocol.receive(step));
	}
	return {
		items: items.map((item) =>
			item.type === "message"
				? `${item.id} ${item.delivery}`
				: `${item.certain ? "" : "perhaps "}lost ${item.after} ${item.before}`,
		),
		position: protocol.position?.toString() ?? null,
		caught_up: protocol.isCaughtUp,
		counts: [protocol.shown, protocol.recovered, protocol.gaps, protocol.repeated],
	};
}

console.log(JSON.stringify(JSON.parse(await text(process.stdin)).map(play)));
