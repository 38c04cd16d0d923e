// The confusion matrix as a table; a cell with samples to pick is a button that picks among them.

function confusion(member, choose) {
  const section = element("confusion");
  section.hidden = member.confusion === undefined;
  if (section.hidden) return;
  const { counts, decisions, accuracy, error, samples, checkpoint } = member.confusion;
  element("confusion-said").textContent =
    `Test accuracy ${(100 * accuracy).toFixed(2)} ± ${(100 * error).toFixed(2)} % on ${samples} samples (${checkpoint}). ` +
    "Shade: fraction of the true class. A number that is a button picks among its samples below.";
  const head = make("tr", {}, make("th", {}, "true class \\ decision"));
  decisions.forEach((name) => head.append(make("th", { scope: "col" }, name)));
  const body = make("tbody");
  counts.forEach((row, truth) => {
    const line = make("tr", {}, make("th", { scope: "row" }, member.classes[truth]));
    const all = Math.max(1, row.reduce((sum, count) => sum + count, 0));
    row.forEach((count, column) => {
      const decision = column < member.classes.length ? column : -1;
      const cell = make("td");
      cell.style.background = `rgba(var(--shade), ${(0.5 * count / all).toFixed(3)})`;
      const there = member.samples?.label.some((own, k) => own === truth && member.samples.decision[k] === decision);
      if (there) {
        const title = `pick among samples of ${member.classes[truth]} with the decision ${decisions[column]}`;
        const button = make("button", { type: "button", title }, String(count));
        button.addEventListener("click", () => choose(`cell ${truth} ${decision}`));
        cell.append(button);
      } else {
        cell.append(String(count));
      }
      line.append(cell);
    });
    body.append(line);
  });
  element("matrix").replaceChildren(make("table", {}, make("thead", {}, head), body));
}
