// The console's script: times, keys, drafts, live updates. Every page works without it.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const words = JSON.parse(document.body.dataset.words || "{}");
  const fill = (text, holes) => (text || "").replace(/%\((\w+)\)s/g, (_, name) => holes[name]);
  const status = $("#status"), alarm = $("#alert");
  const ticket = $("article.ticket"), list = $(".list-pane");

  // --- saying things ------------------------------------------------------------------------------------------------
  let said = 0;
  function say(text) {
    status.textContent = text;
    clearTimeout(said);
    said = setTimeout(() => { status.textContent = ""; }, 8000);
  }
  function warn(text, link, href) {
    alarm.textContent = text;
    if (link) {
      const a = document.createElement("a");
      a.className = "button small"; a.href = href; a.textContent = link; a.target = "_blank"; a.rel = "opener";
      alarm.append(" ", a);
    }
  }
  if (status && status.textContent) say(status.textContent);

  // --- times --------------------------------------------------------------------------------------------------------
  function lasts(seconds) {
    const minutes = Math.floor(Math.abs(seconds) / 60);
    if (minutes < 60) return fill(words.m, { n: minutes });
    if (minutes < 2880) return fill(words.h, { n: Math.floor(minutes / 60) });
    return fill(words.d, { n: Math.floor(minutes / 1440) });
  }
  function put(element, text) { if (element.textContent !== text) element.textContent = text; }
  function shape(time, kind, icon) {
    const due = time.closest(".due");
    if (!due || due.classList.contains(kind)) return;
    due.classList.remove("ok", "warn", "over");
    due.classList.add(kind);
    const use = $("use", due);
    if (use) use.setAttribute("href", use.getAttribute("href").replace(/#.*/, "#" + icon));
  }
  function tick() {
    const now = Date.now();
    let soon = false;
    for (const time of $$("time[data-t]")) {
      const at = Date.parse(time.dateTime), left = (at - now) / 1000, kind = time.dataset.t;
      if (kind === "since") put(time, lasts(left));
      else if (kind === "ago") {
        if (left > -60) put(time, words.now);
        else if (left > -86400) put(time, fill(words.ago, { time: lasts(left) }));
      } else if (left < 0) {
        shape(time, "over", "octagon");
        put(time, fill(words.over, { time: lasts(left) }));
      } else {
        if (now >= Date.parse(time.dataset.warn)) shape(time, "warn", "clock-half");
        if (left < 600) { soon = true; put(time, Math.floor(left / 60) + ":" + String(Math.floor(left % 60)).padStart(2, "0")); }
        else put(time, lasts(left));
      }
    }
    if (!document.hidden) setTimeout(tick, soon ? 1000 : 20000);
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
  tick();

  // --- htmx: token, waiting, errors ---------------------------------------------------------------------------------
  const on = (name, call) => document.addEventListener(name, call);
  on("htmx:configRequest", (event) => {
    const token = $("meta[name=csrf]");
    if (token) event.detail.headers["X-CSRF-Token"] = token.content;
  });
  on("htmx:beforeRequest", (event) => { const target = event.detail.target; if (target) target.setAttribute("aria-busy", "true"); });
  on("htmx:afterRequest", (event) => { const target = event.detail.target; if (target) target.removeAttribute("aria-busy"); });
  on("htmx:responseError", (event) => {
    const request = event.detail.xhr;
    if (request.status === 401) signedOut(request.getResponseHeader("X-Sign-In"));
    else warn(words.failed);
  });
  on("htmx:sendError", () => warn(words.offline));
  let out = false;
  function signedOut(path) { out = true; warn(words.out, words.sign_in, path || "/console/signin"); }
  window.addEventListener("focus", async () => {
    if (!out) return;
    const answer = await fetch("/console/me/csrf", { headers: { "HX-Request": "true" } }).catch(() => null);
    if (!answer || !answer.ok) return;
    const found = await answer.json();
    $("meta[name=csrf]").content = found.csrf;
    for (const field of $$("input[name=csrf]")) field.value = found.csrf;
    out = false; alarm.textContent = "";
  });

  // --- drafts: in this tab, until sent or signed out ----------------------------------------------------------------
  const composer = $("#composer"), text = $("#text");
  if (!$("meta[name=csrf]")) for (const key of Object.keys(sessionStorage)) if (key.startsWith("draft:")) sessionStorage.removeItem(key);
  const modeOf = () => (composer && composer.elements.mode && composer.elements.mode.value) || "note";
  if (composer && text) {
    const slot = "draft:" + composer.dataset.draft;
    const kept = $("#kept");
    let wait = 0;
    const keep = () => {
      clearTimeout(wait);
      if (text.value) sessionStorage.setItem(slot, JSON.stringify([modeOf(), text.value]));
      else sessionStorage.removeItem(slot);
      put(kept, text.value ? words.kept : "");
    };
    const stored = JSON.parse(sessionStorage.getItem(slot) || "null");
    if (stored && !text.value) {
      text.value = stored[1];
      const mode = $("#mode-" + stored[0]);
      if (mode) mode.checked = true;
      put(kept, words.kept);
    }
    text.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(keep, 300); });
    composer.addEventListener("change", keep);
    window.addEventListener("pagehide", () => { if (text.value) keep(); });
    document.body.addEventListener("said", () => {
      text.value = "";
      keep();
      $("#form-key").value = [...crypto.getRandomValues(new Uint8Array(12))].map((n) => n.toString(16).padStart(2, "0")).join("");
      refreshTicket().then(() => { const end = $("#timeline").lastElementChild; if (end) end.scrollIntoView({ block: "nearest" }); });
      text.focus();
    });
  }
  for (const form of $$("form[data-forget]")) form.addEventListener("submit", () => sessionStorage.clear());

  // --- live ---------------------------------------------------------------------------------------------------------
  // A fragment of ours, put in place by htmx. It always ends: what hangs is given up, and the next change asks again.
  async function load(path, target, swapStyle) {
    const answer = await fetch(path, { headers: { "HX-Request": "true" }, signal: AbortSignal.timeout(20000) });
    if (answer.status === 401) signedOut(answer.headers.get("X-Sign-In"));
    if (!answer.ok) return;
    const part = document.createElement("template");
    part.innerHTML = await answer.text();
    for (const item of $$(".msg", part.content)) if (document.getElementById(item.id)) item.remove();
    for (const item of $$("[hx-swap-oob]", part.content)) if (!$(item.getAttribute("hx-swap-oob").split(":")[1] || "#" + item.id)) item.remove();
    // What somebody has open or in hand stays as it is.
    const actions = $("#actions", part.content);
    if (actions && $("#actions details[open], #actions :focus")) actions.remove();
    htmx.swap(target, part.innerHTML, { swapStyle, swapDelay: 0, settleDelay: 0, ignoreTitle: true });
  }
  let refreshing = false, again = false;
  async function refreshTicket() {
    if (!ticket) return;
    if (refreshing) { again = true; return; }
    refreshing = true;
    const before = ticket.dataset.last;
    // Ids are given before the commit: one that is lower than the last may come later.
    const after = Math.max(0, Number(before) - 20);
    const had = new Set($$("#timeline .msg[data-id]"));
    try {
      const from = encodeURIComponent((list && list.dataset.from) || "");
      await load("/console/t/" + ticket.dataset.ticket + "/live?after=" + after + "&from=" + from, "#timeline", "beforeend");
    } catch { /* the stream or the next change asks again */ } finally { refreshing = false; }
    const items = $$("#timeline .msg[data-id]");
    ticket.dataset.last = Math.max(Number(before), ...items.map((item) => Number(item.dataset.id)));
    const fresh = items.filter((item) => !had.has(item));
    if (fresh.some((item) => "in" in item.dataset)) say(words.new_message);
    for (const item of fresh) { if ("in" in item.dataset) item.classList.add("fresh"); watch(item); }
    const head = $("#head-state");
    if (head && head.dataset.state !== undefined &&
        ((head.dataset.state === "closed") !== (ticket.dataset.state === "closed") || head.dataset.department !== ticket.dataset.department)) {
      $("#changed").hidden = false;
    }
    tick();
    if (again) { again = false; refreshTicket(); }
  }
  // A message counts as seen when it stood on the screen for a second: the answer then needs no second click.
  const eye = "IntersectionObserver" in window && new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const item = entry.target;
      clearTimeout(item.seen);
      if (entry.isIntersecting && !document.hidden) item.seen = setTimeout(() => {
        const seen = $("#seen");
        if (seen && Number(item.dataset.id) > Number(seen.value)) seen.value = item.dataset.id;
      }, 1000);
    }
  }, { threshold: 0.6 });
  function watch(item) { if (eye && "in" in item.dataset) eye.observe(item); }

  const fresh = new Set(), changed = new Set();
  let rowsWait = 0;
  function news() {
    const bar = $(".news", list);
    if (!bar || !fresh.size) return;
    $("span", bar).textContent = fill(words.new, { n: fresh.size });
    if (bar.hidden) say(fill(words.new, { n: fresh.size }));
    bar.hidden = false;
  }
  function changedRows() {
    const ids = [...changed].slice(0, 100).join(",");
    changed.clear();
    load("/console/rows?ids=" + ids + "&from=" + list.dataset.from, "body", "none").then(() => {
      if (ticket) { const open = $("#open-" + ticket.dataset.ticket); if (open) open.setAttribute("aria-current", "true"); }
      tick();
    }).catch(() => {});
  }
  function rowChanged(number) { changed.add(number); clearTimeout(rowsWait); rowsWait = setTimeout(changedRows, 300); }
  // What happened between this page's making, or the stream's end, and now: the page is asked for once more and compared.
  async function missed() {
    refreshTicket();
    if (!list) return;
    const link = ticket && $("h2 a", list);
    try {
      const answer = await fetch(link ? link.href : location.href, { signal: AbortSignal.timeout(20000) });
      if (!answer.ok || answer.redirected) return;
      const now = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const badge of $$("[data-count]", now)) for (const here of $$(`[data-count="${CSS.escape(badge.dataset.count)}"]`)) put(here, badge.textContent);
      for (const row of $$(".row", now)) if (!document.getElementById(row.id)) fresh.add(row.dataset.number);
      news();
      if (list.dataset.from) for (const row of $$(".row", list)) rowChanged(row.dataset.number);
    } catch { /* the next change asks again */ }
  }
  function heard(said) {
    if (said.hello) {
      if (said.at > at) missed();
      at = said.at;
    }
    if (said.reset) missed();
    for (const [name, n] of Object.entries(said.counts || {})) {
      for (const badge of $$(`[data-count="${CSS.escape(name)}"]`)) put(badge, n ? n.toLocaleString(document.documentElement.lang) : "");
    }
    for (const one of said.tickets || []) {
      if (ticket && ticket.dataset.ticket === one.n) refreshTicket();
      if (!list) continue;
      if (document.getElementById("row-" + one.n)) {
        if (list.dataset.from) rowChanged(one.n);
      } else if (one.k.some((kind) => ["opened", "transferred", "reopened", "labelled", "assigned", "risk"].includes(kind))) {
        const queue = list.dataset.list;
        const here = queue === "all" || queue === "review" || queue === one.d || (queue === "mine" && one.k.includes("assigned"));
        if (here && one.n !== (ticket && ticket.dataset.ticket)) { fresh.add(one.n); news(); }
      }
    }
  }
  let stream = null, heardAt = 0, closing = 0, at = Number(document.body.dataset.at);
  function lamp(state) {
    const live = $("#live");
    if (!live) return;
    live.dataset.state = state;
    put($("#live-text"), state === "on" ? words.live
      : fill(words.stale, { time: new Date(heardAt).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }) }));
  }
  function connect() {
    if (stream || !$("#live")) return;
    stream = new EventSource("/console/events");
    // Open is not yet live: the first word, `hello`, says that changes are followed.
    stream.onmessage = (event) => { heardAt = Date.now(); lamp("on"); heard(JSON.parse(event.data)); };
    stream.onerror = () => {
      heardAt = heardAt || Date.now();
      lamp("stale");
      if (stream.readyState === EventSource.CLOSED) { stream = null; setTimeout(connect, 5000); }
    };
  }
  // Six connections a browser: a hidden tab gives its own back after a while, and asks for what it missed on return.
  document.addEventListener("visibilitychange", () => {
    clearTimeout(closing);
    if (document.hidden) closing = setTimeout(() => { if (stream) { stream.close(); stream = null; } }, 30000);
    else connect();
  });
  window.addEventListener("pagehide", () => { if (stream) { stream.close(); stream = null; } });
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  connect();
  $$("#timeline .msg[data-in]").forEach(watch);

  // --- buttons and layers -------------------------------------------------------------------------------------------
  const keysDialog = $("#keys");
  function act(name, button) {
    if (name === "news") location.reload();
    if (name === "keys" && keysDialog) keysDialog.showModal();
    if (name === "anyway") {
      $("#seen").value = button.dataset.seen;
      const then = button.dataset.then;
      composer.requestSubmit($(then ? `button[name=then][value="${CSS.escape(then)}"]` : "#send", composer));
    }
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) act(button.dataset.do, button);
    for (const layer of $$("details.pop[open]")) if (!layer.contains(event.target)) layer.open = false;
  });
  for (const layer of $$("details.pop")) layer.addEventListener("toggle", () => {
    const field = layer.open && $("input:not([type=hidden]), select, a", $(".layer", layer));
    if (field) field.focus();
  });
  document.addEventListener("submit", (event) => {
    // A double click on a plain form sends it once.
    const form = event.target;
    if (form.hasAttribute("hx-post") || form.hasAttribute("hx-get") || form.method === "dialog") return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    setTimeout(() => { delete form.dataset.sent; }, 3000);
  });

  // --- keys ---------------------------------------------------------------------------------------------------------
  const off = $("#keys-off");
  const silent = () => { try { return localStorage.getItem("keys") === "off"; } catch { return false; } };
  if (off) {
    off.checked = silent();
    off.addEventListener("change", () => localStorage.setItem("keys", off.checked ? "off" : "on"));
  }
  let composed = 0, going = 0;
  document.addEventListener("compositionend", () => { composed = Date.now(); });
  const inField = (node) => node.closest && node.closest("input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]");
  const letters = { Slash: "/", Period: ".", Enter: "Enter", NumpadEnter: "Enter" };
  function keyOf(event) {
    // An IME may swallow the character but still tells the key's place.
    if (event.key === "?" || event.key === "？" || (event.code === "Slash" && event.shiftKey)) return "?";
    if (event.key.length === 1 && event.key.charCodeAt(0) < 127 && event.keyCode !== 229) return event.key.toLowerCase();
    if (letters[event.code]) return letters[event.code];
    const place = /^(?:Key([A-Z])|(?:Digit|Numpad)([0-9]))$/.exec(event.code);
    return place ? (place[1] || place[2]).toLowerCase() : event.key;
  }
  function step(by) {
    const links = $$(".rows .row > a");
    if (!links.length) return;
    let at = links.indexOf(document.activeElement.closest ? document.activeElement.closest(".row > a") : null);
    if (at < 0) at = links.findIndex((link) => link.getAttribute("aria-current"));
    const next = links[Math.min(Math.max(at + by, 0), links.length - 1)];
    if (next) next.focus();
  }
  function press(key) {
    const target = $(`[data-key="${CSS.escape(key)}"]`);
    if (!target) return false;
    if (target.tagName === "SUMMARY") {
      target.parentElement.open = !target.parentElement.open;
      return true;
    }
    target.click();
    return true;
  }
  const review = $("#label-form");
  let armed = null;
  function arm(group) {
    for (const one of $$(".group.armed", review)) one.classList.remove("armed");
    armed = group;
    if (group) { group.classList.add("armed"); group.scrollIntoView({ block: "nearest" }); }
  }
  function judge(key) {
    if (/^[1-9]$/.test(key)) {
      if (armed) {
        const choice = $$("input[name=intent]", armed)[Number(key) - 1];
        if (choice) { choice.checked = true; choice.focus(); }
        arm(null);
      } else {
        const group = $(`.group[data-digit="${key}"]`, review);
        if (!group) return false;
        const choices = $$("input[name=intent]", group);
        if (choices.length === 1) { choices[0].checked = true; choices[0].focus(); } else arm(group);
      }
      return true;
    }
    if (key === "Enter") { review.requestSubmit(); return true; }
    return false;
  }
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented) return;
    const field = inField(event.target);
    if (field) {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Enter" && Date.now() - composed < 100) { event.preventDefault(); return; }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && field === text) {
        event.preventDefault();
        const button = modeOf() === "note" ? $("#save-note") : $(event.shiftKey ? "#send-resolve" : "#send");
        if (button && text.value.trim()) composer.requestSubmit(button);
      } else if (event.key === "Escape") field.blur();
      return;
    }
    if (event.key === "Escape") {
      for (const layer of $$("details.pop[open]")) { layer.open = false; $("summary", layer).focus(); }
      if (armed) arm(null);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || silent() || (keysDialog && keysDialog.open)) return;
    const key = keyOf(event);
    let done = true;
    if (going) {
      clearTimeout(going); going = 0;
      const link = $(`[data-go="${CSS.escape(key)}"]`);
      if (link) link.click(); else done = false;
    } else if (key === "g") going = setTimeout(() => { going = 0; }, 1500);
    else if (key === "?") act("keys");
    else if (key === "/" && $("#q")) { $("#q").focus(); $("#q").select(); }
    else if (review && judge(key)) done = true;
    else if (key === "j") step(1);
    else if (key === "k") step(-1);
    else if (key === "o" && event.target.closest(".row > a")) event.target.click();
    else if (key === "." && $(".news:not([hidden])")) act("news");
    else if ((key === "r" || key === "n") && text) {
      const mode = $(key === "r" ? "#mode-reply" : "#mode-note");
      if (mode) mode.checked = true;
      text.focus();
    } else if (key === "Enter" && !event.target.closest("a, button, summary, label, input") && $(".rows .row > a")) $(".rows .row > a").click();
    else done = key.length === 1 && press(key);
    if (done) event.preventDefault();
  });
  const timeline = $(".ticket > .timeline");
  if (timeline && timeline.scrollHeight > timeline.clientHeight) timeline.scrollTop = timeline.scrollHeight;
  // Where a ticket was opened, the eye starts at its head.
  if (ticket && !$("#composer-said").textContent.trim()) $("h1", ticket).focus({ preventScroll: true });
})();
