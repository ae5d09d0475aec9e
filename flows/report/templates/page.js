"use strict";
// Works without: the tables are sorted already and all cards are shown.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const order = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b)) : a - b);
      const rows = [...body.rows].sort((a, b) => order(key(a), key(b)));
      body.append(...(down ? rows.reverse() : rows));
    });
  });
}
const filter = document.getElementById("card-filter");
if (filter) {
  const cards = [...document.querySelectorAll(".card")];
  const label = document.createElement("label");
  const select = document.createElement("select");
  select.append(new Option("all methods", ""));
  for (const method of new Set(cards.map((card) => card.dataset.method))) select.append(new Option(method, method));
  select.addEventListener("change", () => {
    for (const card of cards) card.hidden = select.value !== "" && card.dataset.method !== select.value;
  });
  label.append("Show ", select);
  filter.append(label);
  filter.hidden = false;
}
