// The decision map of the Yin-Yang plane, an image, on which a sample is chosen.

function decisionMap(picked) {
  const where = element("plane");
  let [member, place, places] = [null, 0, []];
  let ready = false;

  function dots(chosen, name, marker) {
    const { points, index, label: labels } = member.samples;
    return {
      x: chosen.map((k) => points[k][0]), y: chosen.map((k) => points[k][1]), customdata: chosen,
      text: chosen.map((k) => `sample ${index[k]}, ${label(member.classes[labels[k]])}`),
      mode: "markers", name, marker, hovertemplate: "%{text}<extra></extra>",
    };
  }

  function content() {
    const { label: labels, decision, points } = member.samples;
    const { image: source, size } = member.plane;
    const names = member.classes.map((name, k) => ({
      x: [null], y: [null], mode: "markers", name: label(name), marker: { symbol: "square", size: 12, color: colour(k) },
    }));
    const rim = { width: 1, color: "#ffffff" };
    const ring = { size: 18, color: "rgba(0,0,0,0)", symbol: "circle", line: { width: 4, color: "#ff2d95" } };
    const traces = [
      ...names,
      dots(places.filter((k) => labels[k] === decision[k]), "correct", { size: 5, color: "#222222", line: rim }),
      dots(places.filter((k) => labels[k] !== decision[k]), "wrong", { size: 11, symbol: "x", color: "#222222", line: rim }),
      { x: [points[place][0]], y: [points[place][1]], mode: "markers", name: "this sample", marker: ring, hoverinfo: "skip" },
    ];
    const how = { range: [-0.02 * size, 1.02 * size], constrain: "domain", showgrid: false, zeroline: false };
    const images = [{ source, xref: "x", yref: "y", x: 0, y: size, sizex: size, sizey: size, sizing: "stretch", layer: "below" }];
    return [traces, layout(axis("x", how), axis("y", { ...how, scaleanchor: "x" }),
      { images, hovermode: "closest", hoverdistance: -1, dragmode: false, height: 480, clickmode: "event" })];
  }

  return (next, at, among) => {
    [member, place, places] = [next, at, among];
    if (member.plane === undefined) return;
    chart(where, content);
    if (!ready) where.on("plotly_click", ({ points: [point] }) => picked(point.customdata));
    ready = true;
  };
}
