// Of one sample: its input, its spikes in all layers, the membranes of the last layer that spikes.

const TICKS_UP_TO = 20; // neurons of a layer whose spikes are ticks, otherwise dots
const IN_A_TABLE = 16; // inputs
const UNIT = 30; // pixels of height
const TALLEST = 600; // pixels of a raster
const TRACES = 6; // outputs in colour, otherwise grey

// The spikes of a neuron: of trains a list of times, otherwise one time, null where there is none.
const listed = (time) => (Array.isArray(time) ? time : [time]).filter((x) => x !== null);

function drawInput(member, place, tau) {
  const { layers, image } = member.samples;
  const times = layers[0].times[place];
  element("input").hidden = image === undefined;
  if (image !== undefined) {
    const pixels = times.filter((_, k) => k % image.every === 0);
    const rows = Array.from({ length: image.rows }, (_, k) => pixels.slice(k * image.columns, (k + 1) * image.columns));
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
  if (times.length > IN_A_TABLE || image !== undefined) return;
  const names = times.map((_, k) => member.samples.inputs?.[k] ?? String(k));
  table.append(tableOf([["input", "spike time"], ...times.map((time, k) => [names[k], listed(time).join(", ") || "none"])]));
}

function drawRaster(member, place, tau) {
  const { layers } = member.samples;
  const total = layers.reduce((sum, layer) => sum + layer.height, 0);
  const unit = Math.min(UNIT, TALLEST / total);
  const narrow = element("raster").clientWidth < 500;
  chart(element("raster"), () => {
    const [traces, ticks, names, shapes] = [[], [], [], []];
    let bottom = 0;
    layers.forEach((layer, index) => {
      const times = layer.times[place];
      const row = 0.84 * layer.height / times.length;
      const few = times.length <= TICKS_UP_TO;
      const spiking = times.flatMap((time, k) => listed(time).map(() => k));
      const last = index === layers.length - 1 && !member.samples.readout; // outputs have the colours of their classes
      const tone = last ? spiking.map(colour) : shown("--faint");
      const look = few
        ? { symbol: "line-ns", size: Math.min(14, 0.6 * row * unit), line: { width: 2.5, color: tone } }
        : { symbol: "circle", size: 4.5, color: tone };
      traces.push({
        x: times.flatMap(listed),
        y: spiking.map((k) => bottom + 0.08 * layer.height + row * (k + 0.5)),
        customdata: spiking,
        mode: "markers",
        marker: look,
        hovertemplate: `${label(layer.name)} %{customdata}: %{x:.4f}<extra></extra>`,
      });
      if (index) shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: bottom, y1: bottom, line: { width: 1, color: shown("--line") } });
      ticks.push(bottom + layer.height / 2);
      names.push(`${label(layer.name)}${narrow ? "<br>" : " "}${new Set(spiking).size}/${times.length}`);
      bottom += layer.height;
    });
    const y = axis(narrow ? "" : "layer, spikes / neurons", { tickvals: ticks, ticktext: names, range: [0, bottom], showgrid: false, zeroline: false });
    return [traces, layout(axis(timeLabel(tau), { rangemode: "tozero" }), y, {
      height: 90 + unit * total, shapes, showlegend: false, hovermode: "closest",
    })];
  });
}

function drawMembrane(member, place, tau, exact) {
  const membrane = member.samples.membrane;
  element("membrane").hidden = membrane === undefined;
  element("membrane-said").textContent = membrane === undefined ? `Left out: ${member.samples.no_membrane}` : membraneSaid(membrane, exact);
  if (membrane === undefined) return;
  chart(element("membrane"), () => {
    const [time, names, trains] = [membrane.points[place], membrane.neurons[place], membrane.trains];
    const traces = [];
    let [low, high] = [0, 1];
    const truth = membrane.outputs ? member.samples.label[place] : -1;
    const when = (neuron) => (neuron === truth ? -Infinity : membrane.spikes[place][neuron][0] ?? Infinity);
    const first = names.map((_, neuron) => neuron).sort((a, b) => (when(a) > when(b)) - (when(a) < when(b))).slice(0, TRACES);
    membrane.traces[place].forEach((voltage, neuron) => {
      const spikes = membrane.spikes[place][neuron];
      const cut = trains || !spikes.length ? time.length : time.findIndex((t) => t >= spikes[0]); // faint after it
      const before = { x: time.slice(0, cut + 1), y: voltage.slice(0, cut + 1) };
      const after = { x: time.slice(cut), y: voltage.slice(cut) };
      const name = label(names[neuron]);
      const seen = first.includes(neuron);
      const tone = seen ? colour(neuron) : shown("--faint");
      const line = { color: tone, dash: dash(neuron), width: neuron === truth ? 3 : seen ? 1.7 : 0.6 };
      const template = "%{y:.3f} at %{x:.3f}";
      traces.push({ ...before, name, mode: "lines", line, legendgroup: name, showlegend: seen, hovertemplate: template });
      traces.push({ ...after, mode: "lines", opacity: 0.35, line: { ...line, width: 1 }, legendgroup: name, showlegend: false, hoverinfo: "skip" });
      if (spikes.length) {
        traces.push({
          x: spikes, y: spikes.map(() => 1), mode: "markers",
          marker: { size: trains ? 6 : seen ? 10 : 6, color: tone, line: { width: 1.5, color: shown("--back") } },
          legendgroup: name, showlegend: false, hovertemplate: `${name} spikes at %{x:.4f}<extra></extra>`,
        });
      }
      low = Math.min(low, smallest(before.y));
      high = Math.max(high, largest(before.y));
    });
    const threshold = { type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: shown("--faint"), dash: "dash", width: 1.5 } };
    const written = { xref: "paper", x: 1, y: 1, text: "threshold", showarrow: false, xanchor: "right", yanchor: "bottom", font: { color: shown("--faint") } };
    const span = high - low;
    return [traces, layout(axis(timeLabel(tau), { automargin: false, range: [time[0], time[time.length - 1]] }), axis("membrane [threshold]", { automargin: false, range: [low - 0.1 * span, high + 0.2 * span] }), {
      shapes: [threshold], annotations: [written], hovermode: "closest", height: 360,
    })];
  });
}

// What the traces are.
function membraneSaid(membrane, exact) {
  const once = "After its spike a trace is faint: the voltage that the inputs would cause without a reset.";
  const which = !membrane.outputs ? ` Shown are neurons of ${membrane.layer}, at most ${TRACES}: those that spike most in the sample.` : "";
  const coloured = membrane.outputs && membrane.neurons[0].length > TRACES ? ` In colour: the output of the true class and the ${TRACES - 1} earliest others.` : "";
  const marks = !membrane.trains ? " Marks are the substrate's output spikes; they may differ from the crossing of the threshold." : " Resets are at the substrate's spikes, where membranes may differ from the threshold.";
  const observed = exact ? "" : ` Voltages follow from the exact equations, the network's weights and the spikes that the substrate gave.${marks}`;
  return `Voltages in units of the threshold. ${!membrane.trains ? once : "At each spike a membrane is reset."}${which}${coloured}${observed}`;
}
