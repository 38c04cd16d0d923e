// The page of a run: its parts follow the chosen seed and the chosen sample.

start(({ members, unit, substrate }) => {
  const has = (part) => members.some((member) => member[part] !== undefined);
  let map = () => {};

  const choice = has("samples") && picker((member, place, places) => {
    map(member, place, places);
    drawInput(member, place, unit);
    drawRaster(member, place, unit);
    drawMembrane(member, place, unit, substrate === "exact");
  });
  if (has("plane") && has("samples")) map = decisionMap((place) => choice.pick(place));

  function show(number) {
    document.querySelectorAll("[data-member]").forEach((part) => { part.hidden = part.dataset.member !== String(number); });
    if (has("confusion")) confusion(members[number], (kind) => choice.choose(kind));
    if (choice) choice.open(members[number]);
  }

  show(0);
  element("member")?.addEventListener("change", (event) => show(event.target.value));
});
