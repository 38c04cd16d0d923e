// The inputs on which the decisions depend most, as a table with bars.

function effects(member) {
  const section = element("inputs");
  section.hidden = member.inputs === undefined;
  if (section.hidden) return;
  const { names, effects, of, samples } = member.inputs;
  element("inputs-said").textContent =
    `The ${names.length} of ${of} inputs on which the decisions of ${samples} ${member.split} samples depend most: ` +
    "mean absolute derivative of the margin by the time of the input.";
  const bar = (value) => make("meter", { max: effects[0], value });
  const rows = names.map((name, place) => [name, String(effects[place]), bar(effects[place])]);
  element("effects").replaceChildren(tableOf([["input", "mean |derivative|", ""], ...rows]));
}
