// The widget: what the visitor sees and does. All text of people is set as text, never as HTML.
const data = document.body.dataset;
const { Link, Store, element, textInto, bubble, newId, length } = globalThis.sluiceParts;
const words = JSON.parse(data.words);
const lang = data.lang;
const embedded = window.parent !== window;
const $ = (id) => document.getElementById(id);
const say = (key, holes = {}) => (words[key] || key).replace(/\{(\w+)\}/g, (_, name) => holes[name] ?? "");

const AWAY = 90000; // ms without an answer, after which we ask for an address
const TYPING = 3000; // at most one such frame in this time
const EXPIRED = 4001;
const ELSEWHERE = 4003;
const ENDED = 4009;

let site = embedded ? "" : location.origin; // the page around us: pinned by the first message from an allowed one
const kept = new Store("localStorage");
const here = new Store("sessionStorage");
const key = (name) => `sluice-${name}:${site}`;
let identity = { session: "", token: "" };
let seen = 0;
let read = 0;
let shown = !embedded;
let over = false; // the conversation was ended
let limits = { longest: 4000, upload_most: 10000000 };
const pending = new Map(); // id -> { id, text, file, at, node, state }
let typedAt = 0;
let awayTimer = 0;
let contactDone = false;

const link = new Link({
  hello: () => ({ token: identity.token, site, lang, seen }),
  on: (frame) => (frames[frame.type] || (() => {}))(frame),
  changed: (state, code) => {
    if (state === "open") status("online", true);
    else if (code === EXPIRED) expired();
    else if (code === ELSEWHERE) { link.stop(); status("elsewhere"); }
    else if (code === ENDED) link.stop();
    else if (!over) status(seen || pending.size ? "reconnecting" : "connecting");
  },
});

// --- frames ------------------------------------------------------------------------------------------------------------

const frames = {
  welcome(frame) {
    limits = frame;
    $("file").accept = frame.accept;
    if (frame.seen < seen) clear();
    keep(frame.token);
    count();
    for (const item of pending.values()) if (!item.file && item.state !== "failed") send(item);
  },
  token: (frame) => keep(frame.token),
  lines(frame) {
    if (frame.after > seen) { link.send({ type: "after", seq: seen }); return; }
    const follow = atEnd();
    let news = false;
    for (const line of frame.lines) {
      if (line.seq <= seen) continue;
      seen = line.seq;
      settle(line.id);
      $("log").append(bubble(line, words, lang));
      if (line.from !== "visitor") news = true;
      if (line.from === "agent") { clearTimeout(awayTimer); closeContact(); }
    }
    if (frame.lines.length) tell({ type: "begun" });
    if (follow) toEnd();
    else if (news) $("below").hidden = false;
    unread();
  },
  ack(frame) {
    const item = pending.get(frame.id);
    if (!item) return;
    mark(item, "sent");
    savePending();
    waitForAnswer();
  },
  nack(frame) {
    const item = pending.get(frame.id);
    if (!item) return;
    if (!frame.retry_after) { mark(item, "failed", say(frame.error, { n: limits.longest })); savePending(); return; }
    mark(item, "sending", say(frame.error, { n: frame.retry_after }));
    setTimeout(() => { if (pending.has(item.id)) send(item); }, frame.retry_after * 1000);
  },
  state(frame) {
    const parts = frame.number ? say("with", { ...frame }) : "";
    $("about").textContent = frame.agent ? `${parts} · ${say("agent", { agent: frame.agent })}` : parts;
    for (const id of ["track", "ended_track"]) {
      $(id).hidden = !frame.url;
      if (frame.url) $(id).href = frame.url;
    }
    $("typing").hidden = !frame.typing;
    $("typing").textContent = frame.typing ? `${frame.agent || words.us} ${words.typing}` : "";
  },
  ended(frame) { if (frame.url) frames.state(frame); finish("ended"); },
};

// --- lines -------------------------------------------------------------------------------------------------------------

const atEnd = () => { const talk = $("talk"); return talk.scrollHeight - talk.scrollTop - talk.clientHeight < 60; };
function toEnd() { $("talk").scrollTop = $("talk").scrollHeight; $("below").hidden = true; }

function unread() {
  if (shown && !document.hidden) { read = seen; kept.set(key("read"), String(seen)); tell({ type: "unread", n: 0 }); return; }
  const lines = [...$("log").querySelectorAll(".from-agent, .from-bot")];
  tell({ type: "unread", n: lines.filter((node) => Number(node.dataset.seq) > read).length });
}

// --- sending -----------------------------------------------------------------------------------------------------------

function put(item) {
  item.node = element("li", "line from-visitor");
  item.line = element("p", "meta state");
  const body = element("div", "bubble");
  textInto(body, item.text);
  item.node.append(body, item.line);
  pending.set(item.id, item);
  $("pending").append(item.node);
  mark(item, "sending");
  savePending();
  toEnd();
}

