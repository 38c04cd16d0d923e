// Of one sample: its input, its spikes in all layers, the membranes of the last layer that spikes.

const TICKS_UP_TO = 20; // neurons of a layer whose spikes are ticks, otherwise dots
const UNIT = 30; // pixels of height
const TALLEST = 600; // pixels of a raster

// The spikes of a neuron: of trains a list of times, otherwise one time, null where there is none.
const listed = (time) => (Array.isArray(time) ? time : [time]).filter((x) => x !== null);

function drawInput(member, place, tau) {
  const { layers, image, inputs, values } = member.samples;
  const times = layers[0].times[place];
  element("input").hidden = image === undefined;
  if (image !== undefined) {
    const rows = Array.from({ length: image.rows }, (_, k) => times.slice(k * image.columns, (k + 1) * image.columns));
    const gap = image.columns > 10 ? 0 : 1;
    chart(element("input"), () => [
      [{
        type: "heatmap", z: rows, colorscale: "Viridis", hoverongaps: false, xgap: gap, ygap: gap,
        colorbar: { title: { text: timeLabel(tau, "spike time"), side: "right" }, outlinewidth: 0 },
        hovertemplate: "row %{y}, column %{x}<br>%{z}<extra></extra>",
      }],
      layout(axis("", { automargin: false, ticks: "", showticklabels: false, showgrid: false, zeroline: false, constrain: "domain" }),
        axis("", { automargin: false, autorange: "reversed", scaleanchor: "x", ticks: "", showticklabels: false, showgrid: false, zeroline: false, constrain: "domain" }),
        { title: { text: rows.flat().includes(null) ? "empty: no spike" : "", font: { size: 13 } }, height: 380 }),
    ]);
  }
  const table = element("input-table");
  table.replaceChildren();
  if (inputs === undefined) return;
  const rows = values === undefined
    ? [["input", "spike time"], ...times.map((time, k) => [inputs[k], listed(time).join(", ") || "none"])]
    : [["column", "value"], ...inputs.map((name, k) => [name, values[place][k]])];
  table.append(tableOf(rows));
}

function drawRaster(member, place, tau) {
  const { layers, readout } = member.samples;
  const middles = layers.map(({ rows }) => (rows[0] + rows[rows.length - 1]) / 2);
  const bottoms = middles.reduce((found, middle) => [...found, 2 * middle - found[found.length - 1]], [0]);
  const top = bottoms[layers.length];
  const unit = Math.min(UNIT, TALLEST / top);
  const narrow = element("raster").clientWidth < 500;
  chart(element("raster"), () => {
    const [traces, names] = [[], []];
    layers.forEach(({ name, rows, times }, index) => {
      const spiking = times[place].flatMap((time, k) => listed(time).map(() => k));
      const last = index === layers.length - 1 && !readout; // outputs have the colours of their classes
      const tone = last ? spiking.map(colour) : shown("--faint");
      const size = Math.min(14, 0.6 * unit * (rows.length > 1 ? rows[1] - rows[0] : 1));
      traces.push({
        x: times[place].flatMap(listed),
        y: spiking.map((k) => rows[k]),
        customdata: spiking,
        mode: "markers",
        marker: rows.length <= TICKS_UP_TO ? { symbol: "line-ns", size, line: { width: 2.5, color: tone } } : { size: 4.5, color: tone },
        hovertemplate: `${label(name)} %{customdata}: %{x:.4f}<extra></extra>`,
      });
      names.push(`${label(name)}${narrow ? "<br>" : " "}${new Set(spiking).size}/${rows.length}`);
    });
    const shapes = bottoms.slice(1, -1).map((y) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { width: 1, color: shown("--line") } }));
    const y = axis(narrow ? "" : "layer, spikes / neurons", { tickvals: middles, ticktext: names, range: [0, top], showgrid: false, zeroline: false });
    return [traces, layout(axis(timeLabel(tau), { rangemode: "tozero" }), y, {
      height: 90 + unit * top, shapes, showlegend: false, hovermode: "closest",
    })];
  });
}

function drawMembrane(member, place, tau, exact) {
  const membrane = member.samples.membrane;
  element("membrane").hidden = membrane === undefined;
  element("membrane-said").textContent = membrane === undefined ? `Left out: ${member.samples.no_membrane}` : membraneSaid(membrane, exact);
  if (membrane === undefined) return;
  chart(element("membrane"), () => {
    const { tones, names, at, bases, voltage, spikes } = membrane.samples[place];
    const traces = tones.flatMap((tone, k) => {
      const cut = membrane.trains || !spikes[k].length ? at.length : at.findIndex((time) => time >= spikes[k][0]); // faint after it
      const name = label(names[k]);
      const line = { color: colour(tone), dash: membrane.trains ? "solid" : dash(tone), width: k === 0 && membrane.outputs ? 3 : 1.7 }; // the true class is the first
      const group = { name, legendgroup: name, mode: "lines", line, showlegend: !membrane.trains };
      const heights = voltage[k].map((x) => bases[k] + x);
      const marker = { size: membrane.trains ? 6 : 10, color: colour(tone), line: { width: 1.5, color: shown("--back") } };
      return [
        { ...group, x: at.slice(0, cut + 1), y: heights.slice(0, cut + 1), customdata: voltage[k], hovertemplate: "%{customdata:.3f} at %{x:.3f}" },
        { ...group, x: at.slice(cut), y: heights.slice(cut), opacity: 0.35, showlegend: false, hoverinfo: "skip" },
        { ...group, x: spikes[k], y: spikes[k].map(() => bases[k] + 1), mode: "markers", marker, showlegend: false, hovertemplate: `${name} spikes at %{x:.4f}<extra></extra>` },
      ];
    });
    const heights = traces.flatMap((trace) => (trace.hoverinfo === "skip" ? [] : trace.y));
    const [low, high] = [Math.min(0, smallest(heights)), Math.max(1, largest(heights))];
    const range = [low - 0.1 * (high - low), high + 0.2 * (high - low)];
    const levels = [...new Set(bases)].map((y) => y + 1);
    const shapes = levels.map((y) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: shown("--faint"), dash: "dash", width: 1.5 } }));
    const written = { xref: "paper", x: 0.01, y: 1, text: "threshold", showarrow: false, xanchor: "left", yanchor: "bottom", font: { color: shown("--faint") } };
    const rows = membrane.trains ? { tickvals: bases, ticktext: names.map(label), zeroline: false } : {};
    const title = membrane.trains ? "neuron" : "membrane [threshold]";
    return [traces, layout(axis(timeLabel(tau), { automargin: false, range: [at[0], at[at.length - 1]] }), axis(title, { automargin: false, range, ...rows }), {
      shapes, annotations: [written], hovermode: "closest", height: 360,
    })];
  });
}

// What the traces are.
function membraneSaid({ trains, outputs, layer, of, samples }, exact) {
  const few = samples[0].neurons.length < of;
  const which = few ? (outputs ? " Shown are the output of the true class and the earliest others." : ` Shown are the neurons of ${layer} that spike most.`) : "";
  const after = trains ? "At each spike a membrane is reset." : "After its spike a trace is faint: the voltage that the inputs would cause without a reset.";
  const observed = exact ? "" : " Voltages follow from the exact equations, the network's weights and the substrate's spikes, so at these they may differ from the threshold.";
  return `Voltages in units of the threshold. ${after}${which}${observed}`;
}
