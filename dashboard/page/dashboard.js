// Keeps a page of the dashboard up to date: when something has happened to what
// it shows, it asks for itself again and takes over the parts that are different.
// Without this script the pages are complete, and still.
"use strict";
(() => {
	const root = document.currentScript.src.replace(/assets\/[^/]*$/, "");

	for (const button of document.querySelectorAll("button[data-copy]")) {
		if (!navigator.clipboard) continue; // only where the page came by a secure way
		button.hidden = false;
		button.addEventListener("click", async () => {
			await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).value);
			button.textContent = button.dataset.copied;
		});
	}

	const main = document.querySelector("main[data-live]");
	if (!main || main.dataset.live === "still" || !window.EventSource) return;

	const shows = (ids) => main.dataset.live === "any" || ids.some((id) => main.querySelector(`[data-id="${CSS.escape(id)}"]`));

	// Whoever works in a part keeps it as it is until they are elsewhere.
	const busy = (part) => part.contains(document.activeElement) && document.activeElement !== main;

	const takeOver = (fresh) => {
		const parts = "tr[id], .hd[id], section[id], .said[id]";
		const known = main.querySelectorAll(parts), now = fresh.querySelectorAll(parts);
		const names = (list) => Array.from(list, (e) => e.id).join(" ");
		if (names(known) !== names(now) && !busy(main)) {
			main.replaceChildren(...fresh.childNodes);
			return;
		}
		for (const part of known) {
			const next = fresh.querySelector("#" + CSS.escape(part.id));
			if (next && !busy(part) && next.outerHTML !== part.outerHTML) part.replaceWith(next);
		}
	};

	let asked = false, last = 0;
	const refresh = async () => {
		if (asked || document.hidden) return;
		asked = true;
		await new Promise((done) => setTimeout(done, Math.max(200, last + 2000 - Date.now())));
		asked = false;
		last = Date.now();
		const here = new URL(location.href);
		here.searchParams.delete("done");
		here.hash = "";
		try {
			const answer = await fetch(here, { headers: { Accept: "text/html" } });
			if (!answer.ok) return;
			const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main[data-live]");
			if (fresh) takeOver(document.importNode(fresh, true));
		} catch {
			// The next event, or the clock, asks again.
		}
	};

	// Only a page that is seen has a stream: browsers open few connections to one server, and a stream takes one.
	const badge = document.getElementById("live");
	let events = null;
	const listen = () => {
		if (document.hidden) {
			events?.close();
			events = null;
			badge.hidden = true;
		} else if (!events) {
			events = new EventSource(root + "live");
			events.addEventListener("hello", () => { badge.hidden = false; });
			events.addEventListener("error", () => { badge.hidden = true; });
			events.addEventListener("changed", (e) => { if (shows(e.data.split(" "))) refresh(); });
		}
	};
	listen();
	document.addEventListener("visibilitychange", () => { listen(); refresh(); });
	setInterval(refresh, 30000); // "in 12 min" is soon in 11
})();
