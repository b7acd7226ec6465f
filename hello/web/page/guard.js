// @ts-check
// Tells in words that the page did not arrive completely, or cannot run, and loads it again where that may help. It is
// the first script of the document, and works where the others do not: in old browsers, too.

(function () {
	var CHECK_MS = 1000;
	var MAX_STALLED = 4; // checks in a row without a new byte: a browser reports no document whose connection was cut
	var DELAYS_S = [1, 2, 5, 10, 20]; // times 1 to 2; the last one holds for all further attempts, too
	var ANSWER_TIMEOUT_MS = 10000;
	var KEY = "hello-attempts";

	/** @type {string | null} */
	var failure = null;
	var attempts = Number(storage(null) || 0);
	var length = 0; // of what has arrived, in characters
	var stalled = 0;
	var box = document.createElement("div");

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

	// Of what the modules and the style need, these came last to each of the browsers named below.
	function isTooOld() {
		return !(
			"noModule" in document.createElement("script") &&
			"AbortSignal" in window &&
			"timeout" in AbortSignal &&
			CSS.supports("color", "light-dark(red, red)")
		);
	}

	/** @param {string} text */
	function tell(text) {
		box.textContent = text + " Meanwhile: ";
		box.setAttribute("role", "alert");
		box.style.cssText = "padding:1rem;border-bottom:3px solid #b76e00;font:1rem/1.5 system-ui";
		addLink("the recent messages without JavaScript", "?plain");
		box.appendChild(document.createTextNode(", or "));
		addLink("the stream as text", location.pathname.replace(/\/*$/, "/") + "events?last=50");
		var body = document.body || document.documentElement.appendChild(document.createElement("body"));
		body.insertBefore(box, body.firstChild);
	}

	/**
	 * @param {string} text
	 * @param {string} href
	 */
	function addLink(text, href) {
		var link = document.createElement("a");
		link.href = href;
		link.textContent = text;
		box.appendChild(link);
	}

	function isStarted() {
		return document.documentElement.hasAttribute("data-started");
	}

	function check() {
		var now = document.documentElement.textContent.length;
		stalled = now === length ? stalled + 1 : 0;
		length = now;
		var isWaiting = document.readyState !== "complete" && stalled < MAX_STALLED;
		if (isTooOld()) {
			tell("This page needs Chrome or Edge 123, Firefox 120, Safari 17.5, or a newer version of one of them.");
		} else if (isStarted()) {
			if (attempts > 0) storage("0");
		} else if (failure !== null) {
			tell("This page cannot run here (" + failure + "). Load it again, or use a current browser.");
		} else if (isWaiting) {
			return;
		} else {
			retry();
		}
		clearInterval(timer);
	}

	/** Loads the page again after a delay, at random: pages that were disturbed together do not come back together. */
	function retry() {
		var delay = Math.ceil(DELAYS_S[Math.min(attempts, DELAYS_S.length - 1)] * (1 + Math.random()));
		attempts += 1;
		storage(String(attempts));
		tell("This page has not arrived completely. It is loaded again in " + delay + " s.");
		setTimeout(loadAgain, delay * 1000);
	}

	/** Loads the page once it has arrived completely: a browser would put its own error, or a proxy's, in its place. */
	function loadAgain() {
		if (isStarted()) {
			box.style.display = "none"; // the rest came late
			storage("0");
			return;
		}
		var request = new XMLHttpRequest();
		request.open("GET", location.href);
		request.timeout = ANSWER_TIMEOUT_MS;
		request.onloadend = function () {
			if (request.status === 200) location.reload();
			else retry();
		};
		request.send();
	}

	addEventListener("error", function (event) {
		if (failure === null) failure = event.message;
	});
	document.addEventListener("securitypolicyviolation", function (event) {
		if (failure === null) failure = "what was sent is not what the relay sent: " + event.violatedDirective;
	});
	var timer = setInterval(check, CHECK_MS);
})();
