// @ts-check
// Draws the status of the connection (in the panel, the title and the icon) and the statistics, and copies the report.

import { byId, html, setAttribute, setText } from "./elements.js";
import { reportText, retryText, statisticsRows, statusText } from "./text.js";

/** @import { State } from "./state.js" */

const COPIED_MS = 2000; // how long the button shows the result

const status = byId("state");
const retry = byId("retry");
const icon = byId("icon");
const statistics = byId("statistics");
const button = byId("copy");

// Both icons are data URLs: the icon changes just when nothing can be fetched.
const ICON = icon.getAttribute("href") ?? "";
const ERROR_ICON = ICON.replace(/ viewBox.*/, " viewBox='-4 -4 8 8'><circle r='3' fill='red'/></svg>");

/** @param {State} state */
export function drawStatus(state) {
	const { condition, connection } = state;
	const { short, long } = statusText(state);
	const isError = condition !== "connected" && condition !== "connecting";
	setAttribute(document.documentElement, "class", condition);
	setText(status, long);
	setText(retry, retryText(connection));
	document.title = `Hello: ${short}`;
	setAttribute(icon, "href", isError ? ERROR_ICON : ICON);
}

/** @param {State} state */
export function drawStatistics(state) {
	for (const [i, { label, value, isError }] of statisticsRows(state.statistics()).entries()) {
		const row = statistics.children[i] ?? addRow(label);
		setAttribute(row, "class", isError ? "error" : "");
		setText(row.children[1], value);
	}
}

/** @param {string} label */
function addRow(label) {
	const row = html("div", {}, html("dt", {}, label), html("dd"));
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
		const isCopied = await copy(reportText(state));
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