function mark(item, state, why = "") {
  item.state = state;
  item.line.className = `meta state ${state}`;
  item.line.replaceChildren(element("span", "", why ? `${words[state]}：`.replace("：", lang === "zh" ? "：" : ": ") + why : words[state]));
  if (state === "failed") {
    action(item, "retry", () => { mark(item, "sending"); if (item.file) upload(item); else send(item); });
    action(item, "discard", () => { settle(item.id); $("text").focus(); });
  }
}

function action(item, word, act) {
  const button = element("button", "", words[word]);
  button.type = "button";
  button.addEventListener("click", act);
  item.line.append(button);
}

function send(item) { link.send({ type: "say", id: item.id, text: item.text }); }

function settle(id) {
  const item = pending.get(id);
  if (!item) return;
  item.node.remove();
  pending.delete(id);
  savePending();
}

function savePending() {
  const texts = [...pending.values()].filter((item) => !item.file).map(({ id, text }) => ({ id, text }));
  if (texts.length) here.set(key("pending"), JSON.stringify(texts));
  else here.drop(key("pending"));
}

function submit() {
  const text = $("text").value.trim();
  if (!text || length(text) > limits.longest || over) return;
  $("text").value = "";
  here.drop(key("draft"));
  count();
  const item = { id: newId(), text };
  put(item);
  send(item);
}

function waitForAnswer() {
  clearTimeout(awayTimer);
  if (!contactDone) awayTimer = setTimeout(() => openContact(words.away), AWAY);
}

// --- files -------------------------------------------------------------------------------------------------------------

