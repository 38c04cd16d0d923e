// The page of a sweep: a table that sorts, and any result against any parameter.

start(({ parameters, measured, runs, rows }) => {
  document.querySelectorAll("table.sortable").forEach(sortable);
  if (element("scatter") === null) return;
  const [which, against] = [element("measured"), element("parameter")];
  const words = (name) => name.replaceAll("_", " ");
  measured.forEach((name) => which.append(make("option", { value: name }, words(name))));
  parameters.forEach((name) => against.append(make("option", { value: name }, name)));

  function content() {
    const percent = which.value.endsWith("accuracy");
    const scale = percent ? 100 : 1;
    const shownRows = rows.map((row, k) => ({ ...row, run: runs[k] })).filter((row) => typeof row[which.value] === "number" && row[against.value] !== null);
    const x = shownRows.map((row) => row[against.value]);
    const numbers = x.length > 0 && x.every((value) => typeof value === "number");
    const wide = numbers && smallest(x) > 0 && largest(x) > 50 * smallest(x);
    const spread = shownRows.map((row) => scale * (row[which.value.replace("_accuracy", "_std")] ?? 0));
    const text = shownRows.map((row) =>
      [row.run, ...parameters.slice(0, 12).map((name) => `${name}: ${row[name]}`)].map(label).join("<br>"));
    const points = {
      x: numbers ? x : x.map((value) => label(value)),
      y: shownRows.map((row) => scale * row[which.value]),
      text,
      mode: "markers",
      marker: { size: 9, color: colour(0), opacity: 0.8 },
      error_y: { type: "data", array: spread, visible: percent && spread.some((value) => value > 0), color: shown("--faint") },
      hovertemplate: `%{y:.5g}${percent ? " %" : ""}<br>%{text}<extra></extra>`,
    };
    const type = wide ? "log" : numbers ? "linear" : "category";
    return [[points], layout(axis(label(against.value), { type }), axis(words(which.value) + (percent ? " [%]" : "")), { hovermode: "closest" })];
  }

  chart(element("scatter"), content);
  [which, against].forEach((select) => select.addEventListener("change", () => refresh(element("scatter"))));
});
