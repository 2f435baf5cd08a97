// Draws every figure of the page: an element with data-library, its data in the script element ID-data.
"use strict";
const nonce = document.currentScript.nonce;
const read = id => document.getElementById(id).textContent;
const dark = matchMedia("screen and (prefers-color-scheme: dark)");
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

async function load(library) {
  const bytes = Uint8Array.from(atob(read("library-" + library)), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.nonce = nonce;
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  script.remove();  // it has run
}

// Figures keep their own colours for data; ink, rules and background follow the page.
function inks(layout) {
  const colours = { "font.color": colour("--ink"), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": colour("--soft"), "modebar.activecolor": colour("--accent") };
  for (const axis of Object.keys(layout).filter(key => /^[xy]axis[0-9]*$/.test(key))) {
    colours[axis + ".gridcolor"] = colours[axis + ".zerolinecolor"] = colour("--line");
    colours[axis + ".linecolor"] = colours[axis + ".tickcolor"] = colour("--soft");
  }
  return colours;
}

const draw = {
  async plotly(element, figure) {
    // plotly shows a button that uploads the figure to a server unless it is told not to.
    const config = { displaylogo: false, showSendToCloud: false, plotlyServerURL: "", responsive: true,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg" } };
    await Plotly.newPlot(element, figure.data, figure.layout, config);
    const paint = () => Plotly.relayout(element, inks(element.layout));
    dark.addEventListener("change", paint);
    await paint();
  },
  async circuitsvis(element, props) { CircuitsVis.render(element.id, CircuitsVis.AttentionHeads, props); },
};

(async () => {
  const failed = (element, error) => {
    element.innerHTML = "<p class=waiting></p>";
    element.firstChild.textContent = "This figure could not be drawn: " + error.message;
  };
  for (const library of ["plotly", "circuitsvis"]) {
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
