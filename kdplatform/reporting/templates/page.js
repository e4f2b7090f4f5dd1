"use strict";
// The page reads without this script; it adds figures, sorting, search and choices.
(() => {
  const all = (what, within = document) => [...within.querySelectorAll(what)];
  const narrow = (text) => text.toLocaleLowerCase().normalize("NFKC");

  // ---- what the page holds, unpacked
  async function unpacked(id) {
    const packed = atob(document.getElementById(id).textContent.trim());
    const bytes = Uint8Array.from(packed, (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  // ---- figures
  let data = { charts: {}, rates: {} };
  const drawn = new Map();
  const style = () => getComputedStyle(document.documentElement);

  function colored(value, css) {
    if (typeof value === "string") {
      return value.startsWith("--") ? css.getPropertyValue(value).trim() : value;
    }
    if (Array.isArray(value)) return value.map((each) => colored(each, css));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, colored(v, css)]));
    }
    return value;
  }

  function dressed(figure) {
    const css = style();
    const at = (name) => css.getPropertyValue(name).trim();
    const own = colored(figure, css);
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: at("--text") },
      hoverlabel: { bgcolor: at("--card"), bordercolor: at("--line-strong"), align: "left",
        font: { color: at("--text") } },
      ...own.layout,
    };
    for (const name of Object.keys(layout)) {
      if (/^[xy]axis/.test(name)) {
        layout[name] = { gridcolor: at("--line"), linecolor: at("--line-strong"), ...layout[name] };
      }
    }
    return { data: own.data, layout };
  }

  const CONFIG = { responsive: true, displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]] };

  function draw(plot, figure) {
    const { data: traces, layout } = dressed(figure);
    drawn.set(plot, figure);
    // Never wait for the network, never send anything: the bundle has no such button here.
    return Plotly.react(plot, traces, layout, CONFIG).then(() => { plot.dataset.drawn = "true"; });
  }

  const waiting = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      waiting.unobserve(entry.target);
      drawChart(entry.target);
    }
  }, { rootMargin: "400px" });

  function drawChart(plot) {
    if (drawn.has(plot)) return;
    const figure = plot.dataset.chart ? data.charts[plot.dataset.chart] : plot.figure;
    if (figure) draw(plot, figure);
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const [plot, figure] of drawn) draw(plot, figure);
  });

  // ---- paper: everything open, everything drawn, as wide as the paper
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const each of folded) each.open = true;
    if (!window.Plotly) return;
    for (const plot of all(".plot")) {
      if (plot.closest("[hidden]")) continue;
      drawChart(plot);
      if (drawn.has(plot)) Plotly.relayout(plot, { width: 690, autosize: false });
    }
  });
  addEventListener("afterprint", () => {
    for (const each of folded) each.open = false;
    for (const plot of drawn.keys()) Plotly.relayout(plot, { width: null, autosize: true });
  });

  // ---- tables that can be sorted
  const number = (text) => {
    const found = /^[<>≤≥~]?\s*([-+]?\d[\d ,]*\.?\d*(?:e[-+]?\d+)?)/i.exec(text.trim());
    return found ? parseFloat(found[1].replace(/[ ,]/g, "")) : NaN;
  };

  function sortable(table) {
    const head = table.tHead && table.tHead.rows[table.tHead.rows.length - 1];
    const body = table.tBodies[0];
    if (!head || body.rows.length < 3) return;
    [...head.cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent || "name";
      button.title = "sort";
      cell.replaceChildren(button);
      button.addEventListener("click", () => sort(head, body, cell, column));
    });
  }

  function sort(head, body, cell, column) {
    const rises = cell.getAttribute("aria-sort") !== "ascending";
    for (const other of head.cells) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", rises ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => {
      const text = row.cells[column].textContent.trim();
      return { row, text, value: number(text), empty: text === "-" || text === "" };
    });
    const known = rows.filter((each) => !each.empty);
    const numeric = known.length > 0 && known.every((each) => !Number.isNaN(each.value));
    const sign = rises ? 1 : -1;
    rows.sort((a, b) => {
      if (a.empty || b.empty) return a.empty - b.empty;
      return sign * (numeric ? a.value - b.value : a.text.localeCompare(b.text, undefined, { numeric: true }));
    });
    body.append(...rows.map((each) => each.row));
  }

  // ---- search by name
  function searchable(input) {
    const table = document.getElementById(`table-${input.dataset.find}`);
    const rows = [...table.tBodies[0].rows];
    const names = rows.map((row) => narrow(row.cells[0].textContent));
    const output = input.closest(".find").querySelector("output");
    input.addEventListener("input", () => {
      const wanted = narrow(input.value.trim());
      let shown = 0;
      rows.forEach((row, at) => {
        row.hidden = !names[at].includes(wanted);
        shown += !row.hidden;
      });
      output.textContent = wanted ? `${shown} of ${rows.length}` : "";
      mark(input.dataset.chart, wanted);
    });
  }

  function mark(key, wanted) {
    const plot = all(".plot").find((each) => each.dataset.chart === key && drawn.has(each));
    if (!plot) return;
    const names = data.charts[key].names;
    const found = names.map((name, at) => (narrow(name).includes(wanted) ? at : -1)).filter((at) => at >= 0);
    Plotly.restyle(plot, { selectedpoints: [wanted ? found : null] });
  }

  // ---- one of several parts
  function switched(box) {
    const parts = all(":scope > section", box);
    if (parts.length < 2) return;
    const select = document.createElement("select");
    for (const part of parts) select.add(new Option(part.dataset.choice));
    const show = () => parts.forEach((part, at) => { part.hidden = at !== select.selectedIndex; });
    select.addEventListener("change", show);
    const label = document.createElement("label");
    label.append(`${box.dataset.label} `, select);
    const line = document.createElement("p");
    line.className = "find";
    line.append(label);
    box.prepend(line);
    for (const part of parts) {
      const heading = part.firstElementChild;
      if (heading && /^H\d$/.test(heading.tagName)) heading.hidden = true;
    }
    show();
  }

  // ---- the rates of one class
  // Rates of a class among very many are small: they need a second digit.
  const digits = (rows) => (rows.every((row) => row[0] === null || Math.max(row[0], row[1]) < 2) ? 2 : 1);
  const shownNumber = (value, places) => (value === null ? "-" : (value.toFixed(places)).replace(/^-(0\.?0*)$/, "$1"));
  const signed = (value, places) => (value > 0 ? "+" : "") + shownNumber(value, places);
  const limits = (low, high, places) =>
    (low === null ? "" : ` (${shownNumber(low, places)} to ${shownNumber(high, places)})`);

  function cell(kind, text, scope) {
    const made = document.createElement(kind);
    made.textContent = text;
    if (scope) made.scope = scope;
    return made;
  }

  function ratesTable(table, rates, at) {
    const above = document.createElement("tr");
    const head = document.createElement("tr");
    above.append(cell("th", ""), cell("th", ""), cell("th", ""));
    head.append(cell("th", "group", "col"), cell("th", "n", "col"), cell("th", "of the class", "col"));
    for (const name of rates.measures) {
      const over = cell("th", `${name}, %`, "colgroup");
      over.colSpan = 3;
      over.className = "begins";
      above.append(over);
      for (const side of ["A", "B", "B minus A"]) head.append(cell("th", side, "col"));
    }
    const body = document.createElement("tbody");
    rates.groups.forEach((group, row) => {
      const line = document.createElement("tr");
      line.append(cell("th", group, "row"), cell("td", rates.n[row]), cell("td", rates.positives[at][row]));
      for (const values of rates.values) {
        const [a, b, difference, low, high] = values[at][row];
        const places = digits(values[at]);
        const words = signed(difference, places) + limits(low, high, places);
        line.append(cell("td", shownNumber(a, places)), cell("td", shownNumber(b, places)), cell("td", words));
      }
      body.append(line);
    });
    const top = document.createElement("thead");
    top.append(above, head);
    table.replaceChildren(top, body);
    sortable(table);
  }

  const escaped = (text) => String(text).replace(/[&<>"'$]/g, (char) => `&#${char.charCodeAt(0)};`);

  function ratesFigure(rates, at) {
    const width = (1 - 0.05 * (rates.measures.length - 1)) / rates.measures.length;
    const figure = { data: [], layout: { height: 110 + 26 * rates.groups.length, hovermode: "closest",
      margin: { l: 12, r: 14, t: 34, b: 30 }, shapes: [],
      legend: { orientation: "h", x: 0, y: 1, yref: "container", yanchor: "top" },
      yaxis: { tickvals: rates.groups.map((_, row) => row), ticktext: rates.groups.map(escaped),
        range: [rates.groups.length - 0.5, -0.5], automargin: true, zeroline: false } } };
    rates.measures.forEach((measure, m) => {
      const axis = m ? m + 1 : "";
      const start = m * (width + 0.05);
      figure.layout[`xaxis${axis}`] = { domain: [start, Math.min(1, start + width)], zeroline: false,
        title: { text: `${escaped(measure)}, %`, standoff: 6 }, nticks: 6 };
      rates.sides.forEach((side, s) => {
        const color = s ? "--other" : "--reference";
        const of = (number) => rates.groups.map((_, row) => rates.values[m][at][row][number]);
        const [value, low, high] = [of(s), of(5 + 2 * s), of(6 + 2 * s)];
        const gap = (one, other) => one.map((v, row) => (v === null || other[row] === null ? null : v - other[row]));
        figure.data.push({ type: "scatter", mode: "markers", name: escaped(side), legendgroup: String(s),
          showlegend: m === 0, x: value, y: rates.groups.map((_, row) => row + (s ? 0.16 : -0.16)),
          error_x: { type: "data", symmetric: false, array: gap(high, value), arrayminus: gap(value, low),
            color, thickness: 1.2, width: 3 },
          marker: { color, symbol: s ? "square" : "circle-open", size: 9, line: { color, width: 1.6 } },
          xaxis: `x${axis}`, yaxis: "y", hoverinfo: "x+name" });
        const parity = rates.parity[m][Math.min(at, rates.parity[m].length - 1)][s];
        if (parity !== null) {
          figure.layout.shapes.push({ type: "line", layer: "below", xref: `x${axis}`, yref: "paper",
            x0: parity, x1: parity, y0: 0, y1: 1, line: { color, width: 1.3, dash: s ? "dashdot" : "dash" } });
        }
      });
    });
    return figure;
  }

  function chooseClass(box) {
    const rates = data.rates[box.dataset.rates];
    const [select, plot, table] = ["select", ".plot", "table"].map((what) => box.querySelector(what));
    for (const name of rates.classes) select.add(new Option(name));
    select.selectedIndex = rates.first;
    const show = () => {
      const at = select.selectedIndex;
      ratesTable(table, rates, at);
      plot.figure = ratesFigure(rates, at);
      if (drawn.has(plot)) draw(plot, plot.figure);
    };
    select.addEventListener("change", show);
    show();
  }

  // ---- examples
  function filtered(gallery) {
    const cards = all(".cards > li, .rows > tbody > tr", gallery);
    const selects = all("select", gallery);
    const output = gallery.querySelector("output");
    const show = () => {
      let count = 0;
      for (const card of cards) {
        card.hidden = !selects.every((select) => !select.value ||
          (select.dataset.by === "groups" ? card.dataset.groups.split(" ").includes(select.value)
            : card.dataset[select.dataset.by] === select.value));
        count += !card.hidden;
      }
      output.textContent = `${count} of ${cards.length} shown`;
    };
    for (const select of selects) select.addEventListener("change", show);
    for (const image of all("img", gallery)) {
      const sharp = () => image.classList.toggle("small", image.naturalWidth < 80);
      if (image.complete) sharp(); else image.addEventListener("load", sharp);
    }
    gallery.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    show();
  }

  // ---- where the reader is
  function follow() {
    const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.classList.remove("here");
        links.get(entry.target.id).classList.add("here");
      }
    }, { rootMargin: "-10% 0px -75% 0px" });
    for (const chapter of all(".chapter")) seen.observe(chapter);
    const unfold = () => {
      const chapter = location.hash && document.getElementById(location.hash.slice(1));
      const details = chapter && chapter.querySelector(":scope > details");
      if (details) details.open = true;
    };
    addEventListener("hashchange", unfold);
    unfold();
  }

  async function start() {
    all("table").forEach(sortable);
    all("input[data-find]").forEach(searchable);
    all(".switch").forEach(switched);
    all(".gallery").forEach(filtered);
    follow();
    if (!("DecompressionStream" in window)) {
      for (const plot of all(".plot")) {
        plot.textContent = "This browser is too old to draw the figure; the tables have its numbers.";
      }
      return;
    }
    data = JSON.parse(await unpacked("page-data"));
    all(".rates").forEach(chooseClass);
    document.documentElement.dataset.ready = "text";
    if (!all(".plot").length) return;
    const script = document.createElement("script");
    script.textContent = await unpacked("page-bundle");
    document.head.append(script);
    all(".plot").forEach((plot) => waiting.observe(plot));
    document.documentElement.dataset.ready = "figures";
  }

  start();
})();
