// A chart with everything around it: caption, legend, zoom, its data as a
// table, and its exports.
(function (D) {
  "use strict";
  const el = D.el;

  // --- a chart as rows ---------------------------------------------------

  const value = (x) => D.known(x) ? x : null;

  function barRows(chart) {
    const head = ["group", "label", ...chart.series.map((s) => s.name)];
    return [head, ...chart.categories.map((c, i) => [c.group || "", c.label,
      ...chart.series.map((s) => value(s.y[i]))])];
  }

  function pointRows(chart) {
    const scatter = chart.kind === "scatter";
    const rows = [scatter
      ? ["variant", "model", chart.x.label, chart.y.label, chart.area_label]
      : ["series", (chart.x || {}).label || "x", (chart.y || {}).label || "y"]];
    for (const s of chart.series) {
      (s.y || []).forEach((y, i) => {
        if (!D.known(y)) return;
        rows.push(scatter ? [s.name, s.notes[i], s.x[i], y, value(s.area[i])]
          : [s.name, value(s.x[i]), y]);
      });
    }
    return rows;
  }

  D.chartRows = (chart) => chart.categories ? barRows(chart)
    : pointRows(chart);

  function dataTable(chart) {
    const [head, ...rows] = D.chartRows(chart);
    return el("table", { class: "data" },
      D.caption(chart.title),
      el("thead", {}, el("tr", {}, head.map((h) =>
        el("th", { scope: "col" }, h)))),
      el("tbody", {}, rows.slice(0, 400).map((row) => el("tr", {},
        row.map((c) => el("td", {}, typeof c === "number" ? D.number(c, 5)
          : c ?? "–"))))));
  }

  // --- PNG: title, chart and legend on one canvas ------------------------

  const isLine = (spec) => spec.kind === "lines" && !spec.piled;

  function legendRows(g, names, width) {
    const rows = [[]];
    let used = 0;
    for (const item of names) {
      const need = g.measureText(item.label).width + 34;
      if (used + need > width && used > 0) { rows.push([]); used = 0; }
      rows[rows.length - 1].push({ ...item, at: used });
      used += need;
    }
    return rows;
  }

  function compose(figure) {
    const c = figure.chart, ratio = c.currentDevicePixelRatio;
    const sheet = document.createElement("canvas"), g = sheet.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    g.font = "13px system-ui, sans-serif";
    const rows = legendRows(g, c.data.datasets.filter((_, i) =>
      c.isDatasetVisible(i)).map((d) => ({ label: d.label,
      hue: d.borderColor, dash: d.borderDash, line: isLine(figure.spec) })),
    c.width - 24);
    sheet.width = c.width * ratio;
    sheet.height = (c.height + 48 + 20 * rows.length) * ratio;
    g.scale(ratio, ratio);
    g.fillStyle = style.getPropertyValue("--ground");
    g.fillRect(0, 0, c.width, sheet.height);
    g.fillStyle = style.getPropertyValue("--text");
    g.font = "bold 15px system-ui, sans-serif";
    g.fillText(figure.spec.title, 12, 24, c.width - 24);
    g.drawImage(c.canvas, 0, 36, c.width, c.height);
    g.font = "13px system-ui, sans-serif";
    rows.forEach((row, i) => row.forEach((item) => {
      const y = c.height + 54 + 20 * i;
      g.fillStyle = g.strokeStyle = item.hue;
      if (item.line) {
        g.setLineDash(item.dash);
        g.lineWidth = 2.5;
        g.beginPath();
        g.moveTo(8 + item.at, y - 4);
        g.lineTo(27 + item.at, y - 4);
        g.stroke();
      } else {
        g.fillRect(12 + item.at, y - 10, 12, 10);
      }
      g.fillStyle = style.getPropertyValue("--text");
      g.fillText(item.label, 30 + item.at, y);
    }));
    return sheet;
  }

  // Twice the pixels of the screen, at least.
  D.png = function (figure) {
    const c = figure.chart;
    c.options.devicePixelRatio = Math.max(2, devicePixelRatio);
    c.resize();
    const sheet = compose(figure);
    delete c.options.devicePixelRatio;
    c.resize();
    sheet.toBlob((blob) => D.download(figure.id + ".png", "image/png", blob),
      "image/png");
  };

  // --- SVG: the server draws what the filters leave; the page that stands
  // alone carries the drawings of everything --------------------------------

  const all = (items, hidden) => items.map((x) => x.name || x)
    .filter((name) => !hidden.has(name)).join("\n");

  function svgAddress(figure) {
    const p = new URLSearchParams();
    if (figure.spec.name) {
      p.set("name", figure.spec.name);
      return "charts/timeline.svg?" + p;
    }
    if (D.state.models.size) {
      p.set("models", all(D.data.models, D.state.models));
    }
    if (D.state.variants.size) {
      p.set("variants", all(D.data.variants, D.state.variants));
    }
    return "charts/" + figure.id + ".svg?" + p;
  }

  D.exportSvg = async function (figure) {
    const name = figure.id + ".svg", type = "image/svg+xml";
    if (!D.data.live) {
      const key = figure.spec.name ? "timeline " + figure.spec.name
        : figure.id;
      const text = (D.data.svgs || {})[key];
      if (text) D.download(name, type, text);
      else figure.say("No SVG: the charts' renderer was not there when this "
        + "page was written.");
      return;
    }
    try {
      const answer = await fetch(svgAddress(figure));
      const text = await answer.text();
      if (answer.ok) D.download(name, type, text);
      else figure.say("No SVG: " + text.trim());
    } catch (e) {
      figure.say("No SVG: the server does not answer.");
    }
  };

  // --- zoom --------------------------------------------------------------

  function setRange(chart, name, low, high) {
    const o = chart.options.scales[name];
    if (o.type === "category") {
      o.min = Math.max(0, Math.round(Math.min(low, high)));
      o.max = Math.round(Math.max(low, high));
    } else {
      o.min = Math.min(low, high);
      o.max = Math.max(low, high);
    }
  }

  function remember(figure) {
    const s = figure.chart.options.scales;
    figure.zoom = { x: [s.x.min, s.x.max], y: [s.y.min, s.y.max] };
    figure.reset.disabled = false;
    figure.chart.update();
  }

  // factor < 1 shows less of the middle, > 1 more.
  function zoomBy(figure, factor) {
    const c = figure.chart, x = c.scales.x;
    const half = (x.max - x.min) * factor / 2;
    const middle = (x.max + x.min) / 2;
    const most = figure.spec.categories
      ? figure.spec.categories.length - 1 : Infinity;
    setRange(c, "x", middle - half, Math.min(most, middle + half));
    remember(figure);
  }

  function unzoom(figure) {
    figure.zoom = null;
    figure.reset.disabled = true;
    figure.draw(true);
  }

  function clamp(v, low, high) { return Math.max(low, Math.min(high, v)); }

  // Drag a rectangle: bars zoom along x, everything else both ways.
  function dragging(figure, box) {
    let from = null;
    const mark = el("div", { class: "mark", hidden: true });
    box.append(mark);
    const place = (e) => {
      const r = figure.canvas.getBoundingClientRect();
      const a = figure.chart.chartArea;
      return [clamp(e.clientX - r.left, a.left, a.right),
        clamp(e.clientY - r.top, a.top, a.bottom)];
    };
    const rectangle = (to) => {
      const a = figure.chart.chartArea, flat = !!figure.spec.categories;
      return { left: Math.min(from[0], to[0]),
        top: flat ? a.top : Math.min(from[1], to[1]),
        width: Math.abs(to[0] - from[0]),
        height: flat ? a.bottom - a.top : Math.abs(to[1] - from[1]) };
    };
    figure.canvas.addEventListener("pointerdown", (e) => {
      if (e.button !== 0 || e.pointerType === "touch" || !figure.chart) return;
      from = place(e);
      figure.canvas.setPointerCapture(e.pointerId);
    });
    figure.canvas.addEventListener("pointermove", (e) => {
      if (!from) return;
      const r = rectangle(place(e));
      mark.hidden = r.width < 6;
      for (const key of Object.keys(r)) mark.style[key] = r[key] + "px";
    });
    figure.canvas.addEventListener("pointerup", (e) => {
      if (!from) return;
      const r = rectangle(place(e)), c = figure.chart;
      from = null;
      mark.hidden = true;
      if (r.width < 6 || (r.height < 6 && !figure.spec.categories)) return;
      const at = (scale, p) => scale.getValueForPixel(p);
      setRange(c, "x", at(c.scales.x, r.left),
        at(c.scales.x, r.left + r.width));
      if (!figure.spec.categories) {
        setRange(c, "y", at(c.scales.y, r.top),
          at(c.scales.y, r.top + r.height));
      }
      remember(figure);
    });
    figure.canvas.addEventListener("dblclick", () => unzoom(figure));
  }

  // --- legend ------------------------------------------------------------

  const SHAPE = {
    circle: () => D.svg("circle", { cx: 13, cy: 6, r: 3.5 }),
    rect: () => D.svg("rect", { x: 10, y: 3, width: 6, height: 6 }),
    triangle: () => D.svg("path", { d: "M13 2 L17 9 L9 9 Z" }),
    rectRot: () => D.svg("path", { d: "M13 1.5 L17.5 6 L13 10.5 L8.5 6 Z" }),
  };

  // What a series looks like: a square of its colour, or its line.
  function swatch(spec, set) {
    if (!isLine(spec)) {
      const square = el("span", { class: "swatch" });
      square.style.background = set.borderColor;
      return square;
    }
    return D.svg("svg", { width: 26, height: 12, "aria-hidden": "true",
      stroke: set.borderColor, fill: set.borderColor },
    D.svg("line", { x1: 0, y1: 6, x2: 26, y2: 6, "stroke-width": 2,
      "stroke-dasharray": set.borderDash.join(" ") || null }),
    set.pointRadius > 0 ? SHAPE[set.pointStyle]() : null);
  }

  function legend(figure) {
    const chips = figure.chart.data.datasets.map((set, i) => {
      const off = figure.off.has(set.label);
      figure.chart.setDatasetVisibility(i, !off);
      return el("button", { type: "button", class: "chip",
        "aria-pressed": String(!off), onclick() {
          if (figure.off.has(set.label)) figure.off.delete(set.label);
          else figure.off.add(set.label);
          legend(figure);
          figure.chart.update();
          figure.legend.children[i].focus();
        } }, swatch(figure.spec, set), set.label);
    });
    figure.legend.replaceChildren(...chips);
  }

  // --- the figure --------------------------------------------------------

  function toolbar(figure) {
    const about = (what) => ({ "aria-label": what + ": " + figure.id });
    figure.reset = D.button("Reset", () => unzoom(figure),
      { disabled: true, ...about("Reset zoom") });
    return el("div", { class: "tools" },
      D.button("+", () => zoomBy(figure, .6), about("Zoom in")),
      D.button("−", () => zoomBy(figure, 1.6), about("Zoom out")),
      figure.reset,
      D.button("PNG", () => D.png(figure), about("Save PNG")),
      D.button("SVG", () => D.exportSvg(figure), about("Save SVG")),
      D.button("CSV", () => D.download(figure.id + ".csv",
        "text/csv;charset=utf-8", D.csv(D.chartRows(figure.spec))),
      about("Save CSV")));
  }

  function show(figure, has) {
    figure.box.hidden = figure.legend.hidden = figure.tools.hidden = !has;
    figure.details.hidden = !has;
    figure.empty.hidden = has;
  }

  function emptyText(spec, whole) {
    const notes = new Set((spec.categories || []).map((c) => c.note)
      .filter(Boolean));
        const text = notes.size ? [...notes].join("; ")
      : spec.empty || "no data";
    return D.hasData(whole) ? "No data with these filters."
      : text.replace(/^./, (c) => c.toUpperCase()) + ".";
  }

  function draw(figure, fresh) {
    const spec = figure.spec, narrow = figure.box.clientWidth < 380;
    const config = D.config(spec, narrow);
    if (figure.zoom && !fresh) {
      for (const name of ["x", "y"]) {
        [config.options.scales[name].min, config.options.scales[name].max] =
          figure.zoom[name];
      }
    }
    if (figure.chart && figure.chart.config.type === config.type) {
      figure.chart.data = config.data;
      figure.chart.options = config.options;
      figure.chart.update("none");
    } else {
      if (figure.chart) figure.chart.destroy();
      figure.chart = new Chart(figure.canvas, config);
    }
    legend(figure);
    figure.chart.update("none");
  }

  function summary(spec) {
    const n = spec.categories ? spec.categories.length + " groups"
      : spec.series.length + " series";
    return spec.title + ". " + (spec.subtitle || "") + ". " + n
      + ". The data follows as a table.";
  }

  function update(figure, whole) {
    figure.whole = whole;
    figure.spec = D.filtered(whole);
    const has = D.hasData(figure.spec);
    figure.title.textContent = whole.title;
    figure.subtitle.textContent = whole.subtitle || "";
    figure.caption.textContent = [whole.caption, whole.note].filter(Boolean)
      .join(" ");
    figure.empty.textContent = emptyText(figure.spec, whole);
    figure.canvas.setAttribute("aria-label", summary(figure.spec));
    show(figure, has);
    if (figure.details.open) figure.fill();
    if (has) figure.draw();
  }

  // A new figure; .node goes into the page, .update(chart) draws.
  D.figure = function (id) {
    const f = { id, off: new Set(), zoom: null };
    f.canvas = el("canvas", { role: "img", tabindex: "0" });
    f.box = el("div", { class: "canvas" }, f.canvas);
    f.legend = el("div", { class: "legend", role: "group",
      "aria-label": "Series" });
    f.title = el("h3", {});
    f.subtitle = el("p", { class: "quiet" });
    f.caption = el("figcaption", {});
    f.empty = el("p", { class: "empty", hidden: true });
    f.message = el("p", { class: "message", role: "status" });
    f.say = (text) => { f.message.textContent = text; };
    f.fill = () => f.table.replaceChildren(dataTable(f.spec));
    f.table = el("div", { class: "scroll" });
    f.details = el("details", { ontoggle: () => f.details.open && f.fill() },
      el("summary", {}, "Data"), f.table);
    f.draw = (fresh) => draw(f, fresh);
    f.update = (chart) => update(f, chart);
    f.tools = toolbar(f);
    f.canvas.addEventListener("keydown", (e) => {
      if (e.key === "+") zoomBy(f, .6);
      else if (e.key === "-") zoomBy(f, 1.6);
      else if (e.key === "0" || e.key === "Escape") unzoom(f);
    });
    dragging(f, f.box);
    f.node = el("figure", { class: "card chart", id: "chart-" + id },
      el("div", { class: "head" }, el("div", {}, f.title, f.subtitle),
        f.tools), f.box, f.legend, f.empty, f.message, f.caption, f.details);
    D.figures[id] = f;
    return f;
  };
})(window.dashboard = window.dashboard || {});
