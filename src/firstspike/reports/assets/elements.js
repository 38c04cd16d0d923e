// Elements of the page, found and made.

const element = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A table of texts and elements; the first row and the first column are headings.
function tableOf(rows) {
  const line = (row, isHead) => make("tr", {}, ...row.map((cell, column) =>
    cell instanceof HTMLTableCellElement ? cell : make(isHead || column === 0 ? "th" : "td", { scope: isHead ? "col" : "row" }, cell)));
  return make("table", {}, make("thead", {}, line(rows[0], true)), make("tbody", {}, ...rows.slice(1).map((row) => line(row, false))));
}
