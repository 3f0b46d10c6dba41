// Builds the page: the head from the report's environment, and for each figure its plot, its table,
// and what a pointer or the arrow keys say of a mark. Text reaches the document as text, never as
// markup, except for the SVG of the plots, which marks.js escapes.
(function () {
  "use strict";

  const doc = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page");
  const choice = w4figures.firstChoice(doc);
  const kMostRows = 500;  // of a table

  // make("p", {class: "note"}, "text", child, ...)
  function make(name, attributes, ...content) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...content);
    return node;
  }

  // What is wider or longer than its place, and can be scrolled by keys.
  function scrolling(name, content, kind) {
    return make("div", {class: `scroll ${kind}`, tabindex: "0", role: "region", "aria-label": name}, content);
  }

  // --- the head ---

  function geometricMean(values) {
    return Math.exp(d3.mean(values, Math.log));
  }

  function fact(name, value, detail) {
    return make("div", {}, make("dt", {}, name), make("dd", {}, value, make("small", {}, detail)));
  }

  function facts(report) {
    const list = make("dl", {class: "facts"});
    const ratios = report.rows.map(w4rows.speedupOf).filter((value) => value !== null);
    if (ratios.length) {
      const slower = ratios.filter((value) => value < 1).length;
      list.append(
          fact("Speed-up over FP16", w4marks.ratio(geometricMean(ratios)),
               `geometric mean of ${ratios.length}, ${d3.min(ratios).toFixed(2)}–${d3.max(ratios).toFixed(2)}`),
          fact("FP16 is faster in", `${slower} of ${ratios.length}`, "workloads"));
    }
    const chained = report.rows.filter((row) => row.chained_us && row.baselines.length)
        .map((row) => row.baselines[0].us / row.chained_us);
    if (chained.length) {
      list.append(fact("As dependent launches", w4marks.ratio(geometricMean(chained)),
                       `over FP16, ${d3.min(chained).toFixed(2)}–${d3.max(chained).toFixed(2)}`));
    }
    const shares = report.rows.filter((row) => row.floor_us).map((row) => row.floor_us / row.us);
    if (shares.length) {
      list.append(fact("Share of the floor", w4marks.percent(d3.median(shares)),
                       `median, ${w4marks.percent(d3.min(shares))} to ${w4marks.percent(d3.max(shares))}`));
    }
    const clocks = report.rows.map((row) => row.mhz).filter((mhz) => mhz);
    if (clocks.length) {
      list.append(fact("SM clock", `${d3.format(",.0f")(d3.median(clocks))} MHz`,
                       `median, ${d3.format(",.0f")(d3.min(clocks))} to ${d3.format(",.0f")(d3.max(clocks))}`));
    }
    const problems = new Set(report.rows.map((row) => row.problem)).size;
    list.append(fact("Workloads", d3.format(",")(report.rows.length),
                     `${problems} problem${problems === 1 ? "" : "s"}`));
    return list;
  }

  function verdicts() {
    const counts = doc.comparison.counts;
    const list = make("dl", {class: "facts"});
    const all = doc.comparison.geometric_means.all;
    if (all) {
      list.append(fact("B over A", w4marks.ratio(all.ratio), all.interval
          ? `geometric mean, 95 % ${all.interval.map((end) => end.toFixed(3)).join("–")}`
          : "geometric mean"));
    }
    for (const [key, words] of [["FASTER", "B is faster in"], ["SLOWER", "B is slower in"],
                                ["SAME", "The same in"], ["UNCLEAR", "Unclear in"]]) {
      list.append(fact(words, d3.format(",")(counts[key]), `of ${doc.comparison.rows.length} workloads`));
    }
    list.append(fact("In one alone", `${doc.comparison.missing.length} / ${doc.comparison.added.length}`,
                     "workloads of A / of B"));
    return list;
  }

  const kNames = {
    gpu: "GPU", sm: "compute capability", sm_count: "SMs", l2_bytes: "L2", driver: "driver",
    cuda: "CUDA", nvrtc: "NVRTC", w4tune: "w4tune", commit: "commit", source_hash: "sources",
    protocol: "protocol", protocol_hash: "protocol hash", copy_gbps: "copy bandwidth",
    mma_tflops: "matrix rate", mma_source: "matrix rate by", mma_sync_tflops: "by mma.sync alone",
    mma_denormals: "FP16 denormals in mma.sync", date: "date"
  };
  const kForms = {
    sm: (text) => `${text.slice(0, -1)}.${text.slice(-1)}`,
    l2_bytes: (text) => `${d3.format(",.0f")(text / 1048576)} MiB`,
    copy_gbps: (text) => `${d3.format(",.0f")(text)} GB/s`,
    mma_tflops: (text) => `${d3.format(",.0f")(text)} TFLOP/s`,
    mma_sync_tflops: (text) => `${d3.format(",.0f")(text)} TFLOP/s`
  };

  function environmentText(key, text) {
    if (text === "null" || text === "" || text === undefined) return "—";
    return kForms[key] && !isNaN(text) ? kForms[key](text) : text;
  }

  // The keys we know in our order, then the others.
  function environmentKeys() {
    const keys = Object.keys(kNames);
    for (const report of doc.reports) {
      for (const key of Object.keys(report.environment)) {
        if (!keys.includes(key)) keys.push(key);
      }
    }
    return keys;
  }

  // Of two reports: what they have in common stands in one cell, what differs beside each other.
  function environmentTable() {
    const body = make("tbody", {});
    for (const key of environmentKeys()) {
      const texts = doc.reports.map((report) => environmentText(key, report.environment[key]));
      if (texts.every((text) => text === "—")) continue;
      const cells = texts[0] === texts[1] ? [make("td", {colspan: 2}, texts[0])]
                                          : texts.map((text) => make("td", {}, make("b", {}, text)));
      body.append(make("tr", {}, make("th", {scope: "row"}, kNames[key] || key), ...cells));
    }
    const letters = w4rows.letters.map((letter) => make("th", {scope: "col"}, letter));
    const table = make("table", {class: "plain"},
        make("thead", {}, make("tr", {}, make("th", {}), ...letters)), body);
    return scrolling("Environment", table, "environment");
  }

  function environmentList(report) {
    const list = make("dl", {class: "environment list"});
    for (const key of environmentKeys()) {
      const text = environmentText(key, report.environment[key]);
      if (text === "—") continue;
      list.append(make("div", text.length > 40 ? {class: "long"} : {},
                       make("dt", {}, kNames[key] || key), make("dd", {}, text)));
    }
    return list;
  }

  function dayOf(report) {
    return (report.environment.date || "").slice(0, 10);
  }

  function badge(report) {
    return make("span", {class: `badge ${report.provenance}`}, report.provenance);
  }

  function assumptions(report) {
    if (report.provenance === "measured") return [];
    const banner = make("div", {class: "banner"},
        report.provenance === "predicted"
            ? "No GPU ran: every time is the cost model’s word, and nothing was compared with FP16."
            : "Some times are the cost model’s word; hovering a mark says which.");
    if (report.assumed.length) {
      banner.append(" It assumes:");
      banner.append(make("ul", {}, ...report.assumed.map((line) => make("li", {}, line))));
    }
    return [banner];
  }

  function head() {
    const header = make("header", {});
    if (doc.reports.length === 1) {
      const report = doc.reports[0];
      header.append(make("h1", {}, report.environment.gpu || report.name, badge(report)),
                    make("p", {class: "sub"}, `${report.name}, ${dayOf(report)}`),
                    ...assumptions(report), facts(report), environmentList(report));
    } else {
      header.append(make("h1", {}, "B against A"));
      doc.reports.forEach((report, i) => {
        header.append(make("p", {class: "sub"}, make("b", {}, w4rows.letters[i]),
                           ` ${report.name}: ${report.environment.gpu || ""}, ${dayOf(report)}`,
                           badge(report)));
      });
      if (!doc.comparison.same_protocol) {
        header.append(make("div", {class: "banner"}, "The two were measured by different protocols."));
      }
      doc.reports.forEach((report) => header.append(...assumptions(report)));
      header.append(verdicts(), environmentTable());
    }
    return header;
  }

  // --- tables ---

  function isNumber(text) {
    return /^[\d.,]*( %)?$/.test(text);
  }

  function tableOf(figure) {
    const {head, rows} = figure.table;
    const numeric = head.map((text, i) => rows.every((row) => isNumber(row[i])));
    const kind = (i) => (numeric[i] ? {class: "number"} : {});
    const table = make("table", {},
        make("caption", {class: "unseen"}, figure.title),
        make("thead", {}, make("tr", {}, ...head.map((text, i) => make("th", {scope: "col", ...kind(i)}, text)))),
        make("tbody", {}, ...rows.slice(0, kMostRows).map(
            (row) => make("tr", {}, ...row.map((text, i) => make("td", kind(i), text))))));
    return scrolling(`Table: ${figure.title}`, table, "");
  }

  // --- what a mark says ---

  const tip = make("div", {class: "tip", hidden: ""});
  const spoken = make("p", {class: "unseen", "aria-live": "polite"});

  let said = null;  // {view, mark}

  function say(view, mark) {
    said = {view, mark};
    const box = view.svg.getBoundingClientRect();
    const scale = box.width / view.figure.width;
    tip.replaceChildren(make("b", {}, mark.text[0]), ...mark.text.slice(1).map((line) => make("div", {}, line)));
    tip.hidden = false;
    const x = box.left + mark.x * scale;
    const above = box.top + (mark.y - mark.h / 2) * scale - tip.offsetHeight - 8;
    const below = box.top + (mark.y + mark.h / 2) * scale + 8;
    const most = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const left = Math.max(8, Math.min(x - tip.offsetWidth / 2, most));
    tip.style.transform = `translate(${left}px, ${above > 8 ? above : below}px)`;
    const pad = mark.w > 12 ? 0 : 4;
    const cursor = view.cursor;
    cursor.setAttribute("x", mark.x - mark.w / 2 - pad);
    cursor.setAttribute("y", mark.y - mark.h / 2 - pad);
    cursor.setAttribute("width", mark.w + 2 * pad);
    cursor.setAttribute("height", mark.h + 2 * pad);
    cursor.setAttribute("rx", pad ? 8 : 3);
    if (!cursor.isConnected) view.svg.append(cursor);
  }

  function hush(view) {
    said = null;
    tip.hidden = true;
    view.cursor.remove();
  }

  // The mark under the pointer, or near it.
  function nearest(view, event) {
    const box = view.svg.getBoundingClientRect();
    const scale = box.width / view.figure.width;
    const x = (event.clientX - box.left) / scale;
    const y = (event.clientY - box.top) / scale;
    let best = null;
    let least = 18 * 18;
    for (const mark of view.figure.marks) {
      const dx = Math.max(0, Math.abs(x - mark.x) - (mark.w > 14 ? mark.w / 2 : 0));
      const dy = Math.max(0, Math.abs(y - mark.y) - (mark.h > 14 ? mark.h / 2 : 0));
      const distance = dx * dx + dy * dy;
      if (distance < least) {
        least = distance;
        best = mark;
      }
    }
    return best;
  }

  // The next mark from `mark` along its row (dx) or in the next row (dy).
  function neighbour(marks, mark, dx, dy) {
    let best = null;
    let least = Infinity;
    for (const other of marks) {
      const along = (other.column - mark.column) * dx;
      const across = (other.row - mark.row) * dy;
      if (dx ? other.row !== mark.row || along <= 0 : across <= 0) continue;
      const distance = dx ? along : across * 1e6 + Math.abs(other.column - mark.column);
      if (distance < least) {
        least = distance;
        best = other;
      }
    }
    return best;
  }

  const kArrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

  function listen(view) {
    const {svg} = view;
    const marks = view.figure.marks;
    svg.addEventListener("pointermove", (event) => {
      const mark = nearest(view, event);
      if (mark) {
        say(view, mark);
      } else {
        hush(view);
      }
    });
    svg.addEventListener("pointerleave", () => hush(view));
    svg.addEventListener("keydown", (event) => {
      let next = null;
      if (event.key === "Escape") {
        hush(view);
        return;
      } else if (event.key === "Home") {
        next = marks[0];
      } else if (event.key === "End") {
        next = marks[marks.length - 1];
      } else if (kArrows[event.key]) {
        next = view.mark ? neighbour(marks, view.mark, ...kArrows[event.key]) || view.mark : marks[0];
      } else {
        return;
      }
      event.preventDefault();
      view.mark = next;
      say(view, next);
      view.cursor.scrollIntoView({block: "nearest", inline: "nearest"});
      spoken.textContent = next.text.join(". ");
    });
    svg.addEventListener("blur", () => hush(view));
  }

  // --- figures ---

  const kFrameName = "http://www.w3.org/2000/svg";
  const views = [];

  function draw(view) {
    const open = view.details.open;
    const figure = view.entry.draw(Math.max(300, Math.floor(view.frame.clientWidth)), choice);
    view.section.hidden = figure === null;
    if (!figure) return;
    view.figure = figure;
    view.mark = null;
    view.heading.textContent = figure.title;
    view.note.textContent = figure.note;
    view.frame.innerHTML = figure.svg;
    view.svg = view.frame.firstElementChild;
    view.svg.setAttribute("tabindex", "0");
    view.svg.setAttribute("role", "img");
    view.svg.setAttribute("aria-label",
        `${figure.label}: a plot of ${figure.marks.length} marks. Arrow keys go from mark to mark; `
        + "the table below holds the values.");
    view.cursor = document.createElementNS(kFrameName, "rect");
    view.cursor.setAttribute("class", "cursor");
    const rows = figure.table.rows.length;
    view.details.replaceChildren(
        make("summary", {}, `Table, ${d3.format(",")(rows)} row${rows === 1 ? "" : "s"}` +
             (rows > kMostRows ? `, of which the first ${kMostRows}` : "")),
        tableOf(figure));
    view.details.open = open;
    listen(view);
  }

  function select(label, options, chosen, change) {
    const control = make("select", {});
    options.forEach(([value, text]) => control.append(make("option", {value}, text)));
    control.value = chosen;
    control.addEventListener("change", () => change(control.value));
    return make("label", {}, label, control);
  }

  function redrawSearch() {
    for (const view of views) {
      if (view.entry.id !== "progress" && view.entry.id !== "landscape") continue;
      view.choices.replaceChildren(...choices(view.entry.id));
      draw(view);
    }
  }

  function choices(id) {
    const searches = doc.reports[0].searches;
    if (id === "progress" && searches.length > 1) {
      const options = searches.map((set, i) => [String(i), set.workload]);
      return [select("Workload", options, String(choice.search), (value) => {
        choice.search = Number(value);
        choice.family = "";
        redrawSearch();
      })];
    }
    if (id !== "landscape") return [];
    const families = w4search.families(searches[choice.search]);
    if (!families.includes(choice.family)) {
      choice.family = w4search.bestFamily(searches[choice.search]);
    }
    const options = families.map((family) => [family, family]);
    return [select("Kernel family", options, choice.family, (value) => {
      choice.family = value;
      redrawSearch();
    })];
  }

  function view(entry) {
    const out = {
      entry, mark: null, heading: make("h2", {}), note: make("p", {class: "note"}),
      choices: make("div", {class: "choices"}, ...choices(entry.id)), frame: make("div", {class: "frame"}),
      details: make("details", {})
    };
    out.section = make("section", {id: entry.id}, out.heading, out.note, out.choices, out.frame, out.details);
    return out;
  }

  page.append(head());
  for (const entry of w4figures.list(doc)) {
    const each = view(entry);
    views.push(each);
    page.append(each.section);
  }
  page.append(tip, spoken);
  views.forEach(draw);

  let drawnAt = page.clientWidth;
  window.addEventListener("resize", () => {
    if (page.clientWidth === drawnAt) return;
    drawnAt = page.clientWidth;
    views.forEach(draw);
  });
  document.addEventListener("scroll", () => { if (said) say(said.view, said.mark); }, {capture: true, passive: true});
  document.documentElement.dataset.ready = "yes";
})();