function upload(item) {
  const most = Math.floor(limits.upload_most / 1000000);
  if (item.file.size > limits.upload_most) { mark(item, "failed", say("too_big", { n: most })); return; }
  const request = new XMLHttpRequest();
  const bar = element("progress");
  bar.max = 100;
  bar.setAttribute("aria-label", say("uploading", { n: "" }));
  item.line.replaceChildren(bar);
  action(item, "cancel", () => { request.abort(); settle(item.id); });
  request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) bar.value = (100 * event.loaded) / event.total; });
  const failed = (code) => mark(item, "failed", say(code, { n: most }));
  request.addEventListener("error", () => failed("upload_broken"));
  request.addEventListener("load", () => {
    if (request.status === 200) { if (pending.has(item.id)) mark(item, "sent"); waitForAnswer(); return; }
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* a proxy's own page */ }
    const code = { file_size: "too_big", file_type: "bad_type", file_empty: "bad_type", file_unsafe: "unsafe" }[answer.error];
    failed(code || (answer.error === "too_fast" ? "later" : "upload_broken"));
  });
  request.open("POST", `/chat/upload?lang=${lang}`);
  request.setRequestHeader("Authorization", `Bearer ${identity.token}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.setRequestHeader("X-File-Name", encodeURIComponent(item.file.name.slice(-100)));
  request.setRequestHeader("X-Client-Id", item.id);
  request.send(item.file);
}

// --- contact -----------------------------------------------------------------------------------------------------------

function openContact(why) {
  if (over) return;
  $("contact_why").textContent = why;
  $("contact_form").hidden = false;
  toEnd();
}
function closeContact() { $("contact_form").hidden = true; $("contact_error").textContent = ""; }

async function leaveContact() {
  const contact = $("contact").value.trim();
  const text = seen || pending.size ? "" : $("text").value.trim();
  const failed = (word) => { $("contact_error").textContent = words[word]; $("contact").focus(); };
  try {
    const answer = await fetch(`/chat/contact?lang=${lang}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${identity.token}` },
      body: JSON.stringify({ contact, text, id: newId() }),
    });
    if (answer.status === 200) {
      if (text) { $("text").value = ""; here.drop(key("draft")); }
      contactDone = true;
      clearTimeout(awayTimer);
      closeContact();
      status("contact_done");
      $("text").focus();
      return;
    }
    const code = (await answer.json()).error;
    failed(code === "contact" ? "contact_wrong" : code === "text" ? "contact_first" : "later");
  } catch { failed("later"); }
}

// --- beginning and end -------------------------------------------------------------------------------------------------

function status(word, calm = false) {
  $("status").textContent = words[word];
  $("status").classList.toggle("calm", calm);
}

function keep(token) {
  identity = { session: JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).sub, token };
  kept.set(key("token"), JSON.stringify(identity));
  if (!kept.place) tell({ type: "keep", kept: JSON.stringify(identity) });
}

function stored(text) { try { return JSON.parse(text) || {}; } catch { return {}; } }

function clear() {
  seen = 0;
  read = 0;
  $("log").replaceChildren();
}

// The token is too old or its conversation was ended: begin anew; what was not sent yet is sent there.
function expired() {
  identity = { session: "", token: "" };
  kept.drop(key("token"));
  clear();
}

function finish(word) {
  over = true;
  link.stop();
  expired();
  clearTimeout(awayTimer);
  closeContact();
  status("online", true);
  $("menu").hidden = true;
  $("composer").hidden = true;
  $("ended").hidden = false;
  $("ended_text").textContent = words[word];
  $("again").focus();
  tell({ type: "forgotten" });
}

function forget() {
  link.send({ type: "end" });
  for (const item of [...pending.values()]) settle(item.id);
  for (const name of ["draft", "pending"]) here.drop(key(name));
  kept.drop(key("read"));
  $("text").value = "";
  $("about").textContent = "";
  for (const id of ["track", "ended_track"]) { $(id).hidden = true; $(id).removeAttribute("href"); }
  // The server's word is not waited for: the person may be leaving. The socket closes once the frame is out.
  finish("forgotten");
}

function begin() {
  over = false;
  contactDone = false;
  $("about").textContent = "";
  for (const id of ["track", "ended_track"]) { $(id).hidden = true; $(id).removeAttribute("href"); }
  $("ended").hidden = true;
  $("composer").hidden = false;
  status("connecting");
  link.start();
  $("text").focus();
}

function count() {
  const left = limits.longest - length($("text").value.trim());
  $("counter").hidden = left > limits.longest / 5;
  $("counter").textContent = left < 0 ? say("over", { n: -left }) : say("left", { n: left });
  $("counter").classList.toggle("over", left < 0);
  $("send").disabled = left < 0;
}

// --- the page around us ------------------------------------------------------------------------------------------------

function tell(message) { if (embedded && site) parent.postMessage({ sluice: 1, ...message }, site); }

function open(handed = "") {
  identity = { session: "", token: "", ...stored(kept.get(key("token")) || handed) };
  read = Number(kept.get(key("read"))) || 0;
  $("text").value = here.get(key("draft"));
  const left = stored(here.get(key("pending")));
  if (Array.isArray(left)) for (const { id, text } of left) put({ id, text });
  count();
  link.start();
}

const mayEmbed = JSON.parse(data.origins);
addEventListener("message", (event) => {
  if (!embedded || event.source !== parent || !mayEmbed.includes(event.origin) || (site && event.origin !== site)) return;
  const message = event.data;
  if (!message || message.sluice !== 1) return;
  if (message.type === "hello" && !site) { site = event.origin; shown = Boolean(message.shown); open(String(message.kept || "")); }
  if (message.type === "shown") shown = true;
  if (message.type === "hidden") shown = false;
  if (shown && !over && !matchMedia("(pointer: coarse)").matches) $("text").focus();
  if (shown) toEnd();
  unread();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) unread(); });

// Another tab began a conversation before this one said anything: one visitor, one conversation.
addEventListener("storage", (event) => {
  if (event.key !== key("token") || !event.newValue) return;
  const other = stored(event.newValue);
  if (other.session === identity.session) identity = other;
  else if (!seen && !pending.size && !over) { identity = other; link.lost(); link.awake(); }
});

// --- hands -------------------------------------------------------------------------------------------------------------

let composing = false;
$("text").addEventListener("compositionstart", () => { composing = true; });
$("text").addEventListener("compositionend", () => { composing = false; });
$("text").addEventListener("keydown", (event) => {
  // 229: Safari ends the composition before it tells of the Enter that chose the word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || composing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
$("text").addEventListener("input", () => {
  here.set(key("draft"), $("text").value);
  count();
  if (Date.now() - typedAt > TYPING) { typedAt = Date.now(); link.send({ type: "typing" }); }
});
$("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); $("text").focus(); });
$("file").addEventListener("change", () => {
  for (const file of $("file").files) {
    const item = { id: newId(), text: say("file", { name: file.name }), file };
    put(item);
    upload(item);
  }
  $("file").value = "";
});
$("contact_form").addEventListener("submit", (event) => { event.preventDefault(); leaveContact(); });
$("contact_close").addEventListener("click", () => { closeContact(); $("text").focus(); });

function menu(on) {
  $("menu").hidden = !on;
  $("more").setAttribute("aria-expanded", String(on));
}
$("more").addEventListener("click", () => menu($("menu").hidden));
$("leave").addEventListener("click", () => { menu(false); openContact(words.leave); $("contact").focus(); });
$("end").addEventListener("click", () => { menu(false); if (!link.send({ type: "end" })) finish("ended"); });
$("forget").addEventListener("click", () => { menu(false); forget(); });
$("forget_ended").addEventListener("click", forget);
$("again").addEventListener("click", begin);
$("below").addEventListener("click", toEnd);
$("talk").addEventListener("scroll", () => { if (atEnd()) $("below").hidden = true; });
$("close").hidden = !embedded;
$("close").addEventListener("click", () => { shown = false; tell({ type: "close" }); });
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (!$("menu").hidden) { menu(false); $("more").focus(); }
  else if (!$("contact_form").hidden) { closeContact(); $("text").focus(); }
  else tell({ type: "close" });
});
addEventListener("click", (event) => { if (!$("menu").hidden && !event.target.closest("#menu, #more")) menu(false); });

if (!embedded) open();
