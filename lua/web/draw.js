// From a chart's description to Chart.js: filtering by the tags of its parts,
// axes, colours of the theme, and what is drawn over it (reference lines,
// whiskers, words where a value is missing).
(function (D) {
  "use strict";

  const color = (name) => getComputedStyle(document.documentElement)
    .getPropertyValue(name).trim();
  D.dark = () => document.documentElement.dataset.theme === "dark";

  const channels = (hex) => [1, 3, 5].map((i) =>
    parseInt(hex.slice(i, i + 2), 16));

  // Colours that a dark ground would swallow are lightened.
  D.shade = function (hex) {
    if (!/^#[0-9a-f]{6}$/i.test(hex || "")) hex = "#8a8a8a";
    const c = channels(hex), light = (c[0] * 3 + c[1] * 6 + c[2]) / 10;
    if (!D.dark() || light > 118) return hex;
    const more = (118 - light) / (255 - light);
    return "#" + c.map((v) => Math.round(v + (255 - v) * more).toString(16)
      .padStart(2, "0")).join("");
  };

  const fade = (hex, alpha) => hex + Math.round(255 * alpha).toString(16)
    .padStart(2, "0");

  // --- filtering ---------------------------------------------------------

  const pick = (list, keep) => list ? keep.map((i) => list[i]) : list;

  function withoutPoints(s, keep) {
    const out = { ...s };
    for (const key of ["x", "y", "spread", "area", "notes", "models"]) {
      out[key] = pick(s[key], keep);
    }
    return out;
  }

  const indices = (list, test) => list.map((item, i) => test(item) ? i : -1)
    .filter((i) => i >= 0);

  // The parts of a chart that the filters leave.
  D.filtered = function (chart) {
    const out = { ...chart, series: chart.series.filter(D.shown) };
    if (chart.categories) {
      const keep = indices(chart.categories, D.shown);
      out.categories = pick(chart.categories, keep);
      out.series = out.series.map((s) => withoutPoints(s, keep));
    } else {
      out.series = out.series.map((s) => s.models ? withoutPoints(s,
        indices(s.models, (m) => D.shown({ model: m }))) : s);
    }
    return out;
  };

  D.hasData = (chart) => chart.series.some((s) =>
    (s.y || []).some(D.known));

  // --- axes --------------------------------------------------------------

  D.tick = function (format, value) {
    if (format === "si") return D.si(value);
    const text = D.number(value, 4);
    return format === "percent" ? text + " %" : text;
  };

  // A logarithmic axis earns its place over a range of five and more; Chart.js
  // would begin it at a power of ten.
  function logarithmic(a, values) {
    const list = values.filter((v) => D.known(v) && v > 0);
    const low = Math.min(...list), high = Math.max(...list);
    if (!a.log || high / low < 5) return null;
    return { type: "logarithmic", min: low / 1.4, max: high * 1.4 };
  }

  const round = (v) => [1, 2, 5].includes(Number((v
    / 10 ** Math.floor(Math.log10(v) + 1e-9)).toPrecision(6)));

  function axis(spec, kind, values) {
    const a = spec || {}, log = logarithmic(a, values || []);
    return {
      type: kind || "linear", min: a.min, max: a.max, beginAtZero: false,
      ...log,
      title: { display: !!a.label, text: a.label, color: color("--soft") },
      grid: { color: color("--line"), borderColor: color("--line") },
      afterBuildTicks(scale) {
        if (log) scale.ticks = scale.ticks.filter((t) => round(t.value));
      },
      ticks: { color: color("--soft"), maxTicksLimit: 8, maxRotation: 0,
        callback: (value) => D.tick(a.format, value) },
    };
  }

  function categoryAxis(chart, narrow) {
    const base = axis(chart.x, "category");
    base.grid = { display: false, borderColor: color("--line") };
    base.offset = true;
    base.ticks = { color: color("--soft"), autoSkip: false, maxRotation: 90,
      minRotation: chart.categories.length > (narrow ? 5 : 9) ? 60 : 0,
      font: { size: narrow ? 10 : 12 } };
    return base;
  }

  // --- data --------------------------------------------------------------

  const DASH = { dashed: [7, 4], dotted: [2, 3], dashdot: [7, 3, 2, 3] };
  const MARK = { square: "rect", triangle: "triangle", diamond: "rectRot" };
  const orNull = (list) => (list || []).map((y) => D.known(y) ? y : null);

  function bars(chart, s) {
    const hue = D.shade(s.color);
    const points = { label: s.name, data: orNull(s.y), spec: s,
      backgroundColor: hue, borderColor: hue, maxBarThickness: 44,
      stack: chart.stacked ? "all" : undefined };
    if (!chart.dots) return points;
    return { ...points, type: "line", showLine: false, pointRadius: 5,
      pointHoverRadius: 7 };
  }

  function curve(chart, s, index) {
    const hue = D.shade(s.color), data = [];
    (s.y || []).forEach((y, i) => {
      if (D.known(y) && D.known(s.x[i])) data.push({ x: s.x[i], y });
    });
    return { label: s.name, data, spec: s, parsing: false,
      borderColor: hue, backgroundColor: fade(hue, chart.piled ? .55 : 1),
      borderWidth: s.width || 2, borderDash: DASH[s.dash] || [],
      pointStyle: MARK[s.marker] || "circle", pointHitRadius: 8,
      pointRadius: s.marker && data.length < 60 ? 3 : 0,
      fill: chart.piled ? (index === 0 ? "origin" : "-1") : false };
  }

  function largest(chart) {
    let most = 0;
    for (const s of chart.series) {
      for (const a of s.area || []) if (D.known(a)) most = Math.max(most, a);
    }
    return most || 1;
  }

  function discs(chart, s, narrow) {
    const hue = D.shade(s.color), data = [], most = largest(chart);
    (s.y || []).forEach((y, i) => {
      if (!D.known(y) || !D.known(s.x[i])) return;
      const share = D.known(s.area[i]) ? s.area[i] / most : .2;
      data.push({ x: s.x[i], y, r: (narrow ? 13 : 20) * Math.sqrt(share),
        area: s.area[i], note: s.notes[i] });
    });
    return { label: s.name, data, spec: s, borderWidth: 1.5,
      backgroundColor: fade(hue, .55), borderColor: hue };
  }

  // --- drawn over the chart ----------------------------------------------

  function referenceLine(c, chart, r) {
    const s = r.vertical ? c.scales.x : c.scales.y, a = c.chartArea;
    const g = c.ctx, beyond = r.value > s.max;
    if (r.value < s.min) return;
    const at = s.getPixelForValue(beyond ? s.max : r.value);
    g.save();
    g.strokeStyle = g.fillStyle = D.dark() ? "#ff8a9a" : r.color || "#b00020";
    g.font = "12px system-ui, sans-serif";
    g.setLineDash([6, 4]);
    g.beginPath();
    if (beyond) { /* only its label: it lies outside */ }
    else if (r.vertical) { g.moveTo(at, a.top); g.lineTo(at, a.bottom); }
    else { g.moveTo(a.left, at); g.lineTo(a.right, at); }
    g.stroke();
    const text = r.label + (beyond ? (r.vertical ? " →" : " ↑") : "");
    g.textAlign = "right";
    g.fillText(text, r.vertical && !beyond ? at - 4 : a.right - 4,
      r.vertical ? a.top + 12 : Math.max(a.top + 12, at - 5));
    g.restore();
  }

  function whiskers(c) {
    const g = c.ctx;
    c.data.datasets.forEach((set, k) => {
      const spread = set.spec.spread, meta = c.getDatasetMeta(k);
      if (!spread || meta.hidden) return;
      g.save();
      g.strokeStyle = color("--text");
      meta.data.forEach((bar, i) => {
        if (!D.known(spread[i]) || set.data[i] === null) return;
        const y = c.scales.y, mean = set.data[i];
        const top = y.getPixelForValue(mean + spread[i]);
        const low = y.getPixelForValue(mean - spread[i]);
        g.beginPath();
        g.moveTo(bar.x, top); g.lineTo(bar.x, low);
        for (const at of [top, low]) {
          g.moveTo(bar.x - 4, at); g.lineTo(bar.x + 4, at);
        }
        g.stroke();
      });
      g.restore();
    });
  }

  function word(c, text, x) {
    const g = c.ctx;
    g.save();
    g.translate(x, c.chartArea.bottom - 6);
    g.rotate(-Math.PI / 2);
    g.fillStyle = color("--soft");
    g.font = "11px system-ui, sans-serif";
    g.fillText(String(text).slice(0, 40), 0, 4);
    g.restore();
  }

  // Each disc says which model it is.
  function names(c, chart) {
    if (chart.kind !== "scatter" || c.width < 380) return;
    const g = c.ctx, taken = [];
    const free = (x, y, half) => taken.every((t) =>
      Math.abs(t.x - x) > t.half + half || Math.abs(t.y - y) > 11);
    g.save();
    g.fillStyle = color("--text");
    g.font = "11px system-ui, sans-serif";
    g.textAlign = "center";
    c.data.datasets.forEach((set, k) => {
      if (!c.isDatasetVisible(k)) return;
      c.getDatasetMeta(k).data.forEach((disc, i) => {
        const a = c.chartArea;
        if (disc.x < a.left || disc.x > a.right || disc.y < a.top
          || disc.y > a.bottom) return;
        const name = String(set.data[i].note).slice(0, 24);
        const half = g.measureText(name).width / 2;
        const y = disc.y - disc.options.radius - 4;
        if (!free(disc.x, y, half)) return; // the tooltip still says it
        taken.push({ x: disc.x, y, half });
        g.fillText(name, disc.x, y);
      });
    });
    g.restore();
  }

  // In a missing bar's place stands why it is missing.
  function missing(c, chart) {
    if (!chart.categories) return;
    chart.categories.forEach((category, i) => {
      const x = c.scales.x.getPixelForValue(i);
      if (x < c.chartArea.left || x > c.chartArea.right) return;
      if (category.note) return word(c, category.note, x);
      if (chart.stacked || chart.dots) return;
      c.data.datasets.forEach((set, k) => {
        const note = (set.spec.notes || [])[i];
        const bar = c.getDatasetMeta(k).data[i];
        if (set.data[i] === null && note && bar) word(c, note, bar.x);
      });
    });
  }

  D.over = { id: "over", afterDatasetsDraw(c) {
    const chart = c.config.options.description;
    for (const r of chart.references || []) referenceLine(c, chart, r);
    whiskers(c);
    missing(c, chart);
    names(c, chart);
  } };

  // --- the whole ---------------------------------------------------------

  function hint(chart) {
    return { callbacks: {
      title(items) {
        const item = items[0], i = item.dataIndex;
        if (chart.categories) {
          const c = chart.categories[i];
          return c.group ? c.group + " " + c.label : c.label;
        }
        if (chart.kind === "scatter") {
          return item.raw.note + " " + item.dataset.label;
        }
        return (chart.x.label || "x") + ": " + D.tick(chart.x.format,
          item.raw.x);
      },
      label(item) { return label(chart, item); },
    } };
  }

  function label(chart, item) {
    const tick = (a, v) => D.tick((a || {}).format, v);
    if (chart.kind === "scatter") {
      const list = [chart.x.label + ": " + tick(chart.x, item.raw.x),
        chart.y.label + ": " + tick(chart.y, item.raw.y)];
      if (D.known(item.raw.area)) {
        list.push(chart.area_label + ": " + D.si(item.raw.area));
      }
      return list;
    }
    let value = item.parsed.y;
    if (chart.piled && item.datasetIndex > 0) {
      const below = item.chart.data.datasets[item.datasetIndex - 1].data;
      value -= (below[item.dataIndex] || { y: 0 }).y;
    }
    const spread = (item.dataset.spec.spread || [])[item.dataIndex];
    return item.dataset.label + ": " + tick(chart.y, value)
      + (D.known(spread) ? " ± " + tick(chart.y, spread) : "");
  }

  // A budget near the data belongs into the picture; a far one does not.
  function reach(chart, x, y) {
    const sums = (chart.categories || []).map((_, i) => chart.stacked
      ? chart.series.reduce((n, s) => n + (s.y[i] || 0), 0)
      : Math.max(...chart.series.map((s) => s.y[i] || 0)));
    const along = chart.series.flatMap((s) => s.x || []).filter(D.known);
    for (const r of chart.references || []) {
      const most = Math.max(...(r.vertical ? along : sums));
      if (r.value <= 2.5 * most) (r.vertical ? x : y).suggestedMax = r.value;
    }
    if (chart.kind === "bars" && !chart.dots) {
      y.beginAtZero = true;
    }
  }

  function datasets(chart, narrow) {
    return chart.series.map((s, i) => chart.kind === "bars" ? bars(chart, s)
      : chart.kind === "lines" ? curve(chart, s, i)
        : discs(chart, s, narrow));
  }

  const TYPE = { bars: "bar", lines: "line", scatter: "bubble" };

  // Chart.js's configuration of a (filtered) chart.
  D.config = function (chart, narrow) {
    const y = axis(chart.y, null, chart.series.flatMap((s) => s.y || []));
    y.stacked = !!chart.stacked;
    const x = chart.categories ? categoryAxis(chart, narrow)
      : axis(chart.x, null, chart.series.flatMap((s) => s.x || []));
    if (chart.kind === "scatter") x.grace = y.grace = "8%";
    x.stacked = !!chart.stacked;
    reach(chart, x, y);
    return {
      type: TYPE[chart.kind],
      data: { labels: (chart.categories || []).map((c) =>
        c.group ? c.group + " " + c.label : c.label),
      datasets: datasets(chart, narrow) },
      options: { description: chart, animation: false, responsive: true,
        maintainAspectRatio: false, normalized: true,
        layout: { padding: { top: 6, right: 8 } },
        interaction: { mode: chart.kind === "bars" || chart.piled
          ? "index" : "nearest", intersect: false },
        scales: { x, y },
        plugins: { legend: { display: false }, tooltip: hint(chart) } },
      plugins: [D.over],
    };
  };
})(window.dashboard = window.dashboard || {});
