// The views made of charts: Overview, Memory Analysis, Performance, Efficiency.
(function (D) {
  "use strict";
  const el = D.el;
  D.tabs = D.tabs || {};

  const chart = (id) => D.data.charts.find((c) => c.id === id);

  // Figures of a tab, in the order of the data; gives their update.
  function figures(panel, tab) {
    const place = el("div", { class: "grid two" });
    panel.append(place);
    return function () {
      for (const c of D.data.charts.filter((x) => x.tab === tab)) {
        const f = D.figures[c.id] || D.figure(c.id);
        if (f.node.parentNode !== place) place.append(f.node);
        f.update(c);
      }
    };
  }

  // --- overview ----------------------------------------------------------

  function mean(list) {
    const known = list.filter(D.known);
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length
      : null;
  }

  function quick() {
    const rows = D.data.rows.filter(D.shown);
    const ok = rows.filter((r) => r.values.status === "ok");
    const of = (key) => mean(ok.map((r) => r.values[key]));
    const number = (title, value, note) => el("div", { class: "card quick" },
      el("p", { class: "quiet" }, title), el("p", { class: "big" }, value),
      el("p", { class: "quiet" }, note));
    const memory = of("memory");
    return [number("experiments", ok.length + " of " + rows.length,
      "finished, of those shown"),
    number("mean memory", D.known(memory) ? D.bytes(1e9 * memory) : "–",
      "peak of a run"),
    number("mean speed", D.si(of("speed")), "tokens per second"),
    number("mean loss", D.number(of("val_loss"), 4),
      "validation, nats per token" + (D.data.quality.ranked ? ""
        : "; cannot be ranked"))];
  }

  function claims() {
    if (!D.data.claims.length) {
      return el("p", { class: "empty" }, "No pair of a technique and its "
        + "baseline has finished.");
    }
    return el("div", { class: "scroll" }, el("table", { class: "data claims" },
      D.caption("The original's claims, over all "
        + "models that were run"),
      el("thead", {}, el("tr", {}, ["technique", "what", "claimed",
        "measured", "verdict", "why"].map((h) =>
        el("th", { scope: "col" }, h)))),
      el("tbody", {}, D.data.claims.map((c) => el("tr", {},
        el("th", { scope: "row" }, c.technique), el("td", {}, c.what),
        el("td", {}, c.claimed), el("td", {}, c.measured),
        el("td", { class: c.verdict.startsWith("holds") ? "good"
          : c.verdict === "does not hold" ? "bad" : "" }, c.verdict),
        el("td", {}, c.why))))));
  }

  D.tabs.overview = { title: "Overview", build(panel) {
    const top = el("div", { class: "grid four" });
    const table = el("section", { class: "card" });
    panel.append(top, D.techniques());
    const draw = figures(panel, "overview");
    panel.append(table);
    return function () {
      top.replaceChildren(...quick());
      D.replace(table, D.data.claims, () => [el("h3", {},
        "Expected beside measured"), claims()]);
      draw();
    };
  } };

  // --- memory, with the timeline of one experiment -----------------------

  function timelines(panel) {
    const select = el("select", { id: "timeline", onchange() {
      D.state.timeline = select.value;
      D.writeUrl();
      D.refresh();
    } });
    const place = el("div");
    panel.append(el("div", { class: "bar" }, el("label",
      { for: "timeline" }, "One step of "), select), place);
    return function () {
      const list = D.data.timelines.filter(D.shown);
      const chosen = list.find((c) => c.name === D.state.timeline) || list[0];
      D.replace(select, [list.map((c) => c.name), chosen && chosen.name],
        () => list.map((c) => el("option", { value: c.name,
          selected: c === chosen }, c.name)));
      if (!chosen) {
        place.replaceChildren(el("p", { class: "empty" },
          "No plan with these filters."));
        return;
      }
      const f = D.figures.timeline || D.figure("timeline");
      if (f.node.parentNode !== place) place.replaceChildren(f.node);
      f.update({ ...chosen, piled: true, model: null, variant: null,
        caption: "Every byte that is live at each instruction of the "
          + "compiled step, before anything was allocated. The peak of this "
          + "curve is the predicted memory." });
    };
  }

  D.tabs.memory = { title: "Memory Analysis", build(panel) {
    const draw = figures(panel, "memory"), lines = timelines(panel);
    return function () { draw(); lines(); };
  } };

  // --- the rest ----------------------------------------------------------

  function caveat(panel) {
    const note = el("p", { class: "caveat" });
    panel.append(note);
    return function () {
      note.hidden = D.data.quality.ranked;
      note.textContent = "Losses here cannot be ranked: "
        + D.data.quality.why + ".";
    };
  }

  for (const [key, title] of [["performance", "Performance"],
    ["efficiency", "Efficiency"]]) {
    D.tabs[key] = { title, build(panel) {
      const note = caveat(panel), draw = figures(panel, key);
      return function () { note(); draw(); };
    } };
  }

  D.chart = chart;
})(window.dashboard = window.dashboard || {});
