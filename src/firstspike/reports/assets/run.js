// The page of a run: its parts follow the slider, the chosen seed and the chosen sample.

start((data) => {
  const { members, tau } = data;
  const has = (part) => members.some((member) => member[part] !== undefined);
  const past = has("history") ? history(tau) : { epoch: () => null, show: () => {}, move: () => {} };
  let map = () => {};

  const choice = has("samples") && picker((member, place, places) => {
    map(member, place, places);
    drawInput(member, place, tau);
    drawRaster(member, place, tau);
    drawMembrane(member, place, tau, data.substrate === "exact");
  });
  if (has("plane") && has("samples")) map = decisionMap((place) => choice.pick(place));

  function show(member) {
    past.show(member);
    if (has("confusion")) confusion(member, (kind) => choice.choose(kind));
    if (has("inputs")) effects(member);
    if (choice) choice.open(member);
  }

  show(members[0]);
  if (has("curves")) curves(members, past.epoch);
  element("checkpoint")?.addEventListener("input", () => {
    past.move();
    if (has("curves")) ["accuracy", "loss"].forEach((id) => refresh(element(id)));
  });
  element("member")?.addEventListener("change", (event) => {
    show(members[Number(event.target.value)]);
    if (has("curves")) ["accuracy", "loss"].forEach((id) => refresh(element(id)));
  });
  document.querySelectorAll("table.sortable").forEach(sortable);
});
