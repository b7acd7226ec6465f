// @ts-check
// The addresses of the relay, which are relative to the page's.

/**
 * Returns an address beside the page's own: a path prefix of an ingress is kept.
 *
 * @param {"ws" | "events"} path
 * @param {Record<string, string>} query
 */
export function streamUrl(path, query) {
	const url = new URL(path, document.baseURI);
	url.search = String(new URLSearchParams(query));
	return url;
}
