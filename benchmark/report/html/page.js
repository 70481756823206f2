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
// A filter hides whatever is of another data set, number of shots or recipe than the chosen one.
const filters = Array.from(document.querySelectorAll("[data-filter]"));
function filter() {
  const chosen = filters.filter((each) => each.value).map((each) => [each.dataset.filter, each.value]);
  for (const part of document.querySelectorAll("[data-dataset], [data-shots], [data-recipe]")) {
    const other = chosen.some(([key, value]) => part.dataset[key] !== undefined && part.dataset[key] !== value);
    part.classList.toggle("hidden", other);
  }
}
filters.forEach((each) => each.addEventListener("change", filter));
// A link into something that is folded unfolds it.
function unfold() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
  const inside = target.querySelector(":scope > details");
  if (inside) inside.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();
// Print shows what is folded, except the full record of every run.
addEventListener("beforeprint", () => {
  document.querySelectorAll("section:not([aria-labelledby=runs]) details, section > details").forEach((each) => { each.open = true; });
});
