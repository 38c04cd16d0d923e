// Histograms of output spike times by true class, at the checkpoint of the slider.

const FEW = 4; // outputs that have a colour each

function history(tau) {
  const slider = element("checkpoint");
  const panels = element("history");
  let member = null;

  function panel(where, klass) {
    return () => {
      const { counts, silent, edges, outputs } = member.history;
      const rows = counts[slider.value][klass];
      const most = Math.max(1, largest(counts.flatMap((checkpoint) => checkpoint[klass].flat())));
      const middles = edges.slice(1).map((edge, k) => (edge + edges[k]) / 2);
      const traces = rows.map((row, output) => ({
        x: middles,
        y: row,
        name: label(`${outputs[output]}, ${silent[slider.value][klass][output]} % silent`),
        mode: "lines",
        fill: rows.length <= FEW ? "tozeroy" : "none",
        line: rows.length <= FEW
          ? { shape: "hvh", color: colour(output), dash: dash(output), width: output === klass ? 2.5 : 1.5 }
          : { shape: "hvh", color: output === klass ? colour(0) : shown("--faint"), width: output === klass ? 2.5 : 0.7 },
        hovertemplate: "%{y:.1f} %",
      }));
      const range = [edges[0], edges[edges.length - 1]];
      return [traces, layout(axis(timeLabel(tau, "spike time"), { range }), axis("samples [%]", { range: [0, 1.05 * most] }), {
        title: { text: `true class: ${label(member.classes[klass])}`, font: { size: 14 } },
        hovermode: "x unified",
        showlegend: false,
      })];
    };
  }

  function say() {
    const { epochs, accuracy, samples, split } = member.history;
    const place = Number(slider.value);
    const when = place === 0 ? "before training" : `epoch ${epochs[place]}`;
    const text = `${when}, accuracy ${(100 * accuracy[place]).toFixed(2)} % on ${samples} ${split} samples`;
    element("checkpoint-said").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  }

  return {
    epoch: () => (member === null ? null : member.history.epochs[slider.value]),
    show(next) {
      member = next.history === undefined ? null : next;
      element("times").hidden = member === null;
      panels.querySelectorAll(".chart").forEach((old) => { makers.delete(old); Plotly.purge(old); });
      panels.replaceChildren();
      if (member === null) return;
      slider.max = member.history.epochs.length - 1;
      slider.value = slider.max;
      legend(panels, member.history.outputs);
      member.classes.forEach((name, klass) => {
        const where = make("div", { class: "chart", role: "img", "aria-label": `Output spike times, true class ${name}` });
        panels.append(where);
        chart(where, panel(where, klass));
      });
      say();
    },
    move() {
      say();
      panels.querySelectorAll(".chart").forEach(refresh);
    },
  };
}

function legend(where, names) {
  if (names.length > FEW) {
    where.prepend(make("p", { class: "legend" }, "Blue: the output of the true class. Grey: the others."));
    return;
  }
  const list = make("p", { class: "legend" }, "output: ");
  names.forEach((name, index) => {
    const svg = `<svg width="30" height="10" aria-hidden="true"><line x1="1" x2="29" y1="5" y2="5" stroke-width="3"/></svg>`;
    const entry = make("span", { "data-colour": index });
    entry.innerHTML = svg;
    entry.append(` ${name}`);
    list.append(entry);
  });
  const paint = () => list.querySelectorAll("span").forEach((entry) => {
    const line = entry.querySelector("line");
    const index = Number(entry.dataset.colour);
    line.setAttribute("stroke", colour(index));
    line.setAttribute("stroke-dasharray", { solid: "", dash: "7 3", dot: "3 3", dashdot: "7 3 2 3" }[dash(index)] ?? dash(index));
  });
  paint();
  scheme.addEventListener("change", paint);
  where.prepend(list);
}
