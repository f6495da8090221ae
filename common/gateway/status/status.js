// Puts a new main element in the place of the old one, while the page is in view.
"use strict";

const REFRESH_MILLISECONDS = 2000;
const FETCH_MILLISECONDS = 5000;

async function refresh() {
  const response = await fetch("status", {
    headers: { Accept: "text/html" },
    signal: AbortSignal.timeout(FETCH_MILLISECONDS),
  });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  document.querySelector("main").replaceWith(page.querySelector("main"));
}

async function keepFresh() {
  if (!document.hidden) {
    try {
      await refresh();
      document.body.classList.remove("stale");
    } catch {
      document.body.classList.add("stale");
    }
  }
  setTimeout(keepFresh, REFRESH_MILLISECONDS);
}

setTimeout(keepFresh, REFRESH_MILLISECONDS);
