// What there is before any result, and while a sweep runs: the matrix as a
// grid with each experiment's state, the techniques, and how to begin.
(function (D) {
  "use strict";
  const el = D.el;
  D.tabs = D.tabs || {};

  const WORD = { pending: "waiting", running: "running", ok: "done" };

  function bar(row) {
    if (row.status !== "running" || !row.steps) return null;
    const p = el("progress", { max: row.steps, value: row.step || 0,
      "aria-label": row.name + ": step " + (row.step || 0) + " of "
        + row.steps });
    return [p, el("span", { class: "quiet" }, (row.step || 0) + "/"
      + row.steps + " steps" + (D.known(row.loss) ? ", loss "
      + D.number(row.loss, 4) : "") + (D.known(row.left_seconds)
      ? ", " + D.seconds(row.left_seconds) + " left" : ""))];
  }

  function facts(row) {
    const batch = row.batch ? row.batch + " × " + row.accumulate : "none fits";
    return el("dl", {},
      el("dt", {}, "parameters"), el("dd", {}, D.si(row.parameters)),
      el("dt", {}, "heads"), el("dd", {}, row.n_heads + ":"
        + row.n_kv_heads),
      el("dt", {}, "memory"), el("dd", {}, D.bytes(row.predicted)),
      el("dt", {}, "batch"), el("dd", {}, batch),
      row.status === "ok" ? [el("dt", {}, "steps"),
        el("dd", {}, String(row.step ?? row.steps ?? "–"))] : null);
  }

  function cell(rows) {
    if (!rows.length) return el("td", { class: "none" }, "–");
    return el("td", {}, rows.map((row) => el("div", {
      class: "cell " + (WORD[row.status] ? row.status : "bad"),
      "data-name": row.name, "data-status": row.status },
    el("strong", {}, WORD[row.status] || row.status),
    row.decided ? null : el("span", { class: "quiet" }, " · predicted"),
    rows.length > 1 ? " seed " + row.seed : null, facts(row), bar(row),
    row.error && row.error !== "not finished"
      ? el("p", { class: "error" }, row.error) : null)));
  }

  function shape(rows) {
    const r = rows[0];
    return r.d_model + "d " + r.n_layers + "L " + r.n_heads + "h, ff "
      + r.d_ff;
  }

  function grid() {
    const list = D.data.design.filter(D.shown);
    const variants = D.data.variants.map((v) => v.name)
      .filter((v) => list.some((r) => r.variant === v));
    const models = D.data.models.filter((m) =>
      list.some((r) => r.model === m));
    if (!list.length) {
      return el("p", { class: "empty" }, D.data.design.length
        ? "No data with these filters." : "There is no matrix to show.");
    }
    return el("div", { class: "scroll" }, el("table", { class: "matrix" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "model"),
        variants.map((v) => el("th", { scope: "col" }, v)))),
      el("tbody", {}, models.map((m) => {
        const rows = list.filter((r) => r.model === m);
        return el("tr", {}, el("th", { scope: "row" }, m,
          el("span", { class: "quiet" }, shape(rows))),
        variants.map((v) => cell(rows.filter((r) => r.variant === v))));
      }))));
  }

  function intro() {
    const s = D.data.status;
    if (s.word === "absent") {
      return "No sweep has left a journal in " + D.data.path + " yet. This is "
        + "the matrix it would run, with exact plans; the grid fills by "
        + "itself once a sweep writes there.";
    }
    return s.done + " of " + s.total + " experiments are finished"
      + (s.failed ? ", " + s.failed + " of them without a result" : "")
      + ". Memory and batch are exact plans until an experiment has decided.";
  }

  D.tabs.design = { title: "Experiment Design", build(panel) {
    const words = el("p", {}), place = el("div", { class: "card" });
    const why = el("p", { class: "error" });
    panel.append(words, why, place);
    return function () {
      words.textContent = intro();
      why.textContent = D.data.why ? "The journal cannot be read: "
        + D.data.why : "";
      D.replace(place, D.data.design.filter(D.shown), grid);
    };
  } };

  D.tabs.techniques = { title: "Techniques", build(panel) {
    panel.append(D.techniques(), el("div", { class: "card" },
      D.expectedTable()));
    return function () {};
  } };

  const STEPS = [
    ["Check the machine", "llmhost experiments/check.lua"],
    ["See what would run, and whether it fits",
      "llmhost experiments/sweep.lua --dry-run"],
    ["Run the sixteen experiments", "llmhost experiments/sweep.lua"],
    ["Keep this page open: it fills while they run",
      "llmhost experiments/dashboard.lua"],
    ["A report and plots again, at any time",
      "llmhost experiments/report.lua"],
    ["Change something on the command line",
      "llmhost experiments/sweep.lua train.minutes=5 "
      + "models.small.d_ff=1024 out=other_results"],
  ];

  D.tabs.start = { title: "Getting Started", build(panel) {
    panel.append(el("div", { class: "card" }, el("ol", { class: "steps" },
      STEPS.map(([words, command]) => el("li", {}, el("p", {}, words),
        el("pre", {}, el("code", {}, command)))))),
    el("div", { class: "card" }, el("h3", {}, "Where things are"),
      el("p", {}, "A sweep writes into experiment_results: the journal, from "
        + "which everything else is made, results as JSON, a report in "
        + "Markdown, plots, and this page as dashboard.html. Stopped sweeps "
        + "continue with the same command."),
      el("p", {}, "Another folder: "), el("pre", {}, el("code", {},
        "llmhost experiments/dashboard.lua results=FOLDER"))));
    return function () {};
  } };
})(window.dashboard = window.dashboard || {});
