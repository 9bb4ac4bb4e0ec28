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
