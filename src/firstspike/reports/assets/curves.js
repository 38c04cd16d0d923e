// Accuracy and loss over the epochs; a line marks the checkpoint that the slider is at.

function curves(members, epochAt) {
  const many = members.length > 1;
  const lines = (column, scale) =>
    members.flatMap((member, k) =>
      ["train", "validation"].filter((part) => member.curves?.[`${part}_${column}`]).map((part, n) => ({
        x: member.curves.epoch,
        y: member.curves[`${part}_${column}`].map((value) => (value === null ? null : scale * value)),
        name: label(many ? `${member.name}, ${part}` : part),
        showlegend: !many || n === 1 || !(`validation_${column}` in member.curves),
        mode: member.curves.epoch.length > 1 ? "lines" : "markers",
        opacity: many && n === 0 ? 0.5 : 1,
        line: { color: colour(many ? k : n), dash: n === 0 ? "dot" : "solid", width: many && n === 0 ? 1 : 2 },
        hovertemplate: scale === 1 ? "%{y:.4g}" : "%{y:.2f} %",
      })),
    );
  const content = (column, title, scale) => () => {
    const traces = lines(column, scale);
    const values = traces.flatMap((trace) => trace.y).filter((value) => value !== null);
    const raised = [...new Set(members.flatMap((member) => member.curves?.raised ?? []))];
    if (column === "loss" && raised.length) {
      const marker = { symbol: "line-ns", size: 8, line: { width: 1, color: shown("--faint") } };
      traces.push({ x: raised, y: raised.map(() => 0.02), yaxis: "y2", mode: "markers", name: "weights raised", marker, hoverinfo: "skip" });
    }
    const wide = smallest(values) > 0 && largest(values) > 4 * smallest(values);
    const at = epochAt();
    const mark = { type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: shown("--faint"), dash: "dash", width: 1 } };
    const y = axis(title, column === "loss" && wide ? { type: "log", tickvals: logTicks(values), exponentformat: "power" } : {});
    const epochs = members.flatMap((member) => member.curves?.epoch ?? []);
    const [first, last] = [smallest(epochs), largest(epochs)];
    const range = last > first ? { range: [first, last] } : {}; // the same in both charts, with ticks or without
    return [traces, layout(axis("epoch", { ...range, unifiedhovertitle: { text: "epoch %{x}" } }), y, {
      hovermode: "x unified",
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      showlegend: members.length <= 8,
      shapes: at === null ? [] : [mark],
    })];
  };
  chart(element("accuracy"), content("accuracy", "accuracy [%]", 100));
  chart(element("loss"), content("loss", "loss", 1));
  ["accuracy", "loss"].forEach((id) => walk(element(id)));
}

// 1, 2 and 5 of each decade if there are few decades, otherwise powers of ten.
function logTicks(values) {
  const [low, high] = [smallest(values), largest(values)].map(Math.log10);
  const steps = high - low < 2.5 ? [1, 2, 5] : [1];
  const decades = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, k) => Math.floor(low) + k);
  return decades.flatMap((decade) => steps.map((step) => step * 10 ** decade));
}
