// The decision map of the Yin-Yang plane, on which a sample is chosen.

function decisionMap(picked) {
  const where = element("plane");
  let member = null;
  let [place, places] = [0, []];

  function background() {
    const { rows, size } = member.plane;
    const count = member.classes.length;
    const side = rows.map((_, k) => (k + 0.5) / rows.length * size);
    const [z, text] = [[], []];
    rows.forEach((row, j) => {
      const outside = (i) => Math.hypot(side[i] - size / 2, side[j] - size / 2) > size / 2;
      const classes = [...row].map((letter) => (letter === "." ? null : Number(letter)));
      z.push(classes.map((klass, i) => (klass === null ? null : klass + (outside(i) ? count : 0))));
      text.push(classes.map((klass) => (klass === null ? "" : label(member.classes[klass]))));
    });
    const levels = Array.from({ length: 2 * count }, (_, k) => faded(colour(k % count), k < count ? 0.7 : 0.25));
    const colorscale = levels.flatMap((tone, k) => [[k / levels.length, tone], [(k + 1) / levels.length, tone]]);
    return {
      type: "heatmap", x: side, y: side, z, text, colorscale, zmin: -0.5, zmax: levels.length - 0.5, showscale: false,
      hoverongaps: false, hovertemplate: "x %{x:.3f}, y %{y:.3f}<br>decision %{text}<extra></extra>", name: "",
    };
  }

  function dots(chosen, name, marker) {
    const { points, index } = member.samples;
    return {
      x: chosen.map((k) => points[k][0]), y: chosen.map((k) => points[k][1]), customdata: chosen,
      text: chosen.map((k) => `sample ${index[k]}, ${label(member.classes[member.samples.label[k]])}`),
      mode: "markers", name, marker, hovertemplate: "%{text}<extra></extra>",
    };
  }

  function content() {
    const { label: labels, decision, points } = member.samples;
    const wrong = places.filter((k) => labels[k] !== decision[k]);
    const right = places.filter((k) => labels[k] === decision[k]);
    const lines = member.plane.outline.map((line) => ({
      x: line.map((point) => point[0]), y: line.map((point) => point[1]), mode: "lines", hoverinfo: "skip", showlegend: false,
      line: { color: shown("--text"), width: 1 },
    }));
    const names = member.classes.map((name, k) => ({
      x: [null], y: [null], mode: "markers", name: label(name), marker: { symbol: "square", size: 12, color: faded(colour(k), 0.7) },
    }));
    const rim = { width: 1, color: "#ffffff" };
    const ring = { size: 18, color: "rgba(0,0,0,0)", symbol: "circle", line: { width: 4, color: "#ff2d95" } };
    const traces = [
      background(), ...lines, ...names,
      dots(right, "right", { size: 5, color: "#222222", line: rim }),
      dots(wrong, "wrong", { size: 11, symbol: "x", color: "#222222", line: rim }),
      { x: [points[place][0]], y: [points[place][1]], mode: "markers", name: "this sample", marker: ring, hoverinfo: "skip" },
    ];
    const size = member.plane.size;
    const range = [-0.02 * size, 1.02 * size];
    return [traces, layout(axis("x", { range, constrain: "domain", showgrid: false, zeroline: false }),
      axis("y", { range, scaleanchor: "x", constrain: "domain", showgrid: false, zeroline: false }),
      { hovermode: "closest", dragmode: false, height: 480, clickmode: "event" })];
  }

  const away = (k, x, y) => Math.hypot(member.samples.points[k][0] - x, member.samples.points[k][1] - y);
  const nearest = (among, x, y) => among.reduce((best, k) => (away(k, x, y) < away(best, x, y) ? k : best), among[0]);

  function steer(event) {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!direction) return;
    event.preventDefault();
    const [x, y] = member.samples.points[place];
    const ahead = places.filter((k) => {
      const [dx, dy] = [member.samples.points[k][0] - x, member.samples.points[k][1] - y];
      const along = dx * direction[0] + dy * direction[1];
      return along > 0 && along >= Math.abs(dx * direction[1]) + Math.abs(dy * direction[0]);
    });
    if (ahead.length) picked(nearest(ahead, x, y));
  }

  let ready = false;
  return (next, at, among) => {
    [member, place, places] = [next, at, among];
    if (member.plane === undefined) return;
    chart(where, content);
    if (ready) return;
    ready = true;
    where.on("plotly_click", ({ points: [point] }) => picked(nearest(places, point.x, point.y)));
    where.addEventListener("keydown", steer);
  };
}

function faded(tone, alpha) {
  const part = (k) => parseInt(tone.slice(k, k + 2), 16);
  return `rgba(${part(1)}, ${part(3)}, ${part(5)}, ${alpha})`;
}
