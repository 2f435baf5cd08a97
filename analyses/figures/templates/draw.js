// Draws the attention patterns of the page: an element with data-library, its data in the script element ID-data.
"use strict";
const nonce = document.currentScript.nonce;
const read = id => document.getElementById(id).textContent;

// The library would try WebAssembly, which the policy refuses with a complaint, before it goes on without.
globalThis.WebAssembly = undefined;

async function load(library) {
  const bytes = Uint8Array.from(atob(read("library-" + library)), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.nonce = nonce;
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  script.remove();  // it has run
}

const draw = {
  async circuitsvis(element, props) { CircuitsVis.render(element.id, CircuitsVis.AttentionHeads, props); },
};

(async () => {
  const failed = (element, error) => {
    element.innerHTML = "<p class=waiting></p>";
    element.firstChild.textContent = "This figure could not be drawn: " + error.message;
  };
  for (const library of ["circuitsvis"]) {
    const views = [...document.querySelectorAll(`[data-library=${library}]`)];
    let trouble = null;
    if (views.length) await load(library).catch(error => { trouble = error; });
    for (const element of views) {
      try {
        if (trouble) throw trouble;
        element.textContent = "";
        await draw[library](element, JSON.parse(read(element.id + "-data")));
      } catch (error) { failed(element, error); }
    }
  }
  document.body.dataset.state = "ready";
})();
