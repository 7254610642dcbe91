// The frame: header, sidebar, tabs, theme, and the live connection.
(function (D) {
  "use strict";
  const el = D.el, $ = (id) => document.getElementById(id);

  const BEFORE = ["design", "techniques", "start"];
  const AFTER = ["overview", "memory", "performance", "efficiency",
    "results", "insights", "design"];
  const built = {};

  const tabs = () => D.data.any ? AFTER : BEFORE;

  // --- tabs --------------------------------------------------------------

  function select(name, push) {
    D.state.tab = name;
    D.writeUrl(push);
    D.refresh();
  }

  function onKey(e) {
    const list = tabs(), at = list.indexOf(D.state.tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0,
      End: list.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    select(list[(to + list.length) % list.length], true);
    $("tab-" + D.state.tab).focus();
  }

  function showTabs() {
    const list = tabs();
    if (!list.includes(D.state.tab)) D.state.tab = list[0];
    if ($("tabs").dataset.list !== list.join()) {
      $("tabs").dataset.list = list.join();
      $("tabs").replaceChildren(...list.map((name) => el("button",
        { type: "button", role: "tab", id: "tab-" + name,
          "aria-controls": "panel-" + name, onkeydown: onKey,
          onclick: () => select(name, true) }, D.tabs[name].title)));
    }
    for (const tab of $("tabs").children) {
      const on = tab.id === "tab-" + D.state.tab;
      if (on && tab.getAttribute("aria-selected") !== "true") {
        const left = tab.offsetLeft - $("tabs").offsetLeft;
        $("tabs").scrollLeft = left - ($("tabs").clientWidth
          - tab.offsetWidth) / 2;
      }
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
    }
  }

  function showPanel() {
    const name = D.state.tab;
    if (!built[name]) {
      const panel = el("section", { role: "tabpanel", id: "panel-" + name,
        "aria-labelledby": "tab-" + name, tabindex: "0" });
      $("panels").append(panel);
      built[name] = { panel, update: D.tabs[name].build(panel) };
    }
    for (const [key, one] of Object.entries(built)) {
      one.panel.hidden = key !== name;
    }
    built[name].update();
  }

  // --- header ------------------------------------------------------------

  function statusText(s) {
    const now = s.now[0];
    return s.text + (s.total && s.word !== "absent" ? ", " + s.done + " of "
      + s.total : "") + (now ? ": " + now.name + (now.steps ? " "
      + (now.step || 0) + "/" + now.steps : "") : "");
  }

  function showHeader() {
    const s = D.data.status, name = D.data.sweep.name;
    $("title").textContent = "llmhost" + (name ? " · " + name : "");
    document.title = (name ? name + " · " : "") + "llmhost dashboard";
    $("status").textContent = statusText(s);
    $("status").dataset.word = s.word;
  }

  function live(word, title) {
    $("live").textContent = word;
    $("live").dataset.word = word;
    $("live").title = title;
  }

  // --- sidebar -----------------------------------------------------------

  function pick(set, name, color) {
    const box = el("input", { type: "checkbox", onchange() {
      if (box.checked) set().delete(name); else set().add(name);
      D.writeUrl();
      D.refresh();
    } });
    box.checked = !set().has(name);
    const dot = color ? el("span", { class: "swatch" }) : null;
    if (dot) dot.style.background = D.shade(color);
    return el("label", { class: "pick" }, box, dot, name);
  }

  function group(title, key, items) {
    const set = () => D.state[key];
    return el("fieldset", {}, el("legend", {}, title),
      items.map((item) => pick(set, item.name || item, item.color)),
      D.button("all", () => { set().clear(); D.writeUrl(); D.refresh(); },
        { class: "small", "aria-label": "all " + title.toLowerCase() }),
      D.button("none", () => {
        items.forEach((item) => set().add(item.name || item));
        D.writeUrl();
        D.refresh();
      }, { class: "small", "aria-label": "no " + title.toLowerCase() }));
  }

  function card() {
    const s = D.data.sweep, rows = [
      ["experiments", s.experiments || D.data.design.length],
      ["started", (s.date || "").replace("T", " ").slice(0, 16)],
      ["training", s.length],
      ["total time", s.seconds && D.seconds(s.seconds)],
      ["device", s.device], ["target GPU", s.target_gpu],
      ["memory budget", s.budget && D.bytes(s.budget)],
      ["profile", s.profile],
      ["tokens a step", s.tokens_per_step && D.si(s.tokens_per_step)],
      ["context", s.seq && s.seq + " tokens"],
      ["text", s.text && s.text + (s.tokens ? ", " + D.si(s.tokens)
        + " tokens" : "")],
      ["folder", D.data.path]];
    return el("section", { class: "sweep" },
      el("h2", {}, s.name || "No sweep"),
      s.description ? el("p", {}, s.description) : null,
      s.notes ? el("p", { class: "quiet" }, s.notes) : null,
      el("dl", {}, rows.filter((r) => r[1]).map((r) =>
        [el("dt", {}, r[0]), el("dd", {}, String(r[1]))])),
      s.damaged ? el("p", { class: "error" }, s.damaged
        + " damaged lines of the journal were left out.") : null);
  }

  function parts() {
    return [el("p", { class: "count", role: "status" },
      D.data.design.filter(D.shown).length + " of " + D.data.design.length
      + " shown"),
    group("Models", "models", D.data.models),
    group("Variants", "variants", D.data.variants), card(),
    D.button("Refresh", refreshNow, { id: "refresh", title: D.data.live
      ? "Ask the server again" : "This page stands alone: it shows what was "
      + "there when it was written", disabled: !D.data.live }),
    el("p", { class: "quiet", id: "asof" })];
  }

  const nameOf = (node) => node.getAttribute("aria-label")
    || node.parentNode.textContent;

  function showSidebar() {
    const side = $("sidebar"), d = D.data, now = document.activeElement;
    const name = now && side.contains(now) && nameOf(now);
    D.replace(side, [d.models, d.variants, d.sweep, d.design.map((r) =>
      r.name), [...D.state.models], [...D.state.variants]], parts);
    $("asof").textContent = "as of " + d.generated.replace("T", " ")
      .slice(0, 19);
    if (!name || side.contains(document.activeElement)) return;
    const again = [...side.querySelectorAll("input, button")].find((node) =>
      nameOf(node) === name);
    if (again) again.focus();
  }

  // --- theme -------------------------------------------------------------

  const dark = matchMedia("(prefers-color-scheme: dark)");

  function showTheme() {
    const t = D.state.theme;
    document.documentElement.dataset.theme = t === "auto"
      ? (dark.matches ? "dark" : "light") : t;
    $("theme").value = t;
  }

  // --- everything again --------------------------------------------------

  D.refresh = function () {
    showTheme();
    showHeader();
    showTabs();
    showSidebar();
    showPanel();
  };

  // --- live --------------------------------------------------------------

  let busy = false, again = false;

  async function refreshNow() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch("data.json", { cache: "no-store" });
      if (answer.ok) {
        D.data = await answer.json();
        D.refresh();
      }
    } catch (e) {
      live("offline", "The server does not answer; trying again");
    }
    busy = false;
    if (again) { again = false; refreshNow(); }
  }

  function listen() {
    const source = new EventSource("events");
    source.onopen = () => {
      live("live", "Changes show by themselves");
      refreshNow();
    };
    source.addEventListener("change", refreshNow);
    source.onerror = () => {
      live("reconnecting", "The server does not answer; trying again");
      if (source.readyState !== EventSource.CLOSED) return;
      source.close();
      setTimeout(listen, 2000);
    };
  }

  // --- start -------------------------------------------------------------

  function wire() {
    $("theme").addEventListener("change", () => {
      D.state.theme = $("theme").value;
      D.writeUrl();
      D.refresh();
    });
    dark.addEventListener("change", () => D.data && D.refresh());
    addEventListener("popstate", () => { D.readUrl(); D.refresh(); });
    addEventListener("hashchange", () => { D.readUrl(); D.refresh(); });
    $("skip").addEventListener("click", () => $("main").focus());
    $("menu").addEventListener("click", () => {
      const open = $("sidebar").classList.toggle("open");
      $("menu").setAttribute("aria-expanded", String(open));
    });
  }

  function begin() {
    const inline = $("data");
    D.readUrl();
    wire();
    if (inline) {
      D.data = JSON.parse(inline.textContent);
      live("saved", "A page by itself, as it was written");
      D.refresh();
      return;
    }
    showTheme();
    live("connecting", "");
    listen();
  }

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", begin);
  } else {
    begin();
  }
})(window.dashboard = window.dashboard || {});
