"use strict";
// A click on a column's header sorts its table by the full-precision value of each cell; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const body = table.tBodies[0];
      const key = (row) => {
        const cell = row.children[column];
        return cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value;
      };
      const compare = (a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const numbers = !Number.isNaN(Number(x)) && !Number.isNaN(Number(y));
        const order = numbers ? Number(x) - Number(y) : x.localeCompare(y);
        return ascending ? order : -order;
      };
      Array.from(body.rows).sort(compare).forEach((row) => body.appendChild(row));
    });
  });
}
// Print shows what is folded, except the full record of every run.
addEventListener("beforeprint", () => {
  document.querySelectorAll("section:not([aria-labelledby=runs]) details").forEach((each) => { each.open = true; });
});
