// Tables sort by a click on a head and, when long, filter by a word; the page is complete without this.
document.querySelectorAll("table.sortable").forEach(table => {
  const body = table.tBodies[0], rows = [...body.rows];
  const key = (row, i) => { const cell = row.cells[i]; return cell.dataset.v === undefined ? cell.textContent : +cell.dataset.v; };
  const absent = k => k === "\u2013" || k === "";
  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.filter(row => !row.classList.contains("total"))
        .map(row => [key(row, i), row])
        .sort(([a], [b]) => absent(a) - absent(b) || (down ? order(b, a) : order(a, b)))
        .forEach(([, row]) => { row.classList.remove("start"); body.append(row); });
      body.append(...rows.filter(row => row.classList.contains("total")));
    });
  });
  if (rows.length > 12) {
    const field = document.createElement("input");
    field.className = "filter";
    field.type = "search";
    field.placeholder = "filter rows, such as pgd 8/255";
    field.setAttribute("aria-label", "filter rows");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      rows.forEach(row => { row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word)); });
    });
    table.parentElement.before(field);
  }
});
