// The charts, in the page's colours.
const quiet = { labelColor: "var(--soft)", titleColor: "var(--soft)", titleFontWeight: "normal" };
const config = {
  background: "transparent",
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: {
    ...quiet,
    labelFontSize: 12,
    titleFontSize: 12,
    labelLimit: 150,
    labelFlush: false,
    labelSeparation: 6,
    gridColor: "var(--rule)",
    domainColor: "var(--rule)",
    tickColor: "var(--rule)",
  },
  legend: { ...quiet, title: null, orient: "top", labelFontSize: 12, columns: 3, layout: { top: { anchor: "end" } } },
  header: { labels: false },
  text: { color: "var(--ink)" },
  rule: { color: "var(--ink)" },
};
const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
// What a point or bar tells: its row of the table without what Vega put beside it.
const formatTooltip = (row, safe) => {
  const told = Object.entries(row).filter(([name]) => !/^rev$|_start$|_end$|_index$/.test(name));
  const lines = told.map(([name, value]) => [name, typeof value === "number" ? +value.toPrecision(4) : value]);
  return `<table>${lines.map((line) => `<tr><td>${line.map(safe).join("</td><td>")}</td></tr>`).join("")}</table>`;
};
// ast: without it Vega makes functions of text, which the page's policy forbids.
const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, config };
for (const place of document.querySelectorAll(".plot")) {
  const spec = JSON.parse(place.nextElementSibling.textContent);
  vegaEmbed(place, spec, { ...options, tooltip: { theme, formatTooltip } });
}

// Tables are sorted by a click on a heading: text from A on, numbers from the largest on, again for the reverse.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const text = !heading.classList.contains("number");
      const first = text ? "ascending" : "descending";
      const other = text ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      for (const each of table.tHead.querySelectorAll("th")) each.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => {
        const cell = row.cells[heading.cellIndex];
        return text ? cell.textContent : parseFloat(cell.dataset.value);
      };
      const compare = (a, b) => {
        if (text) return sign * a.localeCompare(b);
        return Number.isNaN(a) - Number.isNaN(b) || sign * (a - b) || 0; // unknown values stay at the end
      };
      body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    });
  }
}

// A picture is shown at its full size by a click; arrow keys go on to its neighbours.
const dialog = document.querySelector("dialog");
const pictures = [...document.querySelectorAll(".pictures button")];
let shown = 0;
const show = (place) => {
  shown = (place + pictures.length) % pictures.length;
  const { src, alt } = pictures[shown].firstElementChild;
  Object.assign(dialog.firstElementChild, { src, alt });
};
pictures.forEach((button, place) => button.addEventListener("click", () => { show(place); dialog.showModal(); }));
dialog.addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", ({ key }) => {
  if (key === "ArrowRight" || key === "ArrowLeft") show(shown + (key === "ArrowRight" ? 1 : -1));
});
