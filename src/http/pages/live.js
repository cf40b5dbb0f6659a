// Shows on a page what the feed sends after the page was made. Without this script, the page is complete as it was made.
"use strict";

(() => {
  const MAX_SEALED = 12;
  const MAX_OPEN = 20;
  const RETRY_MILLIS = 1000;
  // The pause after an answer that is no stream, for example because there are too many streams.
  const REFUSED_MILLIS = 10000;

  const section = document.getElementById("live");
  const { feed, pages, query, zone, known } = section.dataset;
  const news = document.getElementById("live-news");
  const state = document.getElementById("live-state");
  const sealedList = document.getElementById("live-sealed");
  const openList = document.getElementById("live-open");
  // The open turns as the page was made with them. The live ones take their place.
  const made = document.getElementById("open-turns")?.closest("section");
  const open = new Map();
  // The positions of the latest sealed turns. The stream continues after the first one, so it always begins with all turns
  // that the list shows.
  let positions = [new URL(feed, location.href).searchParams.get("after")];
  let count = 0;
  let source;
  let timer;
  let isOutdated = false;

  const element = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };

  // A text from outside. Characters that would deceive its reader are escaped, as everywhere on the page.
  const named = (text) => {
    const deceptive = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;
    return element("bdi", "name", text.replace(deceptive, (c) => `\\u{${c.codePointAt(0).toString(16)}}`));
  };

  const number = (value) => value.toLocaleString("en");

  // The time by the clock of the page's zone.
  const moment = (millis) => {
    const at = new Date(millis);
    const shown = element("time", "");
    shown.dateTime = at.toISOString();
    try {
      shown.textContent = new Intl.DateTimeFormat("sv", { timeZone: zone, dateStyle: "short", timeStyle: "medium" }).format(at);
    } catch {
      // The browser does not know the zone.
      shown.textContent = at.toISOString();
    }
    return shown;
  };

  const tokens = (usage) => `${number(usage.inputTokens)} tokens in · ${number(usage.outputTokens)} out`;

  const reload = () => {
    const link = element("a", "", "Reload the page");
    link.href = location.href.split("#")[0];
    return link;
  };

  const showOpen = () => {
    // Only the page of a conversation shows open turns.
    if (!openList) return;
    openList.replaceChildren(...[...open.values()].slice(0, MAX_OPEN));
    if (open.size > MAX_OPEN) openList.append(element("li", "", `${number(open.size - MAX_OPEN)} more`));
  };

  const onOpen = (event) => {
    const turn = JSON.parse(event.data);
    const item = element("li", "", element("span", "badge open", "open"), named(turn.turnId));
    if (turn.model !== undefined) item.append(named(turn.model));
    item.append(tokens(turn.usage), ` · ${number(turn.steps.length)} steps`);
    open.set(turn.turnId, item);
    showOpen();
  };

  const onSealed = (event) => {
    const turn = JSON.parse(event.data);
    // After a new connection, turns that were counted before come again.
    const isNew = turn.position > positions.at(-1);
    if (isNew) positions = [...positions, turn.position].slice(-MAX_SEALED - 1);
    if (open.delete(turn.metrics.turnId)) showOpen();
    // The page has the turns up to this ordinal.
    if (known !== undefined && turn.ordinal <= Number(known)) return;
    if (isNew) count += 1;
    const reason = element("span", turn.reason === "stop" ? "badge calm" : "badge warning", named(turn.reason));
    const item = element("li", "", moment(turn.endedAt ?? turn.sealedAt));
    if (pages === undefined) {
      item.append(`turn ${number(turn.ordinal)}`);
    } else {
      const link = element("a", "", named(turn.conversationId));
      link.href = `${pages}${encodeURIComponent(turn.conversationId)}/turns${query}`;
      item.append(link);
    }
    if (turn.model !== undefined) item.append(named(turn.model));
    item.append(reason, tokens(turn.metrics.usage));
    sealedList.prepend(item);
    if (sealedList.children.length > MAX_SEALED) sealedList.lastChild.remove();
    const turns = count === 1 ? "1 turn was sealed" : `${number(count)} turns were sealed`;
    news.replaceChildren(`${turns} since this page was made. `, reload(), " for the figures with them.");
  };

  const follow = () => {
    source?.close();
    clearTimeout(timer);
    if (isOutdated || document.hidden) return;
    const address = new URL(feed, location.href);
    address.searchParams.set("after", positions[0]);
    source = new EventSource(address);
    const outdated = (why) => () => {
      isOutdated = true;
      source.close();
      open.clear();
      showOpen();
      sealedList.replaceChildren();
      state.textContent = "stopped";
      news.replaceChildren(`This page is out of date: ${why}. `, reload(), ".");
    };
    source.onopen = () => {
      state.textContent = "connected";
      // What was erased while nobody listened is not told. So the lists are emptied, and everything else comes again.
      open.clear();
      showOpen();
      sealedList.replaceChildren();
      if (made) made.hidden = true;
    };
    source.onerror = () => {
      state.textContent = "connecting again";
      const isRefused = source.readyState === EventSource.CLOSED;
      // A browser would continue after the latest event by itself, and not with the turns of the emptied list.
      source.close();
      clearTimeout(timer);
      timer = setTimeout(follow, isRefused ? REFUSED_MILLIS : RETRY_MILLIS);
    };
    source.addEventListener("turn-sealed", onSealed);
    if (openList) source.addEventListener("turn-open", onOpen);
    source.addEventListener("erased", outdated("a conversation was erased"));
    source.addEventListener("reset", outdated("the service has another history now"));
  };

  // A stream occupies one of the few connections that a browser makes to a server, so a page that nobody sees has none.
  document.addEventListener("visibilitychange", follow);
  section.hidden = false;
  follow();
})();
