// The plots of one report, and of two beside each other: speed-up, time, share of the floor, families.
// What a figure is, and why this is ECMAScript 5: marks.js.
var w4plots = (function (d3, w4, of) {
  "use strict";

  // A matrix of problems and tokens; null where no row has a value.
  function cellsOf(doc, index, width, spec) {
    var rows = doc.reports[index].rows;
    var problems = of.problemsOf(rows);
    var columns = of.tokensOf(rows);
    var figure = of.start(of.nameOf(doc, spec.id, index), spec.title + of.ofReport(doc, index),
                          spec.note, width);
    var at = {};
    rows.forEach(function (row) { at[row.problem + " " + row.m] = row; });
    var shown = rows.filter(function (row) { return spec.cell(row) !== null; });
    if (!shown.length) return null;
    w4.matrix(figure, {
      rows: problems,
      columns: columns.map(w4.tokens),
      least: spec.least,
      most: 64,
      height: spec.height,
      axis: "tokens M",
      shortAxis: "M",
      key: spec.key(width),
      runs: spec.runs,
      cell: function (i, j) {
        var row = at[problems[i].key + " " + columns[j]];
        return row ? spec.cell(row, problems[i].name) : null;
      }
    });
    return figure;
  }

  function divergingScale(width) {
    var up = of.steps.map(function (ignored, i) { return i + 1; });
    var bounds = of.steps.map(d3.format(".2f"));
    return w4.scale(
        up.slice().reverse().map(function (i) { return "loss-" + i; }).concat(
            "level", up.map(function (i) { return "gain-" + i; })),
        of.steps.slice().reverse().map(function (bound) { return d3.format(".2f")(1 / bound); })
            .concat(bounds),
        ["FP16 faster", "w4tune faster"], width);
  }

  function timing(row) {
    var out = w4.microseconds(row.us);
    if (row.samples > 1) out += " (middle half " + w4.number(row.q1) + "\u2013" +
                                w4.number(row.q3) + ", " + row.samples + " samples)";
    return row.provenance === "predicted" ? out + ", predicted" : out;
  }

  function speedup(doc, index, width) {
    var notes = of.unique(doc.reports[index].rows.map(function (row) { return row.note; }))
        .filter(function (note) { return note !== ""; });
    var figure = cellsOf(doc, index, width, {
      id: "speedup",
      title: "Speed-up over FP16",
      note: "Time of cuBLASLt FP16 over ours: above 1 we are faster." + notes.map(function (note) {
        return " The baseline of geglu is one " + note + ".";
      }).join(""),
      least: 36,
      key: divergingScale,
      cell: function (row, name) {
        var value = of.speedupOf(row);
        if (value === null) return null;
        return {
          kind: of.diverging(value),
          text: d3.format(value >= 9.95 ? ".0f" : ".2f")(value),
          lines: [name + ", M = " + w4.tokens(row.m), w4.ratio(value) + " over FP16",
                  "w4tune " + timing(row), "FP16 " + w4.microseconds(of.fp16(row).us)]
        };
      }
    });
    if (!figure) return null;
    figure.table.head = ["problem", "M", "w4tune \u00b5s", "FP16 \u00b5s", "speed-up"];
    figure.table.rows = doc.reports[index].rows.filter(of.fp16).map(function (row) {
      return [row.problem, w4.tokens(row.m), w4.number(row.us), w4.number(of.fp16(row).us),
              d3.format(".2f")(of.speedupOf(row))];
    });
    return figure;
  }

  function floorShare(doc, index, width) {
    var figure = cellsOf(doc, index, width, {
      id: "floor",
      title: "Share of the floor",
      note: "The least time that bytes and operations allow, over ours. The floor is the larger of "
          + "bytes moved once over the copy bandwidth and operations over the matrix rate.",
      least: 36,
      key: function (width) {
        return w4.scale([0, 1, 2, 3, 4].map(function (i) { return "share-" + i; }),
                        ["20 %", "40 %", "60 %", "80 %"], null, width);
      },
      cell: function (row, name) {
        if (!row.floor_us) return null;
        var share = row.floor_us / row.us;
        return {
          kind: "share-" + Math.max(0, Math.min(4, Math.floor(share * 5))),
          text: d3.format(".0f")(100 * share),
          lines: [name + ", M = " + w4.tokens(row.m), w4.percent(share) + " of the floor",
                  "w4tune " + timing(row), "floor " + w4.microseconds(row.floor_us)]
        };
      }
    });
    if (!figure) return null;
    figure.table.head = ["problem", "M", "w4tune \u00b5s", "floor \u00b5s", "share %"];
    figure.table.rows = doc.reports[index].rows.filter(function (row) { return row.floor_us; })
        .map(function (row) {
          return [row.problem, w4.tokens(row.m), w4.number(row.us), w4.number(row.floor_us),
                  d3.format(".0f")(100 * row.floor_us / row.us)];
        });
    return figure;
  }

  function served(row) {
    return row.m_hi === null ? w4.tokens(row.m_lo) + " and more"
                             : w4.tokens(row.m_lo) + "\u2013" + w4.tokens(row.m_hi);
  }

  function families(doc, index, width) {
    var rows = doc.reports[index].rows;
    var present = of.families.filter(function (family) {
      return rows.some(function (row) { return row.family === family; });
    }).concat(of.unique(rows.map(function (row) { return row.family; })).filter(function (family) {
      return of.families.indexOf(family) < 0;
    }));
    var figure = cellsOf(doc, index, width, {
      id: "families",
      title: "What serves which M",
      note: "The kernel family (or dequant_cublas: dequantise, then cuBLASLt) that won at each M. "
          + "It also serves the smaller M down to the one tuned before.",
      least: 50,
      height: 32,
      runs: true,
      key: function (width) { return w4.legend(of.familyLegend(present), 0, 0, width); },
      cell: function (row, name) {
        var cut = row.family.indexOf("_");
        return {
          kind: of.familyClass(row.family),
          text: row.family,
          broken: cut < 0 ? null : [row.family.slice(0, cut + 1), row.family.slice(cut + 1)],
          lines: [name + ", M = " + w4.tokens(row.m), row.family + " serves M " + served(row),
                  row.config, timing(row)]
        };
      }
    });
    figure.table.head = ["problem", "serves M", "tuned at", "family", "configuration"];
    figure.table.rows = rows.map(function (row) {
      return [row.problem, served(row), w4.tokens(row.m), row.family, row.config];
    });
    return figure;
  }

  // The lines of a panel of times: {name, kind, points [{m, us, row, words}]}.
  function linesOf(doc, problem) {
    var lines = [];
    function line(name, kind, rows, value, words) {
      var points = rows.filter(function (row) { return value(row) > 0; }).map(function (row) {
        return {m: row.m, us: value(row), words: words(row)};
      });
      if (points.length) lines.push({name: name, kind: kind, points: points});
    }
    doc.reports.forEach(function (report, index) {
      var rows = report.rows.filter(function (row) { return row.problem === problem.key; });
      var two = doc.reports.length > 1;
      line(two ? of.letters[index] : "w4tune", index ? "other" : "ours", rows,
           function (row) { return row.us; },
           function (row) { return timing(row) + (row.mhz ? ", " + w4.number(row.mhz) + " MHz" : ""); });
      if (index) return;
      of.unique(d3.merge(rows.map(function (row) {
        return row.baselines.map(function (each) { return each.name; });
      }))).forEach(function (name, i) {
        function of(row) {
          return row.baselines.filter(function (each) { return each.name === name; })[0];
        }
        line(name === "cublaslt_f16" ? "FP16" : name, i ? "peer" : "fp16", rows,
             function (row) { return of(row) ? of(row).us : 0; },
             function (row) { return w4.microseconds(of(row).us) + ", " + name + " " + of(row).detail; });
      });
      if (!two) {
        line("chained", "chained", rows, function (row) { return row.chained_us; },
             function (row) { return w4.microseconds(row.chained_us) + ", as a dependent launch"; });
      }
      line("read only", "read", rows, function (row) { return row.read_us; },
           function (row) { return w4.microseconds(row.read_us) + ", a kernel that only reads the weights"; });
      line("floor", "floor", rows, function (row) { return row.floor_us; },
           function (row) { return w4.microseconds(row.floor_us); });
    });
    return lines;
  }

  function powersOfFour(domain) {
    var ticks = [];
    for (var m = 1; m <= domain[1] * 1.001; m *= 4) if (m >= domain[0] * 0.999) ticks.push(m);
    return ticks.length > 1 ? ticks : of.unique(domain);
  }

  function time(doc, width) {
    var figure = of.start("time", "Time against M",
                       "Microseconds a launch, both axes logarithmic; lower is better.", width);
    if (doc.reports.length > 1) {
      figure.note += " FP16, the read-only line and the floor are report A\u2019s.";
    }
    var all = d3.merge(doc.reports.map(function (report) { return report.rows; }));
    var problems = of.problemsOf(all);
    var panels = problems.map(function (problem) { return linesOf(doc, problem); });
    var values = d3.merge(d3.merge(panels.map(function (lines) {
      return lines.map(function (line) { return line.points.map(function (p) { return p.us; }); });
    })));
    var ms = of.tokensOf(all);
    var xDomain = ms.length > 1 ? [ms[0], ms[ms.length - 1]] : [ms[0] / 2, ms[0] * 2];
    var yDomain = [d3.min(values) / 1.15, d3.max(values) * 1.15];
    var height = 262;
    var places = w4.grid(problems.length, width, 320, height);
    figure.height = places.height;
    var parts = [];
    var symbols = {fp16: "square", floor: "dot", read: "dot"};
    problems.forEach(function (problem, i) {
      var at = places.at(i);
      var x0 = at.x + 44;
      var x1 = at.x + places.width - 76;
      var x = d3.scale.log().domain(xDomain).range([x0 + 6, x1 - 4]);
      var y = d3.scale.log().domain(yDomain).range([at.y + height - 46, at.y + 40]);
      parts = parts.concat(w4.frame({
        x: x, y: y, x0: x0, x1: x1, top: at.y + 40, heading: problem.name,
        xTicks: ms.length > 1 ? powersOfFour(xDomain) : ms, xText: w4.tokens,
        yTicks: w4.logTicks(yDomain, 9), yText: w4.plainNumber, xTitle: "tokens M",
        yTitle: "\u00b5s"
      }));
      var draw = d3.svg.line().x(function (p) { return w4.place(x(p.m)); })
          .y(function (p) { return w4.place(y(p.us)); });
      var labels = [];
      panels[i].forEach(function (line, row) {
        parts.push(w4.element("path", {d: draw(line.points), "class": "line " + line.kind}));
        var last = line.points[line.points.length - 1];
        labels.push({y: y(last.us), text: line.name, kind: line.kind});
        line.points.forEach(function (p) {
          var size = symbols[line.kind] === "dot" ? 1.6 : 3;
          var kind = "mark point " + line.kind;
          parts.push(symbols[line.kind] === "square"
              ? w4.element("rect", {x: x(p.m) - 2.5, y: y(p.us) - 2.5, width: 5, height: 5,
                                    "class": kind})
              : w4.element("circle", {cx: x(p.m), cy: y(p.us), r: size, "class": kind}));
          figure.marks.push({x: x(p.m), y: y(p.us), w: 8, h: 8, row: i * 10 + row,
                             column: ms.indexOf(p.m),
                             text: [problem.name + ", M = " + w4.tokens(p.m),
                                    line.name + " " + p.words]});
        });
      });
      parts = parts.concat(w4.endLabels(labels, x1 + 4, at.y + 46, at.y + height - 46));
    });
    timeTable(figure, problems, panels, ms);
    return w4.svg(figure, parts);
  }

  function timeTable(figure, problems, panels, ms) {
    var names = of.unique(d3.merge(panels.map(function (lines) {
      return lines.map(function (line) { return line.name; });
    })));
    figure.table.head = ["problem", "M"].concat(names.map(function (n) { return n + " \u00b5s"; }));
    problems.forEach(function (problem, i) {
      ms.forEach(function (m) {
        var cells = names.map(function (name) {
          var found = "";
          panels[i].forEach(function (line) {
            if (line.name !== name) return;
            line.points.forEach(function (p) { if (p.m === m) found = w4.number(p.us); });
          });
          return found;
        });
        if (cells.some(function (text) { return text !== ""; })) {
          figure.table.rows.push([problem.key, w4.tokens(m)].concat(cells));
        }
      });
    });
  }

  return {speedup: speedup, time: time, floorShare: floorShare, families: families};
})(d3, w4marks, w4rows);
