// Draws the state of the connection, in the title and the icon too, and the tally.

import { byId, html, set, write } from "./elements.js";
import { nextWords, reportWords, stateWords, tallyWords } from "./words.js";

const COPIED_MS = 2000;

const [sentence, next, icon, tally, button] = ["state", "next", "icon", "tally", "copy"].map(byId);
// Not fetched: they change when nothing can be, in every browser at once.
const ordinary = icon.getAttribute("href");
const red = ordinary.replace(/ viewBox.*/, " viewBox='-4 -4 8 8'><circle r='3' fill='red'/></svg>");

export function drawPanel(state) {
	const { condition, link } = state;
	const [short, long] = stateWords(state);
	set(document.documentElement, "class", condition);
	write(sentence, long);
	write(next, nextWords(link));
	document.title = `Hello: ${short}`;
	set(icon, "href", condition.startsWith("connect") ? ordinary : red);
}

export function drawTally(state) {
	tallyWords(state.tally()).forEach(([name, figure], i) => {
		if (!tally.children[i]) tally.append(html("div", {}, html("dt", {}, name), html("dd")));
		write(tally.children[i].lastChild, figure);
	});
	set(tally.children[2], "class", state.gaps > 0 ? "lost" : "");
}

export function offerCopy(state) {
	const label = button.textContent;
	button.addEventListener("click", async () => {
		write(button, (await copy(reportWords(state))) ? "Copied" : "The browser refused");
		setTimeout(write, COPIED_MS, button, label);
	});
}

async function copy(text) {
	try {
		await navigator.clipboard.writeText(text);
		return true;
	} catch {
		// Without TLS, as on Minikube, there is only this older way.
		const give = (event) => {
			event.clipboardData.setData("text/plain", text);
			event.preventDefault();
		};
		document.addEventListener("copy", give, { once: true });
		return document.execCommand("copy");
	}
}
