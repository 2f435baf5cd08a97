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

  for (const tools of document.querySelectorAll(".tools")) tools.hidden = false;
  document.addEventListener("click", async event => {
    const button = event.target.closest("button");
    if (button?.dataset.csv) save(await unpacked(button.dataset.csv), button.dataset.csv.replace(/-csv$/, ".csv"), "text/csv");
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
