// Detailed results: one row a run, sorted, filtered, with the columns that the
// reader chose, and its exports.
(function (D) {
  "use strict";
  const el = D.el;

  const columns = function () {
    const chosen = D.state.columns && new Set(D.state.columns);
    return D.data.columns.filter((c) => chosen ? chosen.has(c.key)
      : c.default);
  };

  function text(row, column) {
    const shown = row.texts[column.key], value = row.values[column.key];
    if (shown !== undefined) return shown;
    if (value === undefined || value === null) return "–";
    if (typeof value === "number") return D.number(value, 5);
    if (typeof value === "boolean") return value ? "yes" : "no";
    return String(value);
  }

  // "word" anywhere, "column:word", "column<number", "column>number"; all of
  // several must hold.
  function test(term) {
    const m = /^([\w.]+)\s*(:|<|>)(.+)$/.exec(term);
    const column = m && D.data.columns.find((c) =>
      c.key === m[1] || c.title.split(",")[0].replace(/ /g, "_") === m[1]);
    if (!column) {
      return (row) => D.data.columns.some((c) =>
        (row.values[c.key] !== undefined || row.texts[c.key] !== undefined)
        && columns().includes(c)
        && text(row, c).toLowerCase().includes(term));
    }
    const want = m[3].trim(), number = Number(want);
    if (m[2] === ":") {
      return (row) => text(row, column).toLowerCase().includes(want);
    }
    return (row) => {
      const v = row.values[column.key];
      return D.known(v) && (m[2] === "<" ? v < number : v > number);
    };
  }

  function order(a, b) {
    if (a === b) return 0;
    if (a === undefined || a === null) return 1;
    if (b === undefined || b === null) return -1;
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  // The rows that filters and search leave, in the order asked for.
  function rows() {
    const terms = (D.state.query.toLowerCase().match(/"[^"]*"|\S+/g) || [])
      .map((t) => t.replace(/"/g, "")).filter(Boolean).map(test);
    const list = D.data.rows.filter((row) => D.shown(row) &&
      terms.every((t) => t(row)));
    const key = D.state.sort, sign = D.state.down ? -1 : 1;
    if (!key) return list;
    return list.map((row, i) => [row, i]).sort((a, b) => {
      const x = a[0].values[key], y = b[0].values[key];
      const gone = (v) => v === undefined || v === null;
      if (gone(x) || gone(y)) return order(x, y) || a[1] - b[1];
      return sign * order(x, y) || a[1] - b[1];
    }).map((pair) => pair[0]);
  }

  // --- exports -----------------------------------------------------------

  const heads = () => columns().map((c) => c.title);

  // Columns whose text says more than their value.
  const WHOLE = new Set(["shape", "batch"]);

  function asCsv() {
    const cell = (row, c) => {
      if (row.values[c.key] === undefined && !row.texts[c.key]) return null;
      return typeof row.values[c.key] === "number" && !WHOLE.has(c.key)
        ? row.values[c.key] : text(row, c);
    };
    return D.csv([heads(), ...rows().map((row) => columns().map((c) =>
      cell(row, c)))]);
  }

  function asJson() {
    return JSON.stringify(rows().map((row) => Object.fromEntries(
      columns().map((c) => [c.path === "config.d_model" ? "config" : c.path,
        ["shape"].includes(c.key) ? text(row, c)
          : row.values[c.key] ?? null]))), null, 2) + "\n";
  }

  const asMarkdown = () => D.markdown(heads(), rows().map((row) =>
    columns().map((c) => text(row, c))));

  // --- the view ----------------------------------------------------------

  function sortBy(key) {
    const s = D.state;
    if (s.sort !== key) { s.sort = key; s.down = false; }
    else if (!s.down) s.down = true;
    else { s.sort = ""; s.down = false; }
    D.writeUrl();
    D.refresh();
    const again = document.querySelector(`th button[data-key="${
      CSS.escape(key)}"]`);
    if (again) again.focus();
  }

  function headCell(c) {
    const on = D.state.sort === c.key;
    return el("th", { scope: "col", class: c.numeric ? "number" : null,
      "aria-sort": on ? (D.state.down ? "descending" : "ascending")
        : "none" },
    el("button", { type: "button", "data-key": c.key, title: c.path,
      onclick: () => sortBy(c.key) }, c.title,
    el("span", { "aria-hidden": "true" },
      on ? (D.state.down ? " ▼" : " ▲") : "")));
  }

  function bodyRow(row) {
    return el("tr", { class: row.values.status === "ok" ? null : "failed" },
      columns().map((c, i) => el(i === 0 ? "th" : "td", {
        scope: i === 0 ? "row" : null,
        title: i === 0 || c.key === "error" ? text(row, c) : null,
        class: c.numeric ? "number" : null }, text(row, c))));
  }

  function choose(key, on) {
    const now = new Set(columns().map((c) => c.key));
    if (on) now.add(key); else now.delete(key);
    D.state.columns = D.data.columns.map((c) => c.key)
      .filter((k) => now.has(k));
    D.writeUrl();
    D.refresh();
  }

  function chooser() {
    const shown = new Set(columns().map((c) => c.key));
    const known = D.data.columns.filter((c) => D.data.rows.some((row) =>
      row.values[c.key] !== undefined));
    return [D.button("The usual columns", () => {
      D.state.columns = null;
      D.writeUrl();
      D.refresh();
    }), ...known.map((c) => {
      const box = el("input", { type: "checkbox",
        onchange: () => choose(c.key, box.checked) });
      box.checked = shown.has(c.key);
      return el("label", { class: "pick" }, box, c.path === c.key ? c.path
        : c.title);
    })];
  }

  D.tabs = D.tabs || {};
  D.tabs.results = { title: "Detailed Results", build(panel) {
    const search = el("input", { type: "search", id: "search",
      placeholder: "fp4   params>1000000   status:ok", oninput() {
        D.state.query = search.value;
        D.writeUrl();
        D.refresh();
      } });
    const save = (name, type, make) => D.button(name, () =>
      D.download("results." + { CSV: "csv", JSON: "json", Markdown: "md" }[
        name], type, make()), { "aria-label": "Save the table as " + name });
    const count = el("p", { class: "quiet", role: "status" });
    const head = el("thead"), body = el("tbody");
    const picks = el("div", { class: "picks" });
    panel.append(el("div", { class: "bar" },
      el("label", { for: "search" }, "Search "), search,
      save("CSV", "text/csv;charset=utf-8", asCsv),
      save("JSON", "application/json", asJson),
      save("Markdown", "text/markdown;charset=utf-8", asMarkdown)),
    el("p", { class: "quiet" }, "Words look everywhere; column:word, "
      + "column>number and column<number look in one column. A heading sorts; "
      + "twice, downwards."), count,
    el("div", { class: "scroll card", tabindex: "0", role: "region",
      "aria-label": "Results table" },
    el("table", { class: "results", id: "results" }, head, body)),
    el("details", { class: "card" }, el("summary", {}, "Columns"), picks));
    return function () {
      const list = rows();
      if (document.activeElement !== search) search.value = D.state.query;
      const keys = columns().map((c) => c.key);
      D.replace(head, [keys, D.state.sort, D.state.down], () =>
        el("tr", {}, columns().map(headCell)));
      D.replace(body, [keys, list], () => list.map(bodyRow));
      count.textContent = list.length + " of " + D.data.rows.length
        + " runs" + (list.length ? "" : ": no data with these filters");
      D.replace(picks, [keys, D.data.columns], chooser);
    };
  } };
})(window.dashboard = window.dashboard || {});
