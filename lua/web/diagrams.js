// What each technique is, drawn: bits per weight, and heads that share keys
// and values.
(function (D) {
  "use strict";
  const el = D.el, svg = D.svg;

  function text(x, y, what, more) {
    return svg("text", { x, y, ...more }, what);
  }

  // --- bits per weight ---------------------------------------------------

  const FORMATS = [["FP32", 32, "four bytes a weight"],
    ["BF16", 16, "half of it, same range"],
    ["FP8, INT8", 8, "a quarter, with scales"],
    ["FP4 (NF4)", 4, "16 levels and a scale per block"]];

  function bits() {
    const parts = [];
    FORMATS.forEach(([name, count, note], row) => {
      const y = 14 + 46 * row;
      parts.push(text(0, y + 14, name, { class: "word" }));
      for (let i = 0; i < count; i++) {
        parts.push(svg("rect", { x: 84 + 8 * i, y, width: 7, height: 18,
          class: count === 4 ? "bit four" : "bit" }));
      }
      parts.push(text(84, y + 33, count + " bits: " + note,
        { class: "note" }));
    });
    return svg("svg", { viewBox: "0 0 350 200", role: "img",
      class: "diagram", "aria-label": "Bits per weight: FP32 has 32, BF16 "
      + "16, FP8 and INT8 8, FP4 4." }, parts);
  }

  // --- heads -------------------------------------------------------------

  function heads(queries, shared, left, title) {
    const parts = [text(left, 14, title, { class: "word" })];
    const each = queries / shared;
    for (let q = 0; q < queries; q++) {
      const x = left + 10 + 18 * q, g = Math.floor(q / each);
      const to = left + 10 + 18 * (g * each + (each - 1) / 2);
      parts.push(svg("line", { x1: x, y1: 58, x2: to, y2: 104,
        class: "wire" }));
      parts.push(svg("circle", { cx: x, cy: 50, r: 7, class: "query" }));
    }
    for (let g = 0; g < shared; g++) {
      const x = left + 10 + 18 * (g * each + (each - 1) / 2);
      parts.push(svg("rect", { x: x - 7, y: 104, width: 14, height: 14,
        class: "shared" }));
    }
    return parts;
  }

  function attention() {
    return svg("svg", { viewBox: "0 0 350 160", role: "img",
      class: "diagram", "aria-label": "In multi-head attention each of 8 "
      + "query heads has its own keys and values; in grouped-query attention "
      + "4 query heads share one." },
    heads(8, 8, 0, "MHA: 8 of each"), heads(8, 2, 190, "GQA: 8 share 2"),
    text(0, 34, "query heads", { class: "note" }),
    text(0, 138, "key/value heads", { class: "note" }),
    text(190, 34, "query heads", { class: "note" }),
    text(190, 138, "key/value heads", { class: "note" }));
  }

  // --- cards -------------------------------------------------------------

  const card = (title, picture, ...words) => el("section",
    { class: "card technique" }, el("h3", {}, title), picture,
    words.map((w) => el("p", {}, w)));

  const WHAT = {
    gqa: ["Grouped-query attention", "Several query heads share one head of "
      + "keys and values. The projections of keys and values become smaller, "
      + "and so do the activations that attention saves; the queries and the "
      + "arithmetic of attention itself stay."],
    fp4: ["4-bit weights", "The linear weights of the blocks are kept as 16 "
      + "levels of a normal distribution (NF4) with one scale a block, and a "
      + "residual that lets small updates add up. They are expanded before "
      + "each product, so memory is saved and arithmetic is not."],
    both: ["Both together", "What they save adds up where they touch different "
      + "bytes: GQA takes parameters and activations away, 4-bit storage "
      + "shrinks the state of what remains. Embeddings, norms and the output "
      + "projection are never quantized."],
  };

  D.techniques = () => el("div", { class: "grid three" },
    card(WHAT.gqa[0], attention(), WHAT.gqa[1]),
    card(WHAT.fp4[0], bits(), WHAT.fp4[1]),
    card(WHAT.both[0], el("div", { class: "memory-bar", role: "img",
      "aria-label": "Memory of training: weights, gradients, optimizer, "
      + "activations, scratch" },
    ["weights", "gradients", "optimizer", "activations", "scratch"].map((w) =>
      el("span", { class: w }, w))), WHAT.both[1],
    "Training keeps all of these at its peak. Only the first three follow the "
      + "number of parameters; the rest follows the batch, the context and "
      + "the width."));

  D.expectedTable = () => el("div", { class: "scroll" },
    el("table", { class: "data" },
      D.caption("What the original claims, against "
        + "the baseline"),
      el("thead", {}, el("tr", {}, ["technique", "memory", "speed",
        "perplexity"].map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, D.data.expected.map((r) => el("tr", {},
        el("th", { scope: "row" }, r.name), el("td", {}, r.memory),
        el("td", {}, r.speed), el("td", {}, r.quality))))));
})(window.dashboard = window.dashboard || {});
