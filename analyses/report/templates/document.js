// Downloads, and the evidence on a part as a window above the page. Without this script its links lead to the end of the page.
"use strict";
(() => {
  const light = { "--ink": "#22252a", "--soft": "#626870", "--line": "#e2e0d9", "--card": "#ffffff", "--accent": "#2f6299" };

  function save(text, name, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function unpacked(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), c => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  // The patterns of all heads of an item: queries downwards, keys to the right, as dark as the attention is high.
  function patterns({ tokens, attention, attentionHeadNames: names }) {
    const cell = 11, n = tokens.length, margin = 14 + 6 * Math.max(...tokens.map(token => token.length));
    const side = margin + cell * n + 16, above = 24, columns = Math.min(4, names.length);
    const add = (to, name, attributes, text = "") => {
      const one = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
      one.textContent = text;
      return to.appendChild(one);
    };
    const size = { width: columns * side, height: Math.ceil(names.length / columns) * (side + above) };
    const svg = add(document.createDocumentFragment(), "svg", { ...size, "font-family": "sans-serif", "font-size": 9 });
    add(svg, "rect", { ...size, fill: "#ffffff" });
    names.forEach((name, h) => {
      const head = add(svg, "g", { transform: `translate(${side * (h % columns)} ${(side + above) * Math.floor(h / columns)})` });
      add(head, "text", { x: margin, y: 14, "font-size": 12, "font-weight": 600 }, name);
      tokens.forEach((token, q) => {
        const [x, y] = [margin + cell * (q + 0.75), above + cell * (q + 0.75)];
        add(head, "text", { x: margin - 4, y, "text-anchor": "end" }, token);
        const below = above + cell * n + 4;
        add(head, "text", { x, y: below, transform: `rotate(-90 ${x} ${below})`, "text-anchor": "end" }, token);
        attention[h][q].forEach((share, k) => {
          const at = { x: margin + cell * k, y: above + cell * q, width: cell - 1, height: cell - 1 };
          if (share > 0.004) add(head, "rect", { ...at, fill: "#1f5388", "fill-opacity": share });
        });
      });
    });
    return svg;
  }

  for (const tools of document.querySelectorAll(".tools")) tools.hidden = false;
  document.addEventListener("click", async event => {
    const button = event.target.closest("button");
    if (button?.dataset.csv) save(await unpacked(button.dataset.csv), button.dataset.csv.replace(/-csv$/, ".csv"), "text/csv");
    if (button?.dataset.attention) {
      const data = JSON.parse(document.getElementById(button.dataset.attention + "-data").textContent);
      save(new XMLSerializer().serializeToString(patterns(data)), button.dataset.attention + ".svg", "image/svg+xml");
    }
    if (button?.dataset.svg) {
      const text = new XMLSerializer().serializeToString(document.getElementById(button.dataset.svg));
      save(text.replace(/var\((--\w+)\)/g, (whole, name) => light[name] ?? whole), button.dataset.svg + ".svg", "image/svg+xml");
    }
  });

  // ---- evidence ------------------------------------------------------------------------------------------------------
  const dialog = document.createElement("dialog");
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.className = "close";
  dialog.append(close);
  document.body.append(dialog);
  let place = null;

  function open(section, label) {
    if (dialog.open) dialog.close();
    place = document.createComment("evidence");
    section.replaceWith(place);
    dialog.append(section);
    dialog.setAttribute("aria-label", label);
    dialog.showModal();
    dialog.scrollTop = 0;
  }

  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { place?.replaceWith(dialog.querySelector(".evidence")); place = null; });
  document.addEventListener("click", event => {
    const link = event.target.closest("a");
    const target = (link?.getAttribute("href") ?? "").slice(1);
    const section = target.startsWith("evidence-") && document.getElementById(target);
    if (!section || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    open(section, section.getAttribute("aria-label"));
  });

  // One cell of a map is in the order of the tabulator; arrows move from cell to cell.
  for (const cells of document.querySelectorAll(".cells")) {
    const links = [...cells.querySelectorAll(":scope > a")];
    links.forEach((link, n) => link.setAttribute("tabindex", n ? "-1" : "0"));
    cells.addEventListener("keydown", event => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      const from = event.target.closest("a");
      if (!step || !from) return;
      const [row, column] = [+from.dataset.row + step[0], +from.dataset.column + step[1]];
      const to = cells.querySelector(`a[data-row="${row}"][data-column="${column}"]`);
      if (!to) return;
      event.preventDefault();
      from.setAttribute("tabindex", "-1");
      to.setAttribute("tabindex", "0");
      to.focus();
    });
  }
  if (!document.querySelector("[data-library]")) document.body.dataset.state = "ready";
})();
