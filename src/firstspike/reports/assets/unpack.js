// The plotting library and the data are in the page, compressed.

async function unpack(id) {
  const letters = atob(element(id).textContent);
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// The page's content security policy blocks styles in attributes and in elements that scripts add. What the plotting
// library writes into attributes is set as properties instead, which is allowed. It adds styles of maps to every page
// that lacks an element with their id; there are no maps here.
function allowStyles(library) {
  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style") this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
  const maps = library.match(/getElementById\("([0-9a-f]{64})"\)/);
  if (maps) document.head.append(make("meta", { id: maps[1] }));
}

async function start(main) {
  const problem = element("problem");
  if (typeof DecompressionStream === "undefined") {
    problem.textContent = "This browser cannot unpack the page's data. Any browser of 2023 or later can.";
    problem.hidden = false;
    return;
  }
  const library = document.createElement("script");
  library.textContent = await unpack("library");
  allowStyles(library.textContent);
  document.head.append(library);
  main(JSON.parse(await unpack("data")));
  document.body.dataset.ready = "yes";
}
