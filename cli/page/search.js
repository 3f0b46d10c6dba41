// The plots of a search: its progress, and the landscape of one family. ECMAScript 5, see marks.js.
var w4search = (function (d3, w4, of) {
  "use strict";

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
    var figure = of.start("progress", "Progress of the search",
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
    if (row && of.fp16(row)) references.push({us: of.fp16(row).us, text: "FP16", kind: "fp16"});
    var lo = Math.min(best.us, d3.min(references, function (r) { return r.us; }) || best.us) / 1.1;
    var hi = times[times.length - 1] * 1.1;
    hi = Math.max(hi, d3.max(references, function (r) { return r.us * 1.1; }) || hi);
    var families = of.groupsOf(trials, function (trial) { return trial.family; })
        .map(function (group) { return group.key; });
    var key = w4.legend(of.familyLegend(families), 0, 0, width);
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
                                  "class": "mark trial " + of.familyClass(trial.family)}));
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
    var good = trialsOf(set).filter(function (trial) { return trial.us !== null; });
    return of.groupsOf(good, function (trial) { return trial.family; }).sort(function (a, b) {
      return b.values.length - a.values.length || d3.ascending(a.key, b.key);
    }).map(function (group) { return group.key; });
  }

  function landscape(doc, width, choice) {
    var set = doc.reports[0].searches[choice.search];
    var family = choice.family || bestSoFar(trialsOf(set)).pop().family;
    var trials = trialsOf(set).filter(function (trial) {
      return trial.us !== null && trial.family === family;
    });
    var figure = of.start("landscape", "Landscape of " + family,
                       set.workload + ": for each value of each parameter the fastest trial (dot), "
                       + "the median (tick) and what lies between. "
                       + d3.format(",")(trials.length) + " trials.", width);
    var panels = trials[0].names.map(function (name, i) {
      var entries = of.groupsOf(trials, function (trial) { return trial.values[i]; })
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
    var places = w4.grid(panels.length, width, 165, height);
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
        parts.push(w4.element("g", {"class": "mark spread " + of.familyClass(family)},
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

  return {progress: progress, landscape: landscape, families: searchedFamilies,
          bestFamily: function (set) { return bestSoFar(trialsOf(set)).pop().family; }};
})(d3, w4marks, w4rows);
