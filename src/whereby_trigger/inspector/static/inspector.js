// The live part of the page, and what explains the picture. All else works without JavaScript.
"use strict";
(() => {
  // Whoever looks at a mark, or reaches it by keyboard, reads what it is without going to its line.
  const picture = document.querySelector("svg.picture");
  const words = document.getElementById("explained");
  const explain = (event) => {
    const mark = event.target.closest("a");
    if (mark) words.textContent = mark.getAttribute("aria-label");
  };
  picture?.addEventListener("focusin", explain);
  picture?.addEventListener("mouseover", explain);
})();
(() => {
  const live = document.querySelector("[data-follow]");
  const body = document.getElementById("rows");
  if (!live || !body || !window.EventSource) return;
  const MOST = 200;
  const state = document.getElementById("live-state");
  const pause = document.getElementById("pause");
  const waiting = [];
  let paused = false;
  let unseen = 0;
  let said = "";
  let leaving = false;
  live.hidden = false;

  const say = (words, kind) => {
    live.className = `live ${kind}`;
    if (words !== said) state.textContent = said = words;
  };
  const counted = (n) => `${n} new ${n === 1 ? "delivery" : "deliveries"}`;
  const rowsById = () => new Map([...body.querySelectorAll("tr[data-id]")].map((row) => [decodeURIComponent(row.dataset.id), row]));

  const show = (told) => {
    const known = rowsById();
    for (const id of told.gone) known.get(id)?.remove();
    for (const one of told.rows) {
      const template = document.createElement("template");
      // The server has escaped whatever a webhook holds.
      template.innerHTML = one.html;
      const row = template.content.querySelector("tr");
      if (!row) continue;
      const old = known.get(one.ids[0]);
      if (old && one.ids.length === 1) {
        const focused = old.contains(document.activeElement);
        const changed = old.innerHTML !== row.innerHTML;
        if (!changed) continue;
        old.replaceWith(row);
        if (focused) row.querySelector("a")?.focus();
      } else {
        // Those that are folded now: as single rows they would never hear of their decisions.
        for (const id of one.ids) known.get(id)?.remove();
        body.prepend(row);
        if (body.closest("table").hidden) {
          document.querySelector(".card.empty")?.remove();
          body.closest("table").hidden = false;
        }
      }
      if (!told.first) row.classList.add("fresh");
    }
    while (body.rows.length > MOST) body.lastElementChild.remove();
  };

  const take = (told) => {
    // The first delivery of all: the page that taught how to get it becomes the one that shows it, unless somebody
    // is on the way to another page, which a reload would undo.
    if (document.querySelector(".teach")) return leaving || location.reload();
    if (paused) {
      waiting.push(told);
      if (waiting.length > 50) waiting.shift();
      if (!told.first) unseen += told.count;
      say(unseen ? `Paused, ${counted(unseen)}` : "Paused", "paused");
      return;
    }
    show(told);
    if (!told.first && told.count) say(`${counted(told.count)}`, "on");
  };

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Resume" : "Pause";
    if (paused) return say("Paused", "paused");
    waiting.splice(0).forEach(show);
    say(unseen ? `${counted(unseen)}` : "Live", "on");
    unseen = 0;
  });

  const source = new EventSource(live.dataset.follow);
  source.onopen = () => { if (!paused) say("Live", "on"); };
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onerror = () => say(source.readyState === 2 ? "Not live: load the page again" : "Connecting again", "off");
  window.addEventListener("beforeunload", () => {
    leaving = true;
    // Whoever is still here by then has thought better of it.
    setTimeout(() => { leaving = false; }, 5000);
  });
  window.addEventListener("pagehide", () => source.close());
})();
