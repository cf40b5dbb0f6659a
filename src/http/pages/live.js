// Shows on a page what the feed sends after the page was made. Without this script, the page is complete as it was made.
"use strict";

(() => {
  const MAX_SEALED = 12;
  const MAX_OPEN = 20;
  // How long a screen reader is left alone after it was told the news.
  const SPOKEN_MILLIS = 10000;
  const RETRY_MILLIS = 1000;
  // The pause after an answer that is no stream, for example because there are too many streams.
  const REFUSED_MILLIS = 10000;

  const section = document.getElementById("live");
  const { feed, pages, query, zone, known } = section.dataset;
  const news = document.getElementById("live-news");
  const spoken = document.getElementById("live-spoken");
  const state = document.getElementById("live-state");
  const sealedList = document.getElementById("live-sealed");
  const openList = document.getElementById("live-open");
  // The open turns as the page was made with them. The live ones take their place.
  const made = document.getElementById("open-turns")?.closest("section");
  // The open turns by their ids, and the sealed turns that the list shows, the latest last.
  const open = new Map();
  let sealed = [];
  let count = 0;
  let erasures = 0;
  let source;
  let timer;
  let frame;
  let speaking;
  let isOutdated = false;
  let wasConnected = false;

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

  const counted = (value, one, many) => `${number(value)} ${value === 1 ? one : many}`;

  const tokens = (usage) => `${counted(usage.inputTokens, "token", "tokens")} in · ${number(usage.outputTokens)} out`;

  const set = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };

  const reload = () => {
    const link = element("a", "", "Reload the page");
    link.href = location.href.split("#")[0];
    return link;
  };

  const openItem = (turn) => {
    const item = element("li", "", element("span", "badge open", "open"), named(turn.turnId));
    if (turn.model !== undefined) item.append(named(turn.model));
    item.append(tokens(turn.usage), ` · ${counted(turn.steps.length, "step", "steps")}`);
    return item;
  };

  const sealedItem = (turn) => {
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
    return item;
  };

  const told = () => {
    const turns = count > 0 && `${counted(count, "turn was", "turns were")} sealed`;
    const gone = erasures > 0 && `${counted(erasures, "conversation was", "conversations were")} erased`;
    return [turns, gone].filter(Boolean).join(" and ");
  };

  const newsText = document.createTextNode("");
  const newsEnd = document.createTextNode("");

  // A screen reader is told the news at once, and then not before some time has passed, however many turns are sealed.
  const speak = () => {
    const text = `${told()}.`;
    if (speaking !== undefined || isOutdated || spoken.textContent === text) return;
    spoken.textContent = text;
    speaking = setTimeout(() => {
      speaking = undefined;
      speak();
    }, SPOKEN_MILLIS);
  };

  // The rows that stay are left where they are, so that a link keeps the focus.
  const draw = () => {
    frame = undefined;
    if (isOutdated) return;
    openList?.replaceChildren(...[...open.values()].slice(0, MAX_OPEN).map(openItem));
    if (open.size > MAX_OPEN) openList?.append(element("li", "", `${number(open.size - MAX_OPEN)} more`));
    const shown = new Set(sealed.map((turn) => turn.item));
    for (const item of [...sealedList.children]) if (!shown.has(item)) item.remove();
    for (const turn of sealed) {
      if (turn.item !== undefined) continue;
      turn.item = sealedItem(turn);
      sealedList.prepend(turn.item);
    }
    if (told() === "") return;
    newsText.data = `${told()} since this page was made. `;
    newsEnd.data = count > 0 ? " for the figures with them." : ".";
    if (!newsText.isConnected) news.replaceChildren(newsText, reload(), newsEnd);
    speak();
  };

  // A busy service may seal thousands of turns a second, so events only change what the next frame shows.
  const drawSoon = () => {
    frame ??= requestAnimationFrame(draw);
  };

  const onOpen = (event) => {
    const turn = JSON.parse(event.data);
    open.set(turn.turnId, turn);
    drawSoon();
  };

  const onSealed = (event) => {
    const turn = JSON.parse(event.data);
    if (open.delete(turn.metrics.turnId)) drawSoon();
    // The page has the turns up to this ordinal.
    if (known !== undefined && turn.ordinal <= Number(known)) return;
    count += 1;
    sealed = [...sealed, turn].slice(-MAX_SEALED);
    drawSoon();
  };

  // The id of the conversation to which a link of a list leads.
  const conversationOf = (link) => decodeURIComponent(link.pathname.split("/").at(-2));

  // A page about all conversations loses the turns of the one that was erased.
  const onErased = (event) => {
    const { conversationId } = JSON.parse(event.data);
    sealed = sealed.filter((turn) => turn.conversationId !== conversationId);
    for (const link of document.querySelectorAll("#latest-turns tbody a")) {
      if (conversationOf(link) === conversationId) link.closest("tr").remove();
    }
    erasures += 1;
    drawSoon();
  };

  const follow = () => {
    source?.close();
    clearTimeout(timer);
    if (isOutdated || document.hidden) return;
    if (state.textContent !== "connecting again") set(state, "connecting");
    source = new EventSource(feed);
    const outdated = (why) => () => {
      isOutdated = true;
      source.close();
      openList?.replaceChildren();
      sealedList.replaceChildren();
      set(state, "stopped");
      news.replaceChildren(`This page is out of date: ${why}. `, reload(), ".");
      set(spoken, `This page is out of date: ${why}.`);
    };
    source.onopen = () => {
      // What was erased while nobody listened is not told, so the page is made anew.
      if (wasConnected) return location.reload();
      wasConnected = true;
      set(state, "connected");
      if (made) made.hidden = true;
      drawSoon();
    };
    source.onerror = () => {
      set(state, "connecting again");
      const isRefused = source.readyState === EventSource.CLOSED;
      // A browser would connect again by itself, but not after an answer that is no stream.
      source.close();
      clearTimeout(timer);
      timer = setTimeout(follow, isRefused ? REFUSED_MILLIS : RETRY_MILLIS);
    };
    source.addEventListener("turn-sealed", onSealed);
    if (openList) source.addEventListener("turn-open", onOpen);
    source.addEventListener("erased", known === undefined ? onErased : outdated("the conversation was erased"));
    source.addEventListener("reset", outdated("the service has another history now"));
  };

  // A stream occupies one of the few connections that a browser makes to a server, so a page that nobody sees has none. What
  // was erased meanwhile is not told, so the page is made anew when somebody sees it again.
  let wasHidden = document.hidden;
  document.addEventListener("visibilitychange", () => {
    if (wasHidden && !document.hidden) location.reload();
    else follow();
    wasHidden ||= document.hidden;
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
  section.hidden = false;
  follow();
})();
