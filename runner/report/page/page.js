"use strict";
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const order = ["auto", "light", "dark"];
  let kept = null;
  try { kept = localStorage.getItem("qrun-theme"); } catch { /* a page from a file may keep nothing */ }
  const show = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", theme);
    button.textContent = "Theme: " + theme;
    button.dataset.now = theme;
    try { localStorage.setItem("qrun-theme", theme); } catch { /* as above */ }
  };
  button.hidden = false;
  show(order.includes(kept) ? kept : "auto");
  button.addEventListener("click", () => show(order[(order.indexOf(button.dataset.now) + 1) % order.length]));

  const value = (row, column) => {
    const cell = row.cells[column];
    if (!cell || !("order" in cell.dataset)) return null;
    return cell.classList.contains("number") ? Number(cell.dataset.order) : cell.dataset.order;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number")
    ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const first = [...table.tBodies[0].rows];
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now === "ascending" ? "descending" : now === "descending" ? "none" : "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        const rows = [...first];
        if (next !== "none") {
          const sign = next === "ascending" ? 1 : -1;
          rows.sort((x, y) => {
            const a = value(x, column), b = value(y, column);
            // What there is nothing of stands last, whichever way.
            if (a === null || b === null) return (a === null) - (b === null);
            return sign * compare(a, b);
          });
        }
        table.tBodies[0].append(...rows);
      });
    });
  }
})();
