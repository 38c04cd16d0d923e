// The sample that is shown: chosen by number, class or decision, or the next one.

function picker(changed) {
  const [filter, number] = [element("filter"), element("number")];
  let member = null;
  let places = []; // of the samples that pass the filter
  let place = 0; // the one that is shown

  const nameOf = (decision) => member.confusion?.decisions.at(decision) ?? String(decision); // the last is silent, -1

  function passes(kind, k) {
    const { label: labels, decision } = member.samples;
    const [what, truth, decided] = kind.split(" ");
    if (what === "wrong") return labels[k] !== decision[k];
    if (what === "class") return labels[k] === Number(truth);
    if (what === "cell") return labels[k] === Number(truth) && decision[k] === Number(decided);
    return true;
  }

  function options() {
    const { label: labels, decision } = member.samples;
    const kinds = new Map([["all", "all"], ["wrong", "wrong decisions"]]);
    member.classes.forEach((name, k) => kinds.set(`class ${k}`, `true class ${name}`));
    const cells = labels.map((truth, k) => [truth, decision[k]]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    cells.forEach(([truth, decided]) => kinds.set(`cell ${truth} ${decided}`, `${nameOf(truth)} → ${nameOf(decided)}`));
    filter.replaceChildren();
    for (const [kind, name] of kinds) {
      const count = labels.filter((_, k) => passes(kind, k)).length;
      if (count) filter.append(make("option", { value: kind }, `${name} (${count})`));
    }
  }

  function show() {
    const { index, label: labels, decision } = member.samples;
    number.value = index[place];
    const verdict = labels[place] === decision[place] ? "correct" : "wrong";
    element("sample-said").textContent =
      `Sample ${index[place]} of the ${member.split} data: true class ${nameOf(labels[place])}, decision ${nameOf(decision[place])}, ${verdict}.`;
    changed(member, place, places);
  }

  function choose(kind) {
    filter.value = kind;
    places = member.samples.index.map((_, k) => k).filter((k) => passes(kind, k));
    if (!places.includes(place)) place = places[0];
    show();
  }

  function step(by) {
    const here = places.indexOf(place);
    place = places[(here + by + places.length) % places.length];
    show();
  }

  filter.addEventListener("change", () => choose(filter.value));
  element("before").addEventListener("click", () => step(-1));
  element("after").addEventListener("click", () => step(1));
  number.addEventListener("change", () => {
    const away = member.samples.index.map((index) => Math.abs(index - Number(number.value)));
    place = away.indexOf(smallest(away));
    if (places.includes(place)) show();
    else choose("all");
  });

  return {
    choose(kind) {
      choose(kind);
      element("sample").scrollIntoView();
      filter.focus({ preventScroll: true });
    },
    pick(next) {
      place = next;
      show();
    },
    open(next) {
      member = next;
      element("sample").hidden = member.samples === undefined;
      if (element("sample").hidden) return;
      const { index, of } = member.samples;
      element("samples-said").textContent = index.length < of
        ? `${index.length} of ${of} ${member.split} samples are in this file: wrong decisions, at most half, and the first others.`
        : `All ${of} ${member.split} samples are in this file.`;
      number.max = index[index.length - 1];
      options();
      place = 0;
      choose("all");
    },
  };
}
