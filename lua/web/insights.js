// What the results say: three best runs, changes paired by model, a
// recommendation by the reader's weights, findings and advice. Differences and
// ties were computed with the data; here they are chosen and weighed.
(function (D) {
  "use strict";
  const el = D.el;
  D.tabs = D.tabs || {};

  // --- the three cards ---------------------------------------------------

  const MEASURES = [
    { key: "loss", title: "Best quality", low: true,
      text: (f) => D.number(f.mean, 5) + " nats per token" },
    { key: "speed", title: "Fastest",
      text: (f) => D.si(f.mean) + " tokens/s" },
    { key: "memory", title: "Smallest", low: true,
      text: (f) => D.bytes(1e9 * f.mean) + " at its peak" },
  ];

  const name = (c) => c.model + " " + c.variant;

  // The best of the cells that are shown, and those it ties with.
  function best(measure) {
    let found = null;
    for (const c of D.data.cells) {
      const f = c[measure.key];
      if (!D.shown(c) || !f) continue;
      const ahead = found && (measure.low
        ? f.mean < found[measure.key].mean
        : f.mean > found[measure.key].mean);
      if (!found || ahead) found = c;
    }
    const ties = found ? found.ties[measure.key].map((i) =>
      D.data.cells[i - 1]).filter(D.shown) : [];
    return { cell: found, ties };
  }

  function remark(measure, found) {
    const seeds = found.cell[measure.key].count;
    const list = found.ties.map(name).join(", ");
    if (measure.key === "loss") {
      if (!D.data.quality.ranked) {
        return "No ranking: " + D.data.quality.why + ".";
      }
      if (seeds < 2) {
        return "One seed of it: whether it is ahead of others is not known.";
      }
      return list ? "A tie with " + list + ": inside the seed-to-seed spread."
        : "Beyond the seed-to-seed spread of " + seeds + " seeds.";
    }
    if (measure.key === "speed") {
      return list ? "A tie with " + list + ": inside the spread of one run's "
        + "steps." : "The difference to the next is larger than the spread of "
        + "one run's steps, where that is known.";
    }
    return list ? "A tie with " + list + "." : "From the accountant, exact.";
  }

  function cards() {
    return MEASURES.map((measure) => {
      const found = best(measure);
      if (!found.cell) {
        return el("section", { class: "card best" }, el("h3", {},
          measure.title), el("p", { class: "empty" },
          "No data with these filters."));
      }
      const unranked = measure.key === "loss" && !D.data.quality.ranked;
      const first = name(found.cell);
      return el("section", { class: "card best", "data-best": measure.key },
        el("h3", {}, measure.title),
        el("p", { class: "big" }, unranked ? "Not ranked"
          : (found.ties.length ? "Tie: " : "") + first),
        el("p", {}, (unranked ? "lowest: " + first + ", " : "")
          + measure.text(found.cell[measure.key])),
        el("p", { class: "quiet" }, remark(measure, found)));
    });
  }

  // --- paired by model ---------------------------------------------------

  function mean(list) {
    const known = list.filter(D.known);
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length
      : null;
  }

  function rate(pairs) {
    const judged = D.data.quality.ranked && pairs.every((p) =>
      p.comparable && p.seeds > 1);
    return { memory: mean(pairs.map((p) => p.memory)),
      speed: mean(pairs.map((p) => p.speed)),
      noise: pairs.every((p) => D.known(p.noise))
        ? mean(pairs.map((p) => p.noise)) : null,
      perplexity: mean(pairs.map((p) => p.perplexity)), judged, pairs };
  }

  // One entry a variant: its changes, averaged over the models shown.
  function paired() {
    return D.data.variants.map((v) => ({ variant: v.name,
      pairs: D.data.pairs.filter((p) => p.variant === v.name && D.shown(p)) }))
      .filter((v) => v.pairs.length)
      .map((v) => ({ variant: v.variant, ...rate(v.pairs) }));
  }

  const models = (v) => v.pairs.length + (v.pairs.length === 1 ? " model"
    : " models") + ": " + v.pairs.map((p) => p.model).join(", ");

  function speedText(v) {
    if (!D.known(v.speed)) return "–";
    return D.percent(v.speed) + (D.known(v.noise) ? " ± "
      + (100 * v.noise).toFixed(0) + " %" + (Math.abs(v.speed) <= v.noise
      ? " (a tie)" : "") : "");
  }

  function pairTable(list) {
    return el("table", { class: "data" },
      D.caption("Mean change against the model's own "
        + "baseline. Memory at the common micro-batch, perplexity at each "
        + "run's end; ± is how much the steps of one run differ in time."),
      el("thead", {}, el("tr", {}, ["variant", "memory", "speed",
        "perplexity", "over"].map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, list.map((v) => el("tr", {},
        el("th", { scope: "row" }, v.variant),
        el("td", {}, D.percent(v.memory)), el("td", {}, speedText(v)),
        el("td", {}, D.percent(v.perplexity) + (v.judged ? ""
          : " (not judged)")),
        el("td", {}, models(v))))));
  }

  // --- the recommendation ------------------------------------------------

  // Points: hundredths of change for the better, weighed.
  function scored(list) {
    const [m, s, q] = D.state.weights;
    const judged = list.every((v) => v.judged);
    const sum = m + s + (judged ? q : 0) || 1;
    const rows = list.map((v) => {
      const parts = [m * -(v.memory || 0), s * (v.speed || 0),
        judged ? q * -(v.perplexity || 0) : 0].map((x) => 100 * x / sum);
      return { variant: v.variant, parts,
        noise: D.known(v.noise) ? 100 * s * v.noise / sum : null,
        score: parts.reduce((a, b) => a + b, 0) };
    });
    rows.push({ variant: list[0].pairs[0].against, parts: [0, 0, 0],
      noise: 0, score: 0 });
    return { judged, rows: rows.sort((a, b) => b.score - a.score) };
  }

  // Ties: everything as near to the first as the speeds of the two vary.
  function advised(result) {
    const [first, second] = result.rows;
    const margin = (r) => Math.max(first.noise || 0, r.noise || 0);
    const ties = result.rows.filter((r) =>
      first.score - r.score <= margin(r));
    const tie = ties.length > 1;
    const known = result.rows.slice(0, Math.max(2, ties.length))
      .every((r) => r.noise !== null);
    const gap = (first.score - (tie ? ties[ties.length - 1] : second).score)
      .toFixed(1);
    const words = tie ? "A tie: " + ties.map((r) => r.variant).join(", ")
      : first.variant;
    return [words, (tie ? "They are at most " + gap + " points apart; "
      : "It is " + gap + " points ahead of " + second.variant + "; ")
      + (known ? "speeds vary by " + Math.max(...ties.concat(second)
        .map(margin)).toFixed(1) + " points at these weights."
        : "how much speeds vary is not known for all of them.")];
  }

  function scoreTable(result) {
    const tenth = (x) => (x > 0 ? "+" : "") + x.toFixed(1);
    return el("table", { class: "data" },
      D.caption("Points: per cent of change for the "
        + "better, times its weight."),
      el("thead", {}, el("tr", {}, ["variant", "memory", "speed", "quality",
        "points"].map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, result.rows.map((r) => el("tr", {},
        el("th", { scope: "row" }, r.variant),
        r.parts.map((p, i) => el("td", {}, i === 2 && !result.judged
          ? "not judged" : tenth(p))),
        el("td", {}, tenth(r.score))))));
  }

  function recommendation(list) {
    if (!list.length) {
      return [el("p", { class: "empty" }, D.data.pairs.length
        ? "No data with these filters."
        : "No pair of a variant and its baseline has finished.")];
    }
    const result = scored(list);
    const nothing = D.state.weights.every((w, i) => w === 0
      || (i === 2 && !result.judged));
    const [words, why] = nothing
      ? ["Nothing to weigh", "No weight is left that counts."]
      : advised(result);
    return [el("p", { class: "big", id: "advised" }, words),
      el("p", {}, why), result.judged ? null : el("p", { class: "quiet" },
        "Quality does not count: " + (D.data.quality.why
          || "for some pairs schedules differ or there is one seed") + "."),
      el("div", { class: "scroll" }, scoreTable(result))];
  }

  function slider(i, title) {
    const out = el("output", {}), input = el("input", { type: "range",
      min: 0, max: 100, step: 5, id: "weight-" + i, oninput() {
        D.state.weights[i] = Number(input.value);
        D.writeUrl();
        D.refresh();
      } });
    return { title, node: el("label", { class: "weight" },
      el("span", {}, title), input, out), show() {
      input.value = D.state.weights[i];
      out.textContent = D.state.weights[i];
    } };
  }

  // --- findings ----------------------------------------------------------

  const MARK = { good: "✓", bad: "✗", open: "?", info: "•" };
  const MEANS = { good: "holds", bad: "does not hold", open: "not decided",
    info: "fact" };

  const finding = (f) => el("li", { class: f.kind },
    el("span", { class: "sign", role: "img", "aria-label": MEANS[f.kind] },
      MARK[f.kind]), el("div", {}, el("p", {}, f.text),
      el("p", { class: "quiet" }, f.rests)));

  function adviceItem(a) {
    const runs = a.runs.filter(D.shown);
    return runs.length ? el("li", {}, el("p", {}, a.text), el("p",
      { class: "quiet" }, runs.map((r) => r.name + " (" + r.rests + ")")
        .join(", "))) : null;
  }

  function section(title, ...content) {
    return el("section", { class: "card" }, el("h3", {}, title), content);
  }

  D.tabs.insights = { title: "Insights", build(panel) {
    const three = el("div", { class: "grid three" });
    const pairs = el("div", { class: "scroll" }), advice = el("ul");
    const result = el("div", { "aria-live": "polite" });
    const findings = el("ul", { class: "findings" });
    const sliders = [slider(0, "memory"), slider(1, "speed"),
      slider(2, "quality")];
    panel.append(three, section("Changes paired by model", pairs),
      section("Recommendation", el("div", { class: "sliders" },
        sliders.map((s) => s.node)), result),
      section("Findings", findings), section("Advice", advice));
    return function () {
      const list = paired();
      three.replaceChildren(...cards());
      D.replace(pairs, list, () => list.length ? pairTable(list)
        : el("p", { class: "empty" }, "No pair to compare."));
      sliders.forEach((s) => s.show());
      D.replace(result, [list, D.state.weights], () => recommendation(list));
      const found = D.data.findings.filter(D.shown);
      D.replace(findings, found, () => found.map(finding));
      const items = D.data.advice.map(adviceItem).filter(Boolean);
      D.replace(advice, items.map((x) => x.textContent), () => items.length
        ? items : el("li", {}, "None: nothing stands out."));
    };
  } };
})(window.dashboard = window.dashboard || {});
