// What the page remembers (and keeps in its URL), and small helpers that all
// other files use. Text from data reaches the page as text, never as markup.
(function (D) {
  "use strict";

  D.data = null;
  D.figures = {};
  D.state = { tab: "", models: new Set(), variants: new Set(), theme: "auto",
    sort: "", down: false, query: "", columns: null, weights: [50, 30, 20],
    timeline: "" };

  // --- the URL: #tab=performance&without=small&… -------------------------

  const joined = (set) => [...set].join("\n");
  const split = (text) => new Set(text ? text.split("\n") : []);

  function parameters() {
    const s = D.state, p = new URLSearchParams();
    if (s.tab) p.set("tab", s.tab);
    if (s.models.size) p.set("without-models", joined(s.models));
    if (s.variants.size) p.set("without-variants", joined(s.variants));
    if (s.theme !== "auto") p.set("theme", s.theme);
    if (s.sort) p.set("sort", (s.down ? "-" : "") + s.sort);
    if (s.query) p.set("q", s.query);
    if (s.columns) p.set("columns", s.columns.join(" "));
    if (s.weights.join() !== "50,30,20") p.set("weights", s.weights.join());
    if (s.timeline) p.set("timeline", s.timeline);
    return p.toString();
  }

  D.writeUrl = function (push) {
    const hash = "#" + parameters();
    if (hash === location.hash) return;
    if (push) history.pushState(null, "", hash);
    else history.replaceState(null, "", hash);
  };

  function weightsOf(text) {
    const list = (text || "").split(",").map(Number);
    const good = list.length === 3 &&
      list.every((n) => n >= 0 && n <= 100);
    return good ? list : [50, 30, 20];
  }

  D.readUrl = function () {
    const p = new URLSearchParams(location.hash.slice(1)), s = D.state;
    const sort = p.get("sort") || "";
    s.tab = p.get("tab") || s.tab;
    s.models = split(p.get("without-models"));
    s.variants = split(p.get("without-variants"));
    s.theme = p.get("theme") || "auto";
    s.down = sort.startsWith("-");
    s.sort = s.down ? sort.slice(1) : sort;
    s.query = p.get("q") || "";
    s.columns = p.get("columns") ? p.get("columns").split(" ") : null;
    s.weights = weightsOf(p.get("weights"));
    s.timeline = p.get("timeline") || "";
  };

  // --- elements ----------------------------------------------------------

  function fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) {
      if (child === null || child === undefined) continue;
      node.append(child instanceof Node ? child : String(child));
    }
    return node;
  }

  // el("p", { class: "note" }, "text", node, …)
  D.el = (tag, attributes, ...children) =>
    fill(document.createElement(tag), attributes, children);

  D.svg = (tag, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag),
      attributes, children);

  // A table's caption, which stays in sight when the table is scrolled.
  D.caption = (text) => D.el("caption", { class: "quiet" },
    D.el("span", {}, text));

  D.button = (text, action, attributes) =>
    D.el("button", { type: "button", onclick: action, ...attributes }, text);

  const shown = new WeakMap();

  // Give `node` the children that build() makes, unless it shows the same
  // things already: what a reader has selected or opened then stays.
  D.replace = function (node, things, build) {
    const key = JSON.stringify(things) + D.dark();
    if (shown.get(node) === key) return;
    shown.set(node, key);
    node.replaceChildren(...[build()].flat(Infinity).filter(Boolean));
  };

  // --- numbers as people read them ---------------------------------------

  D.known = (x) => typeof x === "number" && isFinite(x);

  function digits(x, n) {
    const text = Number(x.toPrecision(n));
    return Math.abs(text) >= 1e6 || (text !== 0 && Math.abs(text) < 1e-4)
      ? x.toExponential(n - 1) : String(text);
  }

  D.number = (x, n) => D.known(x) ? digits(x, n || 4) : "–";

  D.si = function (x) {
    if (!D.known(x)) return "–";
    for (const [size, word] of [[1e12, "T"], [1e9, "G"], [1e6, "M"],
      [1e3, "k"]]) {
      if (Math.abs(x) >= size) return digits(x / size, 3) + word;
    }
    return digits(x, 3);
  };

  D.bytes = (x) => !D.known(x) ? "–" : x >= 1e9
    ? (x / 1e9).toFixed(2) + " GB" : (x / 1e6).toFixed(1) + " MB";

  D.percent = (ratio) => !D.known(ratio) ? "–"
    : (ratio > 0 ? "+" : ratio < 0 ? "−" : "")
      + Math.abs(100 * ratio).toFixed(1) + " %";

  D.seconds = function (s) {
    if (!D.known(s)) return "–";
    if (s < 60) return s.toFixed(s < 10 ? 1 : 0) + " s";
    const m = Math.round(s / 60);
    return m < 60 ? m + " min" : Math.floor(m / 60) + " h " + m % 60 + " min";
  };

  // --- what the filters leave --------------------------------------------

  D.shown = (item) => !(item.model && D.state.models.has(item.model)) &&
    !(item.variant && D.state.variants.has(item.variant));

  // --- files for the reader ----------------------------------------------

  D.download = function (name, type, content) {
    const blob = content instanceof Blob ? content
      : new Blob([content], { type });
    const url = URL.createObjectURL(blob);
    const link = D.el("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };

  // A cell that a spreadsheet would run as a formula is kept as text.
  function cell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(+value.toPrecision(12));
    if (typeof value !== "string") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return /[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  }

  D.csv = (rows) => rows.map((row) => row.map(cell).join(",")).join("\r\n")
    + "\r\n";

  const plain = (value) => String(value ?? "").replace(/[\r\n]+/g, " ")
    .replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;")
    .replace(/[\\|`*_[\]]/g, "\\$&");

  D.markdown = function (head, rows) {
    const line = (cells) => "| " + cells.map(plain).join(" | ") + " |";
    return [line(head), "|" + head.map(() => "---|").join(""),
      ...rows.map(line)].join("\n") + "\n";
  };
})(window.dashboard = window.dashboard || {});
