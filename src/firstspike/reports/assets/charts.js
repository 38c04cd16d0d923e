// Charts that follow the light or dark scheme of the browser.

const scheme = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)");
// The colours of the figures (firstspike.plots.look); in the dark scheme dark ones are light.
const COLOURS = ["#0072B2", "#E69F00", "#222222", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#8452EA", "#593B00", "#EA004E"];
const DARK_COLOURS = ["#4DA6E8", "#E69F00", "#A8ADB5", "#9AD4F7", "#F0793A", "#2BC79A", "#E39AC4", "#B49BFF", "#B98D4F", "#FF5C8D"];
const DASHES = ["solid", "dash", "dot", "dashdot", "5px,2px", "9px,2px,2px,2px"];
const FONT = "system-ui, sans-serif";
const makers = new Map(); // chart element -> function that gives its content

const colour = (index) => (scheme.matches ? DARK_COLOURS : COLOURS)[index % COLOURS.length];
const dash = (index) => DASHES[(index + Math.floor(index / COLOURS.length)) % DASHES.length];
const shown = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Plotly reads labels as a kind of HTML.
const label = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

// Of any number of values: arguments of Math.max are limited.
const smallest = (values) => values.reduce((found, value) => Math.min(found, value), Infinity);
const largest = (values) => values.reduce((found, value) => Math.max(found, value), -Infinity);

function timeLabel(unit, what = "time") {
  return `${what} [${typeof unit === "string" ? label(unit) : `τ<sub>syn</sub>${unit === 1 ? "" : `/${unit}`}`}]`;
}

function axis(title, more = {}) {
  const line = shown("--line");
  return { title: { text: title }, gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...more };
}

function layout(x, y, more = {}) {
  const text = shown("--text");
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: text, size: 13, family: FONT },
    hoverlabel: { bgcolor: shown("--panel"), bordercolor: shown("--line"), font: { color: text, family: FONT } },
    margin: { l: 55, r: 15, t: 30, b: 45 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    dragmode: touch.matches ? false : "zoom",
    xaxis: x,
    yaxis: y,
    ...more,
  };
}

// `content()` gives [traces, layout]; it is called again by `refresh` and when the scheme changes.
function chart(where, content) {
  makers.set(where, content);
  refresh(where);
}

function refresh(where) {
  const [traces, how] = makers.get(where)();
  Plotly.react(where, traces, how, { displayModeBar: false, responsive: true });
}

scheme.addEventListener("change", () => makers.forEach((_, where) => refresh(where)));
