// @ts-check
// The addresses of the relay, which are relative to the page's.

/**
 * Returns an address below the page's own: a path prefix of an ingress is kept, also where it has no slash at its end.
 *
 * @param {"ws" | "events"} path
 * @param {Record<string, string>} query
 */
export function streamUrl(path, query) {
	const url = new URL(location.origin + location.pathname.replace(/\/*$/, "/") + path);
	url.search = String(new URLSearchParams(query));
	return url;
}
