// The plotting library and the data are in the page, compressed.

async function unpack(id) {
  const letters = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function start(main) {
  const problem = document.getElementById("problem");
  if (typeof DecompressionStream === "undefined") {
    problem.textContent = "This browser cannot unpack the page's data. Any browser of 2023 or later can.";
    problem.hidden = false;
    return;
  }
  const library = document.createElement("script");
  library.textContent = await unpack("library");
  document.head.append(library);
  main(JSON.parse(await unpack("data")));
  document.body.dataset.ready = "yes";
}
