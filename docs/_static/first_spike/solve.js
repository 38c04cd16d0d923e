/* The first spike time of a neuron and its derivatives, as derived in docs/mathematics.md. Times are in units of
   tau_syn, the threshold is 1, and `tau` is tau_mem / tau_syn, which may be Infinity. */
"use strict";

window.firstSpike = (() => {
  const THRESHOLD = 1;

  /* Response of the membrane to an input of weight 1, a time s ago. */
  function kappa(s, tau) {
    const slow = Math.min(1, 1 / tau), gap = Math.abs(1 - 1 / tau);
    const factor = gap * s < 1e-12 ? s : -Math.expm1(-s * gap) / gap;
    return Math.exp(-s * slow) * factor;
  }

  /* Membrane and its slope a time s after a state: membrane v, current q. */
  const membrane = (v, q, s, tau) => v * Math.exp(-s / tau) + q * kappa(s, tau);
  const slope = (v, q, s, tau) => q * Math.exp(-s) - membrane(v, q, s, tau) / tau;

  /* Time after a state at which the membrane stops rising: 0 if it does not rise, Infinity if it never stops. */
  function peak(v, q, tau) {
    if (q <= 0 || q - v / tau <= 0) return 0;
    const gap = 1 - 1 / tau, rise = 1 - v / (tau * q);
    if (Math.abs(gap) < 1e-12) return rise;
    return gap * rise >= 1 ? Infinity : -Math.log1p(-gap * rise) / gap;
  }

  /* First time at which the membrane reaches the threshold within `length` of a state below it. While it rises it is
     concave, so Newton's method climbs from the left; halving helps where it is nearly flat. */
  function crossing(v, q, length, tau) {
    let low = 0, high = Math.min(length, peak(v, q, tau));
    if (high === Infinity) for (high = 1; high < 1024 && membrane(v, q, high, tau) < THRESHOLD; ) high *= 2;
    if (membrane(v, q, high, tau) < THRESHOLD) return Infinity;
    let s = 0;
    for (let step = 0; step < 200 && low < high; step++) {
      const above = membrane(v, q, s, tau) - THRESHOLD;
      if (above < 0) low = s;
      else high = s;
      let next = s - above / slope(v, q, s, tau);
      if (!(next > low && next < high)) next = (low + high) / 2;
      if (next === s || next === low || next === high) break;
      s = next;
    }
    return s;
  }

  /* Calls visit(start, v, q, length) for the state after each input, in order of time, until it returns true. */
  function scan(times, weights, tau, visit) {
    const order = [...times.keys()].filter((i) => times[i] < Infinity).sort((a, b) => times[a] - times[b]);
    let v = 0, q = 0;
    for (let k = 0; k < order.length; k++) {
      const start = times[order[k]], last = k + 1 === order.length;
      const length = last ? Infinity : times[order[k + 1]] - start;
      q += weights[order[k]];
      if (visit(start, v, q, length) || last) return;
      v = membrane(v, q, length, tau);
      q *= Math.exp(-length);
    }
  }

  function time(times, weights, tau) {
    let found = Infinity;
    scan(times, weights, tau, (start, v, q, length) => {
      found = start + crossing(v, q, length, tau);
      return found < Infinity;
    });
    return found;
  }

  /* The highest value of a membrane that does not spike. */
  function highest(times, weights, tau) {
    let found = 0;
    scan(times, weights, tau, (start, v, q, length) => {
      const s = Math.min(length, peak(v, q, tau));
      found = Math.max(found, s < Infinity ? membrane(v, q, s, tau) : tau === Infinity ? v + q : 0);
    });
    return found;
  }

  /* Membrane at a time, as if there were no threshold. */
  function trace(times, weights, tau, t) {
    return times.reduce((sum, at, i) => (at < t ? sum + weights[i] * kappa(t - at, tau) : sum), 0);
  }

  /* Spike time T, and its derivatives by each input time and weight; null for a silent neuron, which has none. */
  function solve(times, weights, tau) {
    const T = time(times, weights, tau);
    if (T === Infinity) return { T, byTime: null, byWeight: null, highest: highest(times, weights, tau) };
    const causal = times.map((at) => at < T);
    const current = times.reduce((sum, at, i) => (causal[i] ? sum + weights[i] * Math.exp(at - T) : sum), 0);
    const rate = current - THRESHOLD / tau;
    const response = times.map((at, i) => (causal[i] ? kappa(T - at, tau) : 0));
    return {
      T,
      byTime: times.map((at, i) => (causal[i] ? (weights[i] * (Math.exp(at - T) - response[i] / tau)) / rate : 0)),
      byWeight: response.map((x) => (x ? -x / rate : 0)),
      highest: THRESHOLD,
    };
  }

  /* The weight of input i at time t below which the neuron is silent: -Infinity or Infinity if it never or always is
     between `least` and `most`. A higher weight never lowers the membrane, so that it can be found by halving. */
  function edge(times, weights, tau, i, t, least, most) {
    const at = times.with(i, t);
    const spikes = (w) => time(at, weights.with(i, w), tau) < Infinity;
    if (spikes(least)) return -Infinity;
    if (!spikes(most)) return Infinity;
    let low = least, high = most;
    for (let step = 0; step < 40 && high - low > 1e-6; step++) {
      const middle = (low + high) / 2;
      if (spikes(middle)) high = middle;
      else low = middle;
    }
    return high;
  }

  return { solve, trace, edge };
})();
