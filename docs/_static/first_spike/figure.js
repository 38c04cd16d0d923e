/* The interactive figure of the landing page: one neuron, whose input spikes can be dragged. */
"use strict";

(() => {
  const { solve, trace, edge } = window.firstSpike;
  const SPAN = 6, LATEST = 5, MOST = 3; // shown time, latest input, largest weight
  const TOP = { y: 22, height: 170, low: -0.7, high: 1.45 }, BOTTOM = { y: 226, height: 170, low: -MOST, high: MOST };
  const HEIGHT = 440, LEFT = 40, RIGHT = 14;
  const START = { times: [0.4, 1.0, 1.5, 3.2], weights: [1.6, -0.6, 2.5, 1.0], tau: 1, chosen: 2 };

  const state = structuredClone(START);
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
  const round = (x) => Math.round(x * 100) / 100;
  const text = (x) => (x === Infinity ? "∞" : x.toFixed(2).replace(/^-(0\.0*)$/, "$1").replace("-", "−"));
  const whole = (x) => text(x).replace(".00", "");
  const kind = (i, T) => (state.times[i] >= T ? "late" : state.weights[i] < 0 ? "down" : "up");

  const PAGE = `
    <svg class="drawing" height="${HEIGHT}" role="group" aria-label="Membrane and input spikes of one neuron">
      <defs>
        <pattern id="lost-lines" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
          <line class="lost-line" y2="7"></line>
        </pattern>
        <clipPath id="inside"><rect x="${LEFT}" y="${TOP.y}" height="${TOP.height}"></rect></clipPath>
      </defs>
      <g class="back"></g>
      <g class="handles">${START.times.map((_, i) => `
        <g class="handle" tabindex="0" role="slider" aria-valuemin="0" aria-valuemax="${LATEST}"
           aria-label="Input ${i + 1}: left and right change its time, up and down its weight">
          <circle r="22" fill="transparent"></circle><circle class="ring" r="14"></circle>
          <circle class="knob" r="10"></circle><text class="number" y="4">${i + 1}</text>
        </g>`).join("")}
      </g>
    </svg>
    <p class="said" aria-live="polite"></p>
    <div class="controls">
      <fieldset>
        <legend>tau_mem / tau_syn</legend>
        ${[1, 2, Infinity].map((ratio) => `
          <label><input type="radio" name="ratio" value="${ratio}">${whole(ratio)}</label>`).join("")}
        <label>other <input type="range" min="-2" max="4" step="0.05" aria-label="tau_mem / tau_syn"></label>
        <output></output>
      </fieldset>
      <button type="button" class="lose">Almost lose the spike</button>
      <button type="button" class="reset">Reset</button>
    </div>
    <table>
      <thead><tr><th scope="col">input</th><th scope="col">time t</th><th scope="col">weight w</th>
        <th scope="col">dT/dt</th><th scope="col">dT/dw</th></tr></thead>
      <tbody>${START.times.map((_, i) => `<tr><th scope="row">${i + 1}</th>
        <td><input type="number" min="0" max="${LATEST}" step="0.05" aria-label="time of input ${i + 1}"></td>
        <td><input type="number" min="${-MOST}" max="${MOST}" step="0.05" aria-label="weight of input ${i + 1}"></td>
        <td></td><td></td></tr>`).join("")}
      </tbody>
    </table>
    <p class="help">Drag an input: sideways for its time, up and down for its weight. Or focus it and use the arrow
      keys, with Shift for larger steps. In the hatched area, the chosen input would leave the neuron silent. Times are
      in units of tau_syn; the threshold is 1.</p>`;

  const root = document.createElement("figure");
  root.className = "first-spike";
  root.innerHTML = PAGE;
  const find = (name) => root.querySelector(name), all = (name) => [...root.querySelectorAll(name)];
  const svg = find("svg"), handles = all(".handle"), rows = all("tbody tr"), slider = find("[type=range]");
  let width = 720;

  const x = (t) => LEFT + (t / SPAN) * (width - LEFT - RIGHT);
  const y = (panel, value) => panel.y + ((panel.high - value) / (panel.high - panel.low)) * panel.height;
  const at = (px) => px.toFixed(1);
  const line = (name, x1, y1, x2, y2) => `<path class="${name}" d="M${at(x1)} ${at(y1)}L${at(x2)} ${at(y2)}"></path>`;
  const label = (name, px, py, said) => `<text class="${name}" x="${at(px)}" y="${at(py)}">${said}</text>`;

  /* The membrane from one time to another, as if there were no threshold. */
  function curve(name, from, to) {
    const steps = Math.max(1, Math.ceil((x(to) - x(from)) / 2)), points = [];
    for (let k = 0; k <= steps; k++) {
      const t = from + ((to - from) * k) / steps;
      const v = clamp(trace(state.times, state.weights, state.tau, t), TOP.low - 1, TOP.high + 1);
      points.push(`${at(x(t))} ${at(y(TOP, v))}`);
    }
    return `<path class="${name}" clip-path="url(#inside)" d="M${points.join("L")}"></path>`;
  }

  /* Where the chosen input leaves the neuron silent, by its time and weight. */
  function lost() {
    const columns = Math.round((x(LATEST) - x(0)) / 4), step = LATEST / columns, floor = BOTTOM.y + BOTTOM.height;
    const edges = Array.from({ length: columns }, (_, k) =>
      edge(state.times, state.weights, state.tau, state.chosen, (k + 0.5) * step, -MOST, MOST));
    const bars = edges.map((w, k) => {
      const left = at(x(k * step)), right = at(x((k + 1) * step));
      return w > -MOST ? `M${left} ${at(y(BOTTOM, Math.min(w, MOST)))}H${right}V${floor}H${left}Z` : "";
    });
    const room = edges.slice(columns / 4).every((w) => w > -2);
    const note = label("lost-note end", x(LATEST) - 6, floor - 8, `no spike with input ${state.chosen + 1} here`);
    return [`<path class="lost" d="${bars.join("")}"></path>`, room ? note : ""];
  }

  function background(T) {
    const [area, note] = lost(), parts = [`<rect class="paper" width="${width}" height="${HEIGHT}"></rect>`, area];
    for (let t = 0; t <= SPAN; t++) {
      for (const panel of [TOP, BOTTOM]) parts.push(line("grid", x(t), panel.y, x(t), panel.y + panel.height));
      parts.push(label("note middle", x(t), BOTTOM.y + BOTTOM.height + 16, t));
    }
    for (const [panel, value] of [[TOP, 0], [TOP, 1], [BOTTOM, -2], [BOTTOM, 0], [BOTTOM, 2]]) {
      parts.push(label("note end", LEFT - 6, y(panel, value) + 4, whole(value)));
    }
    for (const panel of [TOP, BOTTOM]) parts.push(line("axis", x(0), y(panel, 0), x(SPAN), y(panel, 0)));
    parts.push(line("threshold", x(0), y(TOP, 1), x(SPAN), y(TOP, 1)));
    parts.push(curve("membrane", 0, Math.min(T, SPAN)));
    if (T < SPAN) {
      const flip = x(T) > width - 90;
      parts.push(curve("after", T, SPAN), line("spike", x(T), y(TOP, 1), x(T), BOTTOM.y + BOTTOM.height));
      parts.push(`<circle class="spike-point" r="5" cx="${at(x(T))}" cy="${at(y(TOP, 1))}"></circle>`);
      const name = `spike-text${flip ? " end" : ""}`;
      parts.push(label(name, x(T) + (flip ? -8 : 8), TOP.y + TOP.height - 8, `T = ${text(T)}`));
    }
    parts.push(note, label("note end", x(SPAN), y(TOP, 1) - 6, "threshold"), label("note", LEFT, TOP.y - 8, "membrane"));
    parts.push(label("note", LEFT, BOTTOM.y - 8, "weights of the input spikes"));
    parts.push(label("note end", x(SPAN), HEIGHT - 8, "time in units of tau_syn"));
    state.times.forEach((t, i) => {
      parts.push(line(`stem ${kind(i, T)}`, x(t), y(BOTTOM, 0), x(t), y(BOTTOM, state.weights[i])));
    });
    return parts.join("");
  }

  function said({ T, highest }) {
    const late = state.times.some((t) => t >= T) ? "Inputs after it (grey) do not matter." : "All inputs came earlier.";
    if (T < Infinity) return `<strong>First spike at T = ${text(T)}.</strong> ${late}`;
    const most = text(Math.floor(highest * 100) / 100); // 0.999 is not the threshold
    const membrane = highest > 0 ? `reaches only ${most} of the threshold 1` : "never rises";
    return `<strong>No spike: T = ∞.</strong> The membrane ${membrane}, and a silent neuron has no derivatives.`;
  }

  function cell(value) {
    if (value === null) return "none";
    const size = at(Math.min(Math.abs(value) / 4, 0.5) * 100), name = value < 0 ? "down" : "up";
    const bar = `width:${size}%;${value < 0 ? "right" : "left"}:50%;background:var(--${name})`;
    return `${text(value)}<span class="bar" aria-hidden="true"><i style="${bar}"></i></span>`;
  }

  function draw() {
    const solution = solve(state.times, state.weights, state.tau), { T, byTime, byWeight } = solution;
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    find("#inside rect").setAttribute("width", Math.max(0, x(SPAN) - LEFT));
    find(".back").innerHTML = background(T);
    const message = said(solution);
    if (find(".said").innerHTML !== message) find(".said").innerHTML = message;
    state.times.forEach((t, i) => {
      const w = state.weights[i], fields = rows[i].querySelectorAll("input"), cells = rows[i].querySelectorAll("td");
      handles[i].setAttribute("transform", `translate(${at(x(t))} ${at(y(BOTTOM, w))})`);
      handles[i].classList.toggle("chosen", i === state.chosen);
      handles[i].querySelector(".knob").setAttribute("class", `knob ${kind(i, T)}`);
      handles[i].setAttribute("aria-valuenow", t);
      handles[i].setAttribute("aria-valuetext", `time ${text(t)}, weight ${text(w)}`);
      rows[i].toggleAttribute("aria-current", i === state.chosen);
      [t, w].forEach((value, k) => {
        if (document.activeElement !== fields[k]) fields[k].value = value.toFixed(2);
      });
      cells[2].innerHTML = cell(byTime && byTime[i]);
      cells[3].innerHTML = cell(byWeight && byWeight[i]);
    });
    all("[type=radio]").forEach((radio) => (radio.checked = Number(radio.value) === state.tau));
    if (state.tau < Infinity) slider.value = Math.log2(state.tau);
    slider.setAttribute("aria-valuetext", text(state.tau));
    find("output").textContent = state.tau < Infinity ? text(state.tau) : "no leak";
    find(".lose").disabled = !Number.isFinite(nearest());
  }

  /* A weight of the chosen input at which the spike is almost lost. */
  function nearest() {
    const { times, weights, tau, chosen } = state;
    return edge(times, weights, tau, chosen, times[chosen], -MOST, MOST - 0.02);
  }

  function move(i, t, w) {
    if (!Number.isFinite(t) || !Number.isFinite(w)) return;
    state.times[i] = round(clamp(t, 0, LATEST));
    state.weights[i] = round(clamp(w, -MOST, MOST));
    state.chosen = i;
    draw();
  }

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  handles.forEach((handle, i) => {
    let grip = null; // from the pointer to the middle of the handle
    const place = (event) => {
      const box = svg.getBoundingClientRect(), scale = width / box.width;
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    };
    handle.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const [px, py] = place(event);
      grip = [x(state.times[i]) - px, y(BOTTOM, state.weights[i]) - py];
      handle.setPointerCapture(event.pointerId);
      move(i, state.times[i], state.weights[i]);
    });
    handle.addEventListener("pointermove", (event) => {
      if (!grip) return;
      const [px, py] = place(event);
      const t = ((px + grip[0] - LEFT) / (width - LEFT - RIGHT)) * SPAN;
      move(i, t, BOTTOM.high - ((py + grip[1] - BOTTOM.y) / BOTTOM.height) * 2 * MOST);
    });
    for (const end of ["pointerup", "pointercancel"]) handle.addEventListener(end, () => (grip = null));
    handle.addEventListener("focus", () => move(i, state.times[i], state.weights[i]));
    handle.addEventListener("keydown", (event) => {
      const step = STEPS[event.key], size = event.shiftKey ? 0.25 : 0.05;
      if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      move(i, state.times[i] + step[0] * size, state.weights[i] + step[1] * size);
    });
  });
  rows.forEach((row, i) => {
    const fields = row.querySelectorAll("input");
    for (const field of fields) {
      field.addEventListener("input", () => move(i, fields[0].valueAsNumber, fields[1].valueAsNumber));
      field.addEventListener("blur", draw);
    }
  });
  const ratio = (tau) => { state.tau = tau; draw(); };
  all("[type=radio]").forEach((radio) => radio.addEventListener("change", () => ratio(Number(radio.value))));
  slider.addEventListener("input", () => ratio(2 ** slider.valueAsNumber));
  find(".lose").addEventListener("click", () => {
    state.weights[state.chosen] = Math.ceil(nearest() * 100 + 0.1) / 100;
    draw();
  });
  find(".reset").addEventListener("click", () => { Object.assign(state, structuredClone(START)); draw(); });

  const picture = document.querySelector('img[src$="first_spike.svg"]');
  if (!picture) return;
  (picture.closest("p") ?? picture).replaceWith(root);
  new ResizeObserver(() => {
    width = Math.max(280, svg.clientWidth || width);
    draw();
  }).observe(svg);
  width = svg.clientWidth || width;
  draw();
  root.dataset.ready = "";
})();
