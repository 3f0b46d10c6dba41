// What plots and page know of a report's rows (cli/report_data.h): problems, tokens, families, ratios.
// ECMAScript 5, see marks.js.
var w4rows = (function (d3) {
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

  // [{key, name, lines, shortLines, rows}]: with group and type where they differ among the rows.
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

  // A figure without its plot yet (marks.js).
  function start(id, title, note, width) {
    return {id: id, title: title, note: note, label: title, width: width, height: 0, svg: "",
            marks: [], table: {head: [], rows: []}};
  }

  // Steps of the diverging colours: where a ratio counts as level, then three more.
  var kSteps = [1.03, 1.25, 1.6, 2.2];

  function diverging(value) {
    var size = Math.max(value, 1 / value);
    var step = kSteps.filter(function (bound) { return size > bound; }).length;
    return step === 0 ? "level" : (value > 1 ? "gain-" : "loss-") + step;
  }

  return {families: kFamilies, letters: kLetters, steps: kSteps, unique: unique, groupsOf: groupsOf,
          problemsOf: problemsOf, tokensOf: tokensOf, familyClass: familyClass,
          familyLegend: familyLegend, fp16: fp16, speedupOf: speedupOf, ofReport: ofReport,
          nameOf: nameOf, start: start, diverging: diverging};
})(d3);
