// @ts-check
// Draws the state of the connection (as a pill, as a sentence, in the title and in the icon) and the statistics, and
// copies the report.

import { byId, html, setAttribute, setText } from "./elements.js";
import { listText } from "./list.js";
import { adviceText, formatTime, lossText, reportText, retryText, statisticsRows, statusText } from "./text.js";

/** @import { State } from "./state.js" */

const COPIED_MS = 2000; // how long the button shows the result

const pill = byId("pill");
const status = byId("state");
const losses = byId("losses");
const sentence = byId("sentence");
const retry = byId("retry");
const advice = byId("advice");
const clock = byId("clock");
const icon = byId("icon");
const statistics = byId("statistics");
const button = byId("copy");

// Both icons are data URLs: the icon changes just when nothing can be fetched.
const ICON = icon.getAttribute("href") ?? "";
const TROUBLE_ICON = ICON.replace(/ viewBox.*/, " viewBox='-4 -4 8 8'><circle r='3' fill='orange'/></svg>");

/** @param {State} state */
export function drawStatus(state) {
	const { condition, connection } = state;
	const { short, long } = statusText(state);
	const isTrouble = condition !== "connected" && condition !== "connecting";
	setAttribute(document.documentElement, "class", condition);
	setText(pill, short);
	setText(status, long);
	setText(losses, lossText(state));
	setText(sentence, long);
	setText(retry, retryText(connection));
	setText(advice, adviceText(state));
	setText(clock, formatTime(Date.now()));
	document.title = `Hello: ${short}`;
	setAttribute(icon, "href", isTrouble ? TROUBLE_ICON : ICON);
}

/** @param {State} state */
export function drawStatistics(state) {
	for (const [i, { label, value, meaning, isError }] of statisticsRows(state.statistics()).entries()) {
		const row = statistics.children[i] ?? addRow(label, meaning);
		setAttribute(row, "class", isError ? "error" : "");
		setText(row.children[1], value);
	}
}

/**
 * @param {string} label
 * @param {string} meaning
 */
function addRow(label, meaning) {
	const row = html("div", { title: meaning }, html("dt", {}, label), html("dd"));
	statistics.append(row);
	return row;
}

/**
 * Makes the button copy the report.
 *
 * @param {State} state
 */
export function enableCopy(state) {
	const label = button.textContent;
	button.addEventListener("click", async () => {
		const isCopied = await copy(reportText(state, listText()));
		setText(button, isCopied ? "Copied" : "The browser refused");
		setTimeout(() => setText(button, label), COPIED_MS);
	});
}

/**
 * Returns true if the text is on the clipboard.
 *
 * @param {string} text
 */
async function copy(text) {
	try {
		await navigator.clipboard.writeText(text);
		return true;
	} catch {
		return copyWithoutTls(text);
	}
}

/**
 * Copies by the deprecated interface, which is the only one without TLS, as on Minikube.
 *
 * @param {string} text
 */
function copyWithoutTls(text) {
	/** @param {ClipboardEvent} event */
	const setClipboard = (event) => {
		event.clipboardData?.setData("text/plain", text);
		event.preventDefault();
	};
	document.addEventListener("copy", setClipboard, { once: true });
	return document.execCommand("copy");
}
