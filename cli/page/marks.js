// What every plot is drawn from: numbers as text, SVG as text, and the two forms that most plots
// have (a matrix, and panels with axes). D3 gives scales, ticks, number formats and paths.
//
// A figure is {id, title, note, label, width, height, svg, marks, table}. A mark is what one value
// looks like: {x, y, w, h, row, column, text}, text being lines for people. The SVG has one element
// of class "mark" for each, in the same order.
//
// Runs in browsers and in the tool's own interpreter, which knows ECMAScript 5 and no document: so
// no text is measured, and a file that the tool writes is the same everywhere. Colours are classes
// (plots.css).
var w4marks = (function (d3) {
  "use strict";

  var kLetter = 7.4;  // width of a letter of the plots' text, pixels: of a wide type
  var kLine = 13;     // height of a line of it

  // Joins in steps: the tool's interpreter copies everything joined so far for each part.
  function join(parts) {
    while (parts.length > 64) {
      var fewer = [];
      for (var i = 0; i < parts.length; i += 64) fewer.push(parts.slice(i, i + 64).join(""));
      parts = fewer;
    }
    return parts.join("");
  }

  function escape(text) {
    return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;")
        .replace(/"/g, "&quot;").replace(/'/g, "&#39;");
  }

  function place(x) { return Math.round(x * 10) / 10; }

  // element("rect", {x: 1.23}) is <rect x="1.2"/>. `content` is markup.
  function element(name, attributes, content) {
    var out = "<" + name;
    Object.keys(attributes).forEach(function (key) {
      var value = attributes[key];
      if (value === undefined || value === null || value === "") return;
      out += " " + key + "=\"" + (typeof value === "number" ? place(value) : escape(value)) + "\"";
    });
    return content === undefined ? out + "/>" : out + ">" + content + "</" + name + ">";
  }

  // A text; `anchor` is start, middle or end.
  function words(x, y, text, anchor, kind) {
    return element("text", {x: x, y: y, "text-anchor": anchor === "start" ? "" : anchor,
                            "class": kind}, escape(text));
  }

  function width(text) { return String(text).length * kLetter; }

  // Three digits at least, as few as needed: 2.31, 17.9, 115, 12,345.
  function number(value) {
    var size = Math.abs(value);
    return d3.format(size >= 99.95 ? ",.0f" : size >= 9.995 ? ",.1f" : ",.2f")(value);
  }

  function microseconds(value) { return number(value) + " \u00b5s"; }
  function percent(share) { return d3.format(".0f")(100 * share) + " %"; }
  function ratio(value) { return d3.format(value >= 9.995 ? ".1f" : ".2f")(value) + "\u00d7"; }
  function tokens(m) { return d3.format(m >= 10000 ? ",d" : "d")(m); }

  function svg(figure, parts) {
    figure.svg = element("svg", {xmlns: "http://www.w3.org/2000/svg", "class": "plot",
                                 width: figure.width, height: figure.height,
                                 viewBox: "0 0 " + place(figure.width) + " " + place(figure.height)},
                         join(parts));
    return figure;
  }

  // Swatches with their words, in as many lines as they need: {parts, height}.
  function legend(entries, x, y, available) {
    var parts = [];
    var left = x;
    var top = y;
    entries.forEach(function (entry) {
      var size = 20 + width(entry.label) + 14;
      if (left > x && left + size > x + available) {
        left = x;
        top += 20;
      }
      parts.push(entry.line
          ? element("line", {x1: left, y1: top + 6, x2: left + 14, y2: top + 6,
                             "class": "line " + entry.kind})
          : element("rect", {x: left, y: top, width: 13, height: 13, rx: 2, "class": entry.kind}));
      parts.push(words(left + 19, top + 11, entry.label, "start", "legend"));
      left += size;
    });
    return {parts: parts, height: entries.length ? top - y + 26 : 0};
  }

  // A scale of colours in steps: `bounds` stand between the `kinds`, `ends` say what its sides mean.
  function scale(kinds, bounds, ends, available) {
    var parts = [];
    var before = ends ? width(ends[0]) + 10 : 0;
    var after = ends ? width(ends[1]) + 10 : 0;
    var beside = before + after + kinds.length * 34 <= available;
    var step = Math.min(44, (available - (beside ? before + after : 0) - 12) / kinds.length);
    var x = beside ? before : 6;
    var top = ends && !beside ? 18 : 0;
    kinds.forEach(function (kind, i) {
      parts.push(element("rect", {x: x + i * step, y: top, width: step - 1, height: 11, "class": kind}));
      if (i) parts.push(words(x + i * step - 0.5, top + 24, bounds[i - 1], "middle", "tick"));
    });
    if (ends) {
      var right = x + kinds.length * step;
      parts.push(words(beside ? x - 8 : x, beside ? 10 : 10, ends[0], beside ? "end" : "start", "legend"));
      parts.push(words(beside ? right + 7 : right, 10, ends[1], beside ? "start" : "end", "legend"));
    }
    return {parts: parts, height: top + 44};
  }

  // A matrix of values: `rows` [{lines, shortLines}], `columns` [text], and for each pair
  // cell(i, j), null or {kind, text, lines}: a class, what stands in the cell (a text, or two lines
  // of one) and the words of its mark. `key` is a legend or a scale. Rows become columns where the
  // width leaves no room for the text. With `runs`, columns beside each other of one kind are drawn
  // as one, with one text.
  function matrix(figure, spec) {
    var sideways = (figure.width - sideWidth(spec.rows)) / spec.columns.length < spec.least;
    var plain = spec.columns.map(function (text) { return {lines: [text]}; });
    var down = sideways ? plain : spec.rows;
    var across = !sideways ? plain
                           : spec.rows.map(function (row) { return {lines: row.shortLines}; });
    var left = sideWidth(down);
    var head = d3.max(across, function (each) { return each.lines.length; }) * kLine;
    var key = spec.key;
    var top = key.height + kLine + head + 8;
    var size = Math.min(spec.most, Math.max(spec.least, (figure.width - left) / across.length));
    var height = spec.height || 28;
    figure.width = Math.max(figure.width, Math.ceil(left + size * across.length));
    figure.height = top + height * down.length + 4;
    var parts = key.parts;
    var labels = [];
    function at(i, j) {
      if (i < 0 || j < 0 || i >= down.length || j >= across.length) return null;
      return sideways ? spec.cell(j, i) : spec.cell(i, j);
    }
    function joined(i, j, step) {
      var other = at(sideways ? i + step : i, sideways ? j : j + step);
      return Boolean(spec.runs && other && other.kind === at(i, j).kind);
    }
    parts.push(words(left, key.height + 10, sideways ? "" : spec.axis, "start", "title"));
    if (sideways) parts.push(words(left - 10, top - 8, spec.shortAxis, "end", "title"));
    across.forEach(function (each, j) {
      each.lines.forEach(function (line, i) {
        parts.push(words(left + (j + 0.5) * size,
                         top - 8 - (each.lines.length - 1 - i) * kLine, line, "middle", "tick"));
      });
    });
    down.forEach(function (each, i) {
      var middle = top + (i + 0.5) * height + 4;
      parts.push(words(left - 10, middle, each.lines.join(" "), "end", "tick"));
      across.forEach(function (ignored, j) {
        var cell = at(i, j);
        if (!cell) return;
        var x = left + j * size;
        var y = top + i * height;
        // A neighbour of the same run leaves no gap.
        var before = joined(i, j, -1) ? 0 : 0.75;
        var after = joined(i, j, 1) ? 0 : 0.75;
        var box = sideways
            ? {x: x + 0.75, y: y + before, width: size - 1.5, height: height - before - after}
            : {x: x + before, y: y + 0.75, width: size - before - after, height: height - 1.5};
        box.rx = spec.runs ? 0 : 3;
        box["class"] = "mark " + cell.kind;
        parts.push(element("rect", box));
        figure.marks.push({x: x + size / 2, y: y + height / 2, w: size, h: height, row: i,
                           column: j, text: cell.lines});
        if (joined(i, j, -1)) return;
        var count = 1;
        while (joined(i + (sideways ? count - 1 : 0), j + (sideways ? 0 : count - 1), 1)) ++count;
        var room = sideways ? size : size * count;
        var texts = room >= width(cell.text) + 6 || !cell.broken ? [cell.text] : cell.broken;
        var cx = x + (sideways ? size : size * count) / 2;
        var cy = y + (sideways ? height * count : height) / 2 + 4;
        texts.forEach(function (text, line) {
          labels.push(words(cx, cy + (line - (texts.length - 1) / 2) * 11, text, "middle",
                            "value on-" + cell.kind + (texts.length > 1 ? " small" : "")));
        });
      });
    });
    return svg(figure, parts.concat(labels));
  }

  function sideWidth(labels) {
    return 14 + d3.max(labels, function (each) { return width(each.lines.join(" ")); });
  }

  // Ticks of a logarithmic axis that leave room for their texts: all of 1, 2, 5 or powers of ten; over
  // a short way even steps.
  function logTicks(domain, most) {
    var all = [];
    for (var e = Math.floor(Math.log(domain[0]) / Math.LN10) - 1; e <= 12; ++e) {
      [1, 2, 5].forEach(function (digit) {
        var value = digit * Math.pow(10, e);
        if (value >= domain[0] * 0.999 && value <= domain[1] * 1.001) all.push(value);
      });
    }
    if (all.length < 3) return d3.scale.linear().domain(domain).ticks(Math.min(most, 4));
    if (all.length <= most) return all;
    var powers = all.filter(function (value) {
      return Math.abs(value / Math.pow(10, Math.round(Math.log(value) / Math.LN10)) - 1) < 1e-9;
    });
    return powers.length > 1 ? powers : all.filter(function (v, i) { return i % 2 === 0; });
  }

  function plainNumber(value) { return d3.format(",")(Number(value.toPrecision(3))); }

  // Where the panels of a figure stand: as many beside each other as have the least width, in lines
  // of even length.
  function grid(count, total, least, height) {
    var most = Math.max(1, Math.min(count, Math.floor(total / least)));
    var across = Math.ceil(count / Math.ceil(count / most));
    var size = Math.min(560, total / across);
    return {
      width: size,
      height: Math.ceil(count / across) * height,
      at: function (i) { return {x: (i % across) * size, y: Math.floor(i / across) * height}; }
    };
  }

  // A panel's frame: heading, grid lines and tick texts. `x` and `y` are D3 scales in pixels.
  function frame(panel) {
    var parts = [];
    var y0 = panel.y.range()[0];
    var x0 = panel.x0;
    var x1 = panel.x1;
    if (panel.heading) parts.push(words(x0, panel.top - 22, panel.heading, "start", "heading"));
    if (panel.yTitle) parts.push(words(x0, panel.top - 7, panel.yTitle, "start", "title"));
    panel.yTicks.forEach(function (value) {
      var at = panel.y(value);
      parts.push(element("line", {x1: x0, x2: x1, y1: at, y2: at, "class": "grid"}));
      parts.push(words(x0 - 6, at + 4, panel.yText(value), "end", "tick"));
    });
    parts.push(element("line", {x1: x0, x2: x1, y1: y0, y2: y0, "class": "axis"}));
    panel.xTicks.forEach(function (value) {
      var at = panel.x(value);
      parts.push(element("line", {x1: at, x2: at, y1: y0, y2: y0 + 4, "class": "axis"}));
      parts.push(words(at, y0 + 17, panel.xText(value), "middle", "tick"));
    });
    if (panel.xTitle) parts.push(words(x1, y0 + 32, panel.xTitle, "end", "title"));
    return parts;
  }

  // Texts at the ends of lines, moved apart where they would overlap.
  function endLabels(labels, x, lo, hi) {
    var sorted = labels.slice().sort(function (a, b) { return a.y - b.y; });
    sorted.forEach(function (label, i) {
      label.at = Math.max(label.y, i ? sorted[i - 1].at + kLine : lo);
    });
    for (var i = sorted.length - 1; i >= 0; --i) {
      var most = i === sorted.length - 1 ? hi : sorted[i + 1].at - kLine;
      sorted[i].at = Math.min(sorted[i].at, most);
    }
    return sorted.map(function (label) {
      return words(x, label.at + 4, label.text, "start", "end " + label.kind);
    });
  }

  return {join: join, escape: escape, element: element, words: words, width: width, number: number,
          microseconds: microseconds, percent: percent, ratio: ratio, tokens: tokens, svg: svg,
          legend: legend, scale: scale,
          matrix: matrix, logTicks: logTicks, plainNumber: plainNumber, grid: grid,
          frame: frame, endLabels: endLabels, place: place};
})(d3);
