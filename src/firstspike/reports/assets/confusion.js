// The confusion matrix as a table; the number of a cell is a button that selects its samples.

function confusion(member, choose) {
  const section = element("confusion");
  section.hidden = member.confusion === undefined;
  if (section.hidden) return;
  const { counts, decisions, accuracy, samples, checkpoint } = member.confusion;
  element("confusion-said").textContent =
    `${samples} ${member.split} samples (${checkpoint}), ${accuracy}. ` +
    "Wrong decisions are shaded by their fraction of the true class. Click a number to select its samples below.";
  const total = counts.map((row) => Math.max(1, row.reduce((sum, count) => sum + count, 0)));
  const wrong = counts.map((row, truth) => row.map((count, column) => (column === truth ? 0 : count / total[truth])));

  function cell(count, truth, column) {
    const decision = column < counts.length ? column : -1;
    const shade = (0.8 * Math.sqrt(wrong[truth][column])).toFixed(3);
    const there = member.samples?.label.some((own, k) => own === truth && member.samples.decision[k] === decision);
    const title = `select samples of ${decisions[truth]} with the decision ${decisions[column]}`;
    const number = there ? make("button", { type: "button", title }, String(count)) : String(count);
    if (there) number.addEventListener("click", () => choose(`cell ${truth} ${decision}`));
    const made = make("td", {}, number);
    made.style.background = column === truth ? "var(--panel)" : `rgba(var(--wrong), ${shade})`;
    return made;
  }

  const rows = counts.map((row, truth) => [decisions[truth], ...row.map((count, column) => cell(count, truth, column))]);
  element("matrix").replaceChildren(tableOf([["true class \\ decision", ...decisions], ...rows]));
}
