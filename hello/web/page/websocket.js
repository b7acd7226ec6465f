// @ts-check
// The stream of a relay over WebSocket.

/**
 * @import { CloseReason } from "./connection.js"
 * @import { Handlers } from "./transport.js"
 */

/**
 * @param {URL} url Of http or https.
 * @param {Handlers} handlers
 */
export function openWebSocket(url, { onData, onEnd }) {
	const address = new URL(url);
	address.protocol = url.protocol.replace("http", "ws");
	const socket = new WebSocket(address);
	socket.onmessage = ({ data }) => onData(data);
	socket.onclose = ({ code }) => onEnd(closeReason(code));
	return () => {
		socket.onmessage = null;
		socket.onclose = null;
		socket.close();
	};
}

/**
 * @param {number} code A close code of RFC 6455, section 7.4, or of its registry at IANA.
 * @returns {CloseReason}
 */
function closeReason(code) {
	if (code === 1012) return "moved"; // Service Restart
	if (code === 1013) return "slow"; // Try Again Later
	return "lost";
}
