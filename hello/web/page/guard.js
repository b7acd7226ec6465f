// @ts-check
// Tells in words that the page did not arrive completely, or cannot run, and loads it again where that may help. It is
// the first script of the document, and works where the others do not: in old browsers, too.

(function () {
	var GRACE_MS = 1000; // from the load event to the start of the modules
	var TIMEOUT_MS = 20000; // a document that has not arrived by then has stopped
	var DELAYS_S = [1, 2, 5, 10, 20]; // times 1 to 2; the last one holds for all further attempts, too
	var KEY = "hello-attempts";

	/** @type {string | null} */
	var failure = null;
	var isDone = false;
	var attempts = Number(storage(null) || 0);

	/**
	 * Reads the number of attempts, or writes it. A browser may forbid both.
	 *
	 * @param {string | null} value
	 */
	function storage(value) {
		try {
			if (value !== null) sessionStorage.setItem(KEY, value);
			return sessionStorage.getItem(KEY);
		} catch (error) {
			return null;
		}
	}

	function isTooOld() {
		return !(
			"noModule" in document.createElement("script") &&
			"AbortSignal" in window &&
			"timeout" in AbortSignal &&
			"replaceChildren" in Element.prototype
		);
	}

	/**
	 * @param {string} text
	 * @param {number | null} delay Seconds until the page is loaded again; null if that would not help.
	 */
	function tell(text, delay) {
		var box = document.createElement("div");
		var path = location.pathname.replace(/\/*$/, "/");
		var again = delay === null ? "" : " It is loaded again in " + delay + " s.";
		box.setAttribute("role", "alert");
		box.style.cssText = "padding:1rem;border-bottom:3px solid #b76e00;font:1rem/1.5 system-ui";
		box.appendChild(document.createTextNode(text + again + " Meanwhile: "));
		addLink(box, "the recent messages without JavaScript", "?plain");
		box.appendChild(document.createTextNode(", or "));
		addLink(box, "the stream as text", path + "events?last=50");
		var body = document.body || document.documentElement.appendChild(document.createElement("body"));
		body.insertBefore(box, body.firstChild);
	}

	/**
	 * @param {HTMLElement} box
	 * @param {string} text
	 * @param {string} href
	 */
	function addLink(box, text, href) {
		var link = document.createElement("a");
		link.href = href;
		link.appendChild(document.createTextNode(text));
		box.appendChild(link);
	}

	function check() {
		if (isDone) return;
		isDone = true;
		if (isTooOld()) {
			tell("This page needs Chrome or Edge 103, Firefox 100, Safari 16, or a newer version of one of them.", null);
		} else if (document.documentElement.hasAttribute("data-started")) {
			if (attempts > 0) storage("0");
		} else if (failure !== null) {
			tell("This page cannot run here (" + failure + "). Load it again, or use a current browser.", null);
		} else {
			// At random, so that pages that were disturbed together do not come back together.
			var delay = Math.ceil(DELAYS_S[Math.min(attempts, DELAYS_S.length - 1)] * (1 + Math.random()));
			storage(String(attempts + 1));
			tell("This page has not arrived completely.", delay);
			setTimeout(function () {
				location.reload();
			}, delay * 1000);
		}
	}

	addEventListener("error", function (event) {
		if (failure === null) failure = event.message;
	});
	addEventListener("load", function () {
		setTimeout(check, GRACE_MS);
	});
	setTimeout(check, TIMEOUT_MS);
})();
