// The loader: a button on the site's page, and after the first click the chat's frame behind it.
// <script src="https://chat.example/widget.js" data-lang="zh" defer></script>
(() => {
  "use strict";
  const script = document.currentScript;
  if (!script || window.sluiceChat) return;
  const origin = new URL(script.src).origin;
  const wanted = (script.dataset.lang || document.documentElement.lang || navigator.language || "zh").toLowerCase();
  const lang = wanted.startsWith("en") ? "en" : "zh";
  const words = {
    zh: { open: "在线客服", unread: "在线客服，{n} 条新消息", frame: "聊天窗口" },
    en: { open: "Chat", unread: "Chat, {n} unread", frame: "Chat window" },
  }[lang];

  // A shadow root keeps the site's styles out; a constructed sheet needs no leave of the site's policy.
  const host = document.createElement("div");
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    :host { all: initial; }
    button { position: fixed; z-index: 2147483000; right: 20px; right: max(20px, env(safe-area-inset-right));
      bottom: 20px; bottom: max(20px, env(safe-area-inset-bottom)); box-sizing: border-box; min-width: 56px; height: 56px; padding: 0 18px;
      display: flex; align-items: center; gap: 8px; border: 0; border-radius: 28px; cursor: pointer;
      background: #0b5cbd; color: #fff; font: 600 16px/1 -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "WenQuanYi Micro Hei", sans-serif;
      box-shadow: 0 2px 10px rgb(0 0 0 / .25); }
    button:focus-visible { outline: 3px solid #fff; outline-offset: -6px; }
    b { min-width: 20px; padding: 2px 6px; box-sizing: border-box; border-radius: 10px; background: #fff; color: #0b5cbd; font-size: 13px; text-align: center; }
    b[hidden], button[hidden] { display: none; }
    svg { fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linejoin: round; }
    iframe { position: fixed; z-index: 2147483001; right: 20px; bottom: 20px; width: 360px; height: 600px; max-height: calc(100vh - 40px);
      border: 1px solid #d3d9e1; border-radius: 6px; background: #fff; box-shadow: 0 8px 32px rgb(0 0 0 / .25); color-scheme: light dark; }
    iframe[hidden] { display: none; }
    @media (max-width: 479px) { iframe { inset: 0; width: 100%; height: 100vh; height: 100dvh; max-height: none; border: 0; border-radius: 0; } }
  `);
  root.adoptedStyleSheets = [sheet];

  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-haspopup", "dialog");
  button.setAttribute("aria-expanded", "false");
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("viewBox", "0 0 20 20");
  icon.setAttribute("width", "22");
  icon.setAttribute("height", "22");
  icon.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M3 4h14v9H9l-4 4v-4H3z");
  icon.append(path);
  const label = document.createElement("span");
  label.textContent = words.open;
  const badge = document.createElement("b");
  badge.hidden = true;
  button.append(icon, label, badge);
  root.append(button);

  let frame = null;
  let shown = false;
  const tell = (message) => frame && frame.contentWindow && frame.contentWindow.postMessage({ sluice: 1, ...message }, origin);

  // Whoever has a conversation hears of answers on the next page too; everybody else loads the button alone.
  // Where the browser gives a foreign frame no storage, its token rests here: it is bound to this very site.
  const flag = "sluice-chat", kept = "sluice-chat-visitor";
  const memory = {};
  const recall = (name) => { try { return localStorage.getItem(name) || memory[name] || ""; } catch { return memory[name] || ""; } };
  const remember = (name, value) => { memory[name] = value; try { localStorage.setItem(name, value); } catch { /* storage is blocked */ } };
  const forget = (name) => { delete memory[name]; try { localStorage.removeItem(name); } catch { /* storage is blocked */ } };

  function load() {
    if (frame) return;
    frame = document.createElement("iframe");
    frame.title = words.frame;
    frame.referrerPolicy = "origin";
    frame.hidden = !shown;
    frame.addEventListener("load", () => tell({ type: "hello", shown, kept: recall(kept) }));
    frame.src = `${origin}/chat/frame?lang=${lang}`;
    root.append(frame);
  }
  function show(on) {
    shown = on;
    if (on) load();
    if (frame) frame.hidden = !on;
    button.hidden = on;
    button.setAttribute("aria-expanded", String(on));
    tell({ type: on ? "shown" : "hidden" });
    if (on) frame.focus();
    else button.focus();
  }
  function unread(n) {
    badge.hidden = !n;
    badge.textContent = n > 99 ? "99+" : String(n);
    if (n) button.setAttribute("aria-label", words.unread.replace("{n}", n));
    else button.removeAttribute("aria-label");
  }

  button.addEventListener("click", () => show(true));
  addEventListener("message", (event) => {
    if (!frame || event.source !== frame.contentWindow || event.origin !== origin) return;
    const message = event.data;
    if (!message || message.sluice !== 1) return;
    if (message.type === "close") show(false);
    else if (message.type === "unread") unread(Math.max(0, Number(message.n) || 0));
    else if (message.type === "begun") remember(flag, "1");
    else if (message.type === "keep" && typeof message.kept === "string") remember(kept, message.kept);
    else if (message.type === "forgotten") { forget(flag); forget(kept); }
  });
  const start = () => { document.body.append(host); if (recall(flag)) load(); };
  if (document.body) start();
  else addEventListener("DOMContentLoaded", start);
  window.sluiceChat = { open: () => show(true), close: () => show(false) };
})();
