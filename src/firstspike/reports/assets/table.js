// Tables whose columns sort, by the first number of a cell where all have one; empty cells come last.

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sortRows(table.tBodies[0], column, down);
    });
  });
}

function sortRows(body, column, down) {
  const text = (row) => row.cells[column].textContent.trim().replace(/^nan$/, "");
  const rows = [...body.rows];
  const numbers = rows.every((row) => text(row) === "" || !Number.isNaN(Number.parseFloat(text(row))));
  rows.sort((first, second) => {
    const [a, b] = [text(first), text(second)];
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = numbers ? Number.parseFloat(a) - Number.parseFloat(b) : a.localeCompare(b);
    return down ? -order : order;
  });
  body.append(...rows);
}

document.querySelectorAll("table.sortable").forEach(sortable);
