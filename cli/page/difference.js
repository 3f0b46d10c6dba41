// The plots of what `w4tune compare` says of two reports. ECMAScript 5, see marks.js.
var w4difference = (function (d3, w4, of) {
  "use strict";

  var kSigns = {FASTER: "\u25b2", SLOWER: "\u25bc", SAME: "=", UNCLEAR: "?"};

  function intervalText(interval) {
    return interval ? d3.format(".3f")(interval[0]) + "\u2013" + d3.format(".3f")(interval[1]) : "";
  }

  function verdictClass(row) {
    if (row.verdict !== "FASTER" && row.verdict !== "SLOWER") return row.verdict.toLowerCase();
    var kind = of.diverging(row.ratio);
    return kind === "level" ? (row.ratio > 1 ? "gain-1" : "loss-1") : kind;
  }

  function difference(doc, width) {
    var rows = doc.comparison.rows;
    if (!rows.length) return null;
    var byKey = {};
    doc.reports[0].rows.forEach(function (row) { byKey[row.problem] = row; });
    var problems = of.problemsOf(rows.map(function (row) { return byKey[row.problem]; }));
    var columns = of.tokensOf(rows);
    var at = {};
    rows.forEach(function (row) { at[row.problem + " " + row.m] = row; });
    var figure = of.start(
        "difference", "B against A",
        "A\u2019s time over B\u2019s: above 1, B is faster. \u25b2 faster and \u25bc slower beyond doubt, "
        + "= the same within the threshold, ? not to be told.", width);
    w4.matrix(figure, {
      rows: problems, columns: columns.map(w4.tokens), least: 42, most: 64, height: 32,
      axis: "tokens M", shortAxis: "M",
      key: w4.legend([{kind: "loss-2", label: "B slower"}, {kind: "same", label: "the same"},
                      {kind: "unclear", label: "unclear"}, {kind: "gain-2", label: "B faster"}],
                     0, 0, width),
      cell: function (i, j) {
        var row = at[problems[i].key + " " + columns[j]];
        if (!row) return null;
        return {kind: verdictClass(row), text: d3.format(".2f")(row.ratio) + " " + kSigns[row.verdict],
                lines: [problems[i].name + ", M = " + w4.tokens(row.m),
                        row.verdict + (row.reason ? ": " + row.reason : ""),
                        "ratio " + d3.format(".3f")(row.ratio) +
                        (row.interval ? ", 95 % " + intervalText(row.interval) : ""),
                        "A " + w4.microseconds(row.a_us) + ", B " + w4.microseconds(row.b_us)]};
      }
    });
    figure.table.head = ["problem", "M", "verdict", "A \u00b5s", "B \u00b5s", "ratio",
                         "95 % interval", "why", "kernel"];
    figure.table.rows = rows.map(function (row) {
      return [row.problem, w4.tokens(row.m), row.verdict, w4.number(row.a_us), w4.number(row.b_us),
              d3.format(".3f")(row.ratio), intervalText(row.interval), row.reason, row.change];
    });
    return figure;
  }

  function means(doc, width) {
    var groups = doc.comparison.geometric_means;
    var rows = groups.by_problem.concat(groups.by_tokens, groups.all ? [groups.all] : []);
    if (!rows.length) return null;
    var names = {};
    of.problemsOf(doc.reports[0].rows).forEach(function (each) { names[each.key] = each.name; });
    rows = rows.map(function (row) {
      return {name: names[row.name] || row.name, workloads: row.workloads, ratio: row.ratio,
              interval: row.interval};
    });
    var figure = of.start(
        "means", "Geometric means of the ratios",
        "By problem, by tokens and of all, with 95 % intervals; right of 1, B is faster.", width);
    var left = 16 + d3.max(rows, function (row) { return w4.width(row.name); });
    var ends = d3.merge(rows.map(function (row) { return (row.interval || []).concat(row.ratio, 1); }));
    var domain = [d3.min(ends) / 1.01, d3.max(ends) * 1.01];
    figure.height = rows.length * 24 + 56;
    var x = d3.scale.log().domain(domain).range([left + 6, width - 66]);
    var bottom = figure.height - 40;
    var ticks = d3.scale.linear().domain(domain).ticks(Math.max(2, (width - left) / 110));
    var parts = [];
    ticks.forEach(function (value) {
      parts.push(w4.element("line", {x1: x(value), x2: x(value), y1: 4, y2: bottom, "class": "grid"}));
      parts.push(w4.words(x(value), bottom + 16, String(Number(value.toPrecision(4))), "middle",
                          "tick"));
    });
    parts.push(w4.element("line", {x1: x(1), x2: x(1), y1: 4, y2: bottom, "class": "axis"}));
    parts.push(w4.words(width - 66, bottom + 32, "A\u2019s time over B\u2019s", "end", "title"));
    rows.forEach(function (row, i) {
      var y = 18 + i * 24;
      var ends = row.interval || [row.ratio, row.ratio];
      var kind = ends[0] > 1 ? "gain" : ends[1] < 1 ? "loss" : "none";
      parts.push(w4.words(left - 10, y + 4, row.name, "end", "tick"));
      parts.push(w4.element("g", {"class": "mark mean " + kind},
          w4.element("line", {x1: x(ends[0]), x2: x(ends[1]), y1: y, y2: y}) +
          w4.element("circle", {cx: x(row.ratio), cy: y, r: 4})));
      parts.push(w4.words(width - 58, y + 4, d3.format(".3f")(row.ratio), "start", "tick"));
      figure.marks.push({x: x(row.ratio), y: y, w: 14, h: 14, row: i, column: 0,
                         text: [row.name + ": " + d3.format(".3f")(row.ratio),
                                row.interval ? "95 % " + intervalText(row.interval) : "no interval",
                                row.workloads + " workloads"]});
    });
    figure.table.head = ["of", "workloads", "ratio", "95 % interval"];
    figure.table.rows = rows.map(function (row) {
      return [row.name, String(row.workloads), d3.format(".3f")(row.ratio),
              intervalText(row.interval)];
    });
    return w4.svg(figure, parts);
  }

  return {difference: difference, means: means};
})(d3, w4marks, w4rows);
