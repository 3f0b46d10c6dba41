// The figures of a report: from its data (cli/report_data.h) to SVG, marks and tables. What a
// figure is, and why this is ECMAScript 5: marks.js.
var w4plots = (function (d3, w4) {
  "use strict";

  var kFamilies = ["mma_pipe", "mma_tile", "mma_reg", "bulk_pipe", "wgmma", "gemv",
                   "dequant_cublas"];
  var kLetters = ["A", "B"];

  // In the order of their first appearance, as d3.set and d3.nest do not promise.
  function unique(values) {
    return values.filter(function (value, i) { return values.indexOf(value) === i; });
  }

  function groupsOf(values, key) {
    var groups = [];
    var byKey = {};
    values.forEach(function (value) {
      var name = "key " + key(value);
      if (!byKey[name]) groups.push(byKey[name] = {key: key(value), values: []});
      byKey[name].values.push(value);
    });
    return groups;
  }

  function problemsOf(rows) {
    var groups = unique(rows.map(function (row) { return row.group; }));
    var dtypes = unique(rows.map(function (row) { return row.dtype; }));
    return groupsOf(rows, function (row) { return row.problem; })
        .map(function (entry) {
          var row = entry.values[0];
          var rest = [];
          if (groups.length > 1) rest.push("g" + row.group);
          if (dtypes.length > 1) rest.push(row.dtype);
          var lines = [row.op, row.n + "\u00d7" + row.k].concat(rest);
          return {key: entry.key, lines: lines, name: lines.join(" "),
                  shortLines: [row.op, String(row.n), "\u00d7" + row.k].concat(rest)};
        });
  }

  function tokensOf(rows) {
    return unique(rows.map(function (row) { return row.m; })).sort(d3.ascending);
  }

  function familyClass(family) {
    var known = kFamilies.indexOf(family);
    return "family-" + (known < 0 ? "other" : known);
  }

  function familyLegend(families) {
    return families.map(function (family) {
      return {kind: familyClass(family), label: family};
    });
  }

  // The FP16 baseline of a row: the first, as everywhere in w4tune. null where none was measured.
  function fp16(row) { return row.baselines.length ? row.baselines[0] : null; }

  function speedupOf(row) { return fp16(row) ? fp16(row).us / row.us : null; }

  // "of report A" where there are two.
  function ofReport(doc, index) {
    return doc.reports.length > 1 ? " of report " + kLetters[index] : "";
  }

  function nameOf(doc, name, index) {
    return doc.reports.length > 1 ? name + "_" + kLetters[index].toLowerCase() : name;
  }

  function start(id, title, note, width) {
    return {id: id, title: title, note: note, label: title, width: width, height: 0, svg: "",
            marks: [], table: {head: [], rows: []}};
  }

  function cellsOf(doc, index, width, spec) {
    var rows = doc.reports[index].rows;
    var problems = problemsOf(rows);
    var columns = tokensOf(rows);
    var figure = start(nameOf(doc, spec.id, index), spec.title + ofReport(doc, index), spec.note,
                       width);
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

  // Steps of the diverging colours: where a ratio counts as level, then three more.
  var kSteps = [1.03, 1.25, 1.6, 2.2];

  function diverging(value) {
    var size = Math.max(value, 1 / value);
    var step = kSteps.filter(function (bound) { return size > bound; }).length;
    return step === 0 ? "level" : (value > 1 ? "gain-" : "loss-") + step;
  }

  function divergingScale(width) {
    var up = kSteps.map(function (ignored, i) { return i + 1; });
    var bounds = kSteps.map(d3.format(".2f"));
    return w4.scale(
        up.slice().reverse().map(function (i) { return "loss-" + i; }).concat(
            "level", up.map(function (i) { return "gain-" + i; })),
        kSteps.slice().reverse().map(function (bound) { return d3.format(".2f")(1 / bound); })
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
    var notes = unique(doc.reports[index].rows.map(function (row) { return row.note; }))
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
        var value = speedupOf(row);
        if (value === null) return null;
        return {
          kind: diverging(value),
          text: d3.format(value >= 9.95 ? ".0f" : ".2f")(value),
          lines: [name + ", M = " + w4.tokens(row.m), w4.ratio(value) + " over FP16",
                  "w4tune " + timing(row), "FP16 " + w4.microseconds(fp16(row).us)]
        };
      }
    });
    if (!figure) return null;
    figure.table.head = ["problem", "M", "w4tune \u00b5s", "FP16 \u00b5s", "speed-up"];
    figure.table.rows = doc.reports[index].rows.filter(fp16).map(function (row) {
      return [row.problem, w4.tokens(row.m), w4.number(row.us), w4.number(fp16(row).us),
              d3.format(".2f")(speedupOf(row))];
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
    var present = kFamilies.filter(function (family) {
      return rows.some(function (row) { return row.family === family; });
    }).concat(unique(rows.map(function (row) { return row.family; })).filter(function (family) {
      return kFamilies.indexOf(family) < 0;
    }));
    var figure = cellsOf(doc, index, width, {
      id: "families",
      title: "What serves which M",
      note: "The kernel family (or dequant_cublas: dequantise, then cuBLASLt) that won at each M. "
          + "It also serves the smaller M down to the one tuned before.",
      least: 50,
      height: 32,
      runs: true,
      key: function (width) { return w4.legend(familyLegend(present), 0, 0, width); },
      cell: function (row, name) {
        var cut = row.family.indexOf("_");
        return {
          kind: familyClass(row.family),
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
      line(two ? kLetters[index] : "w4tune", index ? "other" : "ours", rows,
           function (row) { return row.us; },
           function (row) { return timing(row) + (row.mhz ? ", " + w4.number(row.mhz) + " MHz" : ""); });
      if (index) return;
      unique(d3.merge(rows.map(function (row) {
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
    return ticks.length > 1 ? ticks : unique(domain);
  }

  function time(doc, width) {
    var figure = start("time", "Time against M",
                       "Microseconds a launch, both axes logarithmic; lower is better.", width);
    if (doc.reports.length > 1) {
      figure.note += " FP16, the read-only line and the floor are report A\u2019s.";
    }
    var all = d3.merge(doc.reports.map(function (report) { return report.rows; }));
    var problems = problemsOf(all);
    var panels = problems.map(function (problem) { return linesOf(doc, problem); });
    var values = d3.merge(d3.merge(panels.map(function (lines) {
      return lines.map(function (line) { return line.points.map(function (p) { return p.us; }); });
    })));
    var ms = tokensOf(all);
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
    var names = unique(d3.merge(panels.map(function (lines) {
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

  // --- the search: trials of one workload ---

  // Of a set of trials: {order, us, family, outcome, values}, us null where it failed.
  function trialsOf(set) {
    return set.trials.map(function (row, i) {
      return {order: i + 1, family: set.families[row[0]].name, us: row[1], outcome: row[2],
              names: set.families[row[0]].parameters, values: row.slice(3)};
    });
  }

  function bestSoFar(trials) {
    var steps = [];
    trials.forEach(function (trial) {
      if (trial.us === null) return;
      if (!steps.length || trial.us < steps[steps.length - 1].us) steps.push(trial);
    });
    return steps;
  }

  function configOf(trial) {
    return trial.family + " " + trial.names.map(function (name, i) {
      return name + "=" + trial.values[i];
    }).join(" ");
  }

  function progress(doc, width, choice) {
    var set = doc.reports[0].searches[choice.search];
    var trials = trialsOf(set);
    var good = trials.filter(function (trial) { return trial.us !== null; });
    var steps = bestSoFar(trials);
    var best = steps[steps.length - 1];
    var figure = start("progress", "Progress of the search",
                       set.workload + ": every trial in the order it was measured, and the best so "
                       + "far. Crosses failed. " + d3.format(",")(trials.length) + " trials, "
                       + d3.format(",")(trials.length - good.length) + " failed; the best at trial "
                       + d3.format(",")(best.order) + ".", width);
    var row = doc.reports[0].rows.filter(function (each) {
      return each.problem === set.problem && each.m === set.m;
    })[0];
    var times = good.map(function (trial) { return trial.us; }).sort(d3.ascending);
    var references = [];
    if (row && row.floor_us) references.push({us: row.floor_us, text: "floor", kind: "floor"});
    if (row && fp16(row)) references.push({us: fp16(row).us, text: "FP16", kind: "fp16"});
    var lo = Math.min(best.us, d3.min(references, function (r) { return r.us; }) || best.us) / 1.1;
    var hi = times[times.length - 1] * 1.1;
    hi = Math.max(hi, d3.max(references, function (r) { return r.us * 1.1; }) || hi);
    var families = groupsOf(trials, function (trial) { return trial.family; })
        .map(function (group) { return group.key; });
    var key = w4.legend(familyLegend(families), 0, 0, width);
    var top = key.height + 22;
    figure.height = top + 300;
    var x0 = 48;
    var x1 = width - 76;
    var x = d3.scale.linear().domain([1, Math.max(2, trials.length)]).range([x0 + 6, x1 - 6]);
    var y = d3.scale.log().domain([lo, hi]).range([figure.height - 60, top]);
    var parts = key.parts.concat(w4.frame({
      x: x, y: y, x0: x0, x1: x1, top: top, xTicks: x.ticks(Math.max(2, width / 110)).filter(
          function (v) { return v === Math.round(v) && v > 0; }),
      xText: d3.format(",d"), yTicks: w4.logTicks([lo, hi], 9), yText: w4.plainNumber,
      xTitle: "trial", yTitle: "\u00b5s"
    }));
    trials.forEach(function (trial) {
      var px = x(trial.order);
      var failed = trial.us === null;
      var py = failed ? figure.height - 54 : y(trial.us);
      parts.push(failed
          ? w4.element("path", {d: "M" + w4.place(px - 2) + "," + w4.place(py - 2) + "l4,4m0,-4l-4,4",
                                "class": "mark failed"})
          : w4.element("circle", {cx: px, cy: py, r: 2.4,
                                  "class": "mark trial " + familyClass(trial.family)}));
      figure.marks.push({x: px, y: py, w: 6, h: 6, row: 0, column: trial.order,
                         text: ["trial " + d3.format(",")(trial.order) + ": " +
                                (failed ? trial.outcome : w4.microseconds(trial.us)),
                                configOf(trial)]});
    });
    var path = "M" + w4.place(x(steps[0].order)) + "," + w4.place(y(steps[0].us));
    steps.slice(1).forEach(function (step) {
      path += "H" + w4.place(x(step.order)) + "V" + w4.place(y(step.us));
    });
    parts.push(w4.element("path", {d: path + "H" + w4.place(x(trials.length)),
                                   "class": "line best"}));
    references.forEach(function (each) {
      parts.push(w4.element("line", {x1: x0, x2: x1, y1: y(each.us), y2: y(each.us),
                                     "class": "line " + each.kind}));
    });
    parts = parts.concat(w4.endLabels(references.map(function (each) {
      return {y: y(each.us), text: each.text, kind: each.kind};
    }).concat({y: y(best.us), text: "best", kind: "best"}), x1 + 5, top, figure.height - 60));
    figure.table.head = ["trial", "\u00b5s, best so far", "configuration"];
    figure.table.rows = steps.map(function (step) {
      return [d3.format(",")(step.order), w4.number(step.us), configOf(step)];
    });
    return w4.svg(figure, parts);
  }

  // Families that have trials which worked, by how many.
  function searchedFamilies(set) {
    var counts = {};
    trialsOf(set).forEach(function (trial) {
      if (trial.us !== null) counts[trial.family] = (counts[trial.family] || 0) + 1;
    });
    return Object.keys(counts).sort(function (a, b) {
      return counts[b] - counts[a] || d3.ascending(a, b);
    });
  }

  function landscape(doc, width, choice) {
    var set = doc.reports[0].searches[choice.search];
    var family = choice.family || bestSoFar(trialsOf(set)).pop().family;
    var trials = trialsOf(set).filter(function (trial) {
      return trial.us !== null && trial.family === family;
    });
    var figure = start("landscape", "Landscape of " + family,
                       set.workload + ": for each value of each parameter the fastest trial (dot), "
                       + "the median (tick) and what lies between. "
                       + d3.format(",")(trials.length) + " trials.", width);
    var panels = trials[0].names.map(function (name, i) {
      var entries = groupsOf(trials, function (trial) { return trial.values[i]; })
          .map(function (entry) {
            var times = entry.values.map(function (trial) { return trial.us; }).sort(d3.ascending);
            return {value: entry.key, count: times.length, best: times[0],
                    median: d3.quantile(times, 0.5)};
          }).sort(function (a, b) { return a.value - b.value; });
      return {name: name, entries: entries};
    }).filter(function (panel) { return panel.entries.length > 1; });
    figure.table.head = ["parameter", "value", "trials", "best \u00b5s", "median \u00b5s"];
    panels.forEach(function (panel) {
      panel.entries.forEach(function (entry) {
        figure.table.rows.push([panel.name, String(entry.value), d3.format(",")(entry.count),
                                w4.number(entry.best), w4.number(entry.median)]);
      });
    });
    if (!panels.length) return null;
    var entries = d3.merge(panels.map(function (panel) { return panel.entries; }));
    var domain = [d3.min(entries, function (e) { return e.best; }) / 1.06,
                  d3.max(entries, function (e) { return e.median; }) * 1.06];
    var height = 190;
    var places = w4.grid(panels.length, width, 200, height);
    figure.height = places.height;
    var parts = [];
    panels.forEach(function (panel, i) {
      var at = places.at(i);
      var x0 = at.x + 46;
      var x1 = at.x + places.width - 14;
      var x = d3.scale.ordinal().domain(panel.entries.map(function (e) { return e.value; }))
          .rangePoints([x0, x1], 1);
      var y = d3.scale.log().domain(domain).range([at.y + height - 34, at.y + 40]);
      var every = Math.ceil(panel.entries.length * 26 / (x1 - x0));
      parts = parts.concat(w4.frame({
        x: x, y: y, x0: x0, x1: x1, top: at.y + 40, heading: panel.name,
        xTicks: panel.entries.map(function (e) { return e.value; })
            .filter(function (value, j) { return j % every === 0; }),
        xText: String, yTicks: w4.logTicks(domain, 6), yText: w4.plainNumber, yTitle: "\u00b5s"
      }));
      panel.entries.forEach(function (entry, j) {
        var px = x(entry.value);
        parts.push(w4.element("g", {"class": "mark spread " + familyClass(family)},
            w4.element("line", {x1: px, x2: px, y1: y(entry.best), y2: y(entry.median)}) +
            w4.element("line", {x1: px - 5, x2: px + 5, y1: y(entry.median), y2: y(entry.median)}) +
            w4.element("circle", {cx: px, cy: y(entry.best), r: 3.5})));
        figure.marks.push({x: px, y: y(entry.best), w: 12, h: 12, row: i, column: j,
                           text: [panel.name + " = " + entry.value,
                                  "best " + w4.microseconds(entry.best) + ", median " +
                                  w4.microseconds(entry.median),
                                  d3.format(",")(entry.count) + " trials"]});
      });
    });
    return w4.svg(figure, parts);
  }

  // --- two reports ---

  var kSigns = {FASTER: "\u25b2", SLOWER: "\u25bc", SAME: "=", UNCLEAR: "?"};

  function intervalText(interval) {
    return interval ? d3.format(".3f")(interval[0]) + "\u2013" + d3.format(".3f")(interval[1]) : "";
  }

  function verdictClass(row) {
    if (row.verdict !== "FASTER" && row.verdict !== "SLOWER") return row.verdict.toLowerCase();
    var kind = diverging(row.ratio);
    return kind === "level" ? (row.ratio > 1 ? "gain-1" : "loss-1") : kind;
  }

  function difference(doc, width) {
    var rows = doc.comparison.rows;
    if (!rows.length) return null;
    var byKey = {};
    doc.reports[0].rows.forEach(function (row) { byKey[row.problem] = row; });
    var problems = problemsOf(rows.map(function (row) { return byKey[row.problem]; }));
    var columns = tokensOf(rows);
    var at = {};
    rows.forEach(function (row) { at[row.problem + " " + row.m] = row; });
    var figure = start("difference", "B against A",
                       "A\u2019s time over B\u2019s: above 1, B is faster. \u25b2 faster and \u25bc slower "
                       + "beyond doubt, = the same within the threshold, ? not to be told.", width);
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
    problemsOf(doc.reports[0].rows).forEach(function (each) { names[each.key] = each.name; });
    rows = rows.map(function (row) {
      return {name: names[row.name] || row.name, workloads: row.workloads, ratio: row.ratio,
              interval: row.interval};
    });
    var figure = start("means", "Geometric means of the ratios",
                       "By problem, by tokens and of all, with 95 % intervals; right of 1, B is "
                       + "faster.", width);
    var left = 16 + d3.max(rows, function (row) { return w4.width(row.name); });
    var ends = d3.merge(rows.map(function (row) { return (row.interval || []).concat(row.ratio, 1); }));
    var domain = [d3.min(ends) / 1.01, d3.max(ends) * 1.01];
    figure.height = rows.length * 24 + 56;
    var x = d3.scale.log().domain(domain).range([left + 6, width - 66]);
    var bottom = figure.height - 40;
    var ticks = x.ticks().length ? d3.scale.linear().domain(domain)
        .ticks(Math.max(2, (width - left) / 110)) : [];
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

  // --- all of them ---

  // What can be drawn, in the order of the page: {id, draw(width, choice)}. `draw` gives null where
  // the report has nothing to show so.
  function list(doc) {
    var out = [];
    function add(id, draw) { out.push({id: id, draw: draw}); }
    function each(id, draw) {
      doc.reports.forEach(function (report, index) {
        add(nameOf(doc, id, index), function (width) { return draw(doc, index, width); });
      });
    }
    if (doc.comparison) {
      add("difference", function (width) { return difference(doc, width); });
      add("means", function (width) { return means(doc, width); });
    }
    each("speedup", speedup);
    add("time", function (width) { return time(doc, width); });
    each("floor", floorShare);
    each("families", families);
    if (doc.reports[0].searches.length) {
      add("progress", function (width, choice) { return progress(doc, width, choice); });
      add("landscape", function (width, choice) { return landscape(doc, width, choice); });
    }
    return out;
  }

  // The search with the most trials, which is shown first.
  function firstChoice(doc) {
    var most = 0;
    doc.reports[0].searches.forEach(function (set, i) {
      if (set.trials.length > doc.reports[0].searches[most].trials.length) most = i;
    });
    return {search: most, family: ""};
  }

  // For the tool: every figure at one width, as JSON [{id, svg}].
  function files(text, width) {
    var doc = JSON.parse(text);
    var figures = list(doc).map(function (entry) { return entry.draw(width, firstChoice(doc)); })
        .filter(function (figure) { return figure !== null; });
    return JSON.stringify(figures.map(function (figure) {
      return {id: figure.id, svg: figure.svg};
    }));
  }

  return {list: list, files: files, firstChoice: firstChoice, searchedFamilies: searchedFamilies,
          speedupOf: speedupOf, letters: kLetters, bestSoFar: bestSoFar, trialsOf: trialsOf};
})(d3, w4marks);
