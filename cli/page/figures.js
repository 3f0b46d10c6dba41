// Every figure that a report can have. ECMAScript 5, see marks.js.
var w4figures = (function (of) {
  "use strict";

  // What can be drawn, in the order of the page: {id, draw(width, choice)}. `draw` gives null where
  // the report has nothing to show so.
  function list(doc) {
    var out = [];
    function add(id, draw) { out.push({id: id, draw: draw}); }
    function each(id, draw) {
      doc.reports.forEach(function (report, index) {
        add(of.nameOf(doc, id, index), function (width) { return draw(doc, index, width); });
      });
    }
    if (doc.comparison) {
      add("difference", function (width) { return w4difference.difference(doc, width); });
      add("means", function (width) { return w4difference.means(doc, width); });
    }
    each("speedup", w4plots.speedup);
    add("time", function (width) { return w4plots.time(doc, width); });
    each("floor", w4plots.floorShare);
    each("families", w4plots.families);
    if (doc.reports[0].searches.length) {
      add("progress", function (width, choice) { return w4search.progress(doc, width, choice); });
      add("landscape", function (width, choice) { return w4search.landscape(doc, width, choice); });
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

  return {list: list, files: files, firstChoice: firstChoice};
})(w4rows);
