// The widget's parts: a WebSocket that comes back by itself, a store that may be blocked, lines drawn as text.

const HEARD = 45000; // ms without a word of the server, after which the line counts as dead
const PING = 20000;
const ANSWER = 5000; // ms that a ping after sleep may take
const LONGEST_WAIT = 30000;
const RESTART = 1012;

// Storage that falls back to memory where the browser blocks it (private windows, third-party frames).
class Store {
  constructor(name) {
    this.memory = new Map();
    try {
      this.place = window[name];
      this.place.setItem("sluice-probe", "1");
      this.place.removeItem("sluice-probe");
    } catch {
      this.place = null;
    }
  }
  get(key) {
    try { return (this.place ? this.place.getItem(key) : this.memory.get(key)) || ""; } catch { return this.memory.get(key) || ""; }
  }
  set(key, value) {
    this.memory.set(key, value);
    try { if (this.place) this.place.setItem(key, value); } catch { /* full or blocked: memory has it */ }
  }
  drop(key) {
    this.memory.delete(key);
    try { if (this.place) this.place.removeItem(key); } catch { /* blocked */ }
  }
}

class Link {
  // hello() gives the first frame; on(frame) gets every other; changed(state, code) hears open, waiting, stopped.
  constructor({ hello, on, changed }) {
    Object.assign(this, { hello, on, changed });
    this.tries = 0;
    this.socket = null;
    this.ready = false;
    this.stopped = false;
    this.timer = 0;
    this.heard = 0;
    const now = () => this.awake();
    addEventListener("online", now);
    addEventListener("focus", now);
    addEventListener("pageshow", now);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) now(); });
    addEventListener("offline", () => this.lost());
    setInterval(() => this.beat(), PING);
  }

  start() {
    clearTimeout(this.timer);
    this.stopped = false;
    if (this.socket) return;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/chat/ws`);
    this.socket = socket;
    this.heard = Date.now();
    socket.onopen = () => socket.send(JSON.stringify({ type: "hello", ...this.hello() }));
    socket.onmessage = (event) => {
      if (this.socket !== socket) return;
      this.heard = Date.now();
      const frame = JSON.parse(event.data);
      if (frame.type === "ping") { this.send({ type: "pong" }); return; }
      if (frame.type === "pong") return;
      if (frame.type === "welcome") {
        this.ready = true;
        this.tries = 0;
        this.changed("open", 0);
      }
      this.on(frame);
    };
    socket.onclose = (event) => { if (this.socket === socket) this.gone(event.code); };
  }

  // The line is dead though the socket does not know: leave it, and come back.
  lost() {
    const socket = this.socket;
    if (!socket) return;
    socket.onclose = null;
    socket.close();
    this.gone(1006);
  }

  gone(code) {
    this.socket = null;
    this.ready = false;
    this.changed("waiting", code);
    if (this.stopped) return;
    // Exponential, and jittered, so that a restart does not bring everybody back in one moment.
    const most = Math.min(LONGEST_WAIT, 500 * 2 ** this.tries);
    const wait = code === RESTART && this.tries === 0 ? 200 + Math.random() * 2000 : most / 2 + Math.random() * (most / 2);
    this.tries += 1;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.start(), wait);
  }

  // Focus, network back, laptop open: at once. A socket that looks open is asked.
  awake() {
    if (this.stopped) return;
    if (!this.socket) { this.tries = 0; this.start(); return; }
    const asked = Date.now();
    if (!this.send({ type: "ping" })) return;
    setTimeout(() => { if (this.ready && this.heard < asked) this.lost(); }, ANSWER);
  }

  beat() {
    if (!this.socket) return;
    if (Date.now() - this.heard > HEARD) this.lost();
    else this.send({ type: "ping" });
  }

  send(frame) {
    if (!this.ready || !this.socket || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    if (this.socket) { this.socket.onclose = null; this.socket.close(); }
    this.socket = null;
    this.ready = false;
  }
}

function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Addresses become links; everything else stays text.
function textInto(node, text) {
  let last = 0;
  for (const found of text.matchAll(/https?:\/\/[^\s<>"'，。；！？、（）]+/g)) {
    const address = found[0].replace(/[.,;:!?)\]]+$/, "");
    node.append(text.slice(last, found.index));
    const anchor = element("a", "", address);
    anchor.href = address;
    anchor.target = "_blank";
    anchor.rel = "noopener noreferrer nofollow";
    node.append(anchor);
    last = found.index + address.length;
  }
  node.append(text.slice(last));
}

const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((n) => n.toString(16).padStart(2, "0")).join("");
const length = (text) => [...text].length;

// A line of the conversation.
const clock = (lang, more = {}) => new Intl.DateTimeFormat(lang === "zh" ? "zh-CN" : "en", { ...more, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

function bubble(line, words, lang) {
  const item = element("li", `line from-${line.from}`);
  const meta = element("p", "meta");
  const at = new Date(line.at);
  const time = element("time", "", clock(lang, at.toDateString() === new Date().toDateString() ? {} : { month: "short", day: "numeric" }).format(at));
  time.dateTime = line.at;
  const who = line.from === "visitor" ? words.you : line.from === "bot" ? words.bot : line.author || words.us;
  meta.append(element("span", "", who), " ", time);
  if (line.from === "visitor") meta.append(" ", element("span", "", words.sent));
  const body = element("div", "bubble");
  textInto(body, line.text);
  item.append(meta, body);
  item.dataset.seq = line.seq;
  return item;
}

// Not `export`: an import inside of chat.js would have no version in its address.
globalThis.sluiceParts = { Link, Store, element, textInto, bubble, newId, length };
