"use strict";
{
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const by = (id) => document.getElementById(id);
  all(".tools, #theme").forEach((element) => (element.hidden = false));

  // Colours: as the system has them, or the one of the two that was asked for.
  const schemes = ["light dark", "light", "dark"];
  let scheme = 0;
  by("theme").addEventListener("click", () => {
    scheme = (scheme + 1) % schemes.length;
    document.documentElement.style.colorScheme = schemes[scheme];
  });

  // A link to a unit opens it.
  const open = () => {
    const target = location.hash.length > 1 && by(location.hash.slice(1));
    const folded = target && target.closest("details");
    if (!folded) return;
    folded.open = true;
    folded.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", open);
  open();
  for (const row of all("tr[data-to]")) {
    row.addEventListener("click", (event) => {
      if (event.target.closest("a") || String(getSelection())) return;
      location.hash = row.dataset.to;
    });
  }

  // Tables sort by the head that is clicked; groups stay together.
  for (const table of all("table.sortable")) {
    table.tHead.addEventListener("click", (event) => {
      const head = event.target.closest("th");
      if (!head) return;
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      const order = (a, b) => {
        const [x, y] = [a.cells[head.cellIndex], b.cells[head.cellIndex]];
        if (!x.textContent !== !y.textContent) return x.textContent ? -1 : 1;
        return "n" in x.dataset && "n" in y.dataset
          ? way * (x.dataset.n - y.dataset.n)
          : way * x.textContent.localeCompare(y.textContent, undefined, { numeric: true });
      };
      for (const body of table.tBodies) body.append(...all("tr[data-to]", body).sort(order));
    });
  }

  // Rows that hold every word.
  const filter = by("filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = all(".sortable tr[data-to]");
    for (const row of rows) {
      const text = all("td", row).map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    by("found").textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });

  // The matrix shows one figure at a time.
  const [metric, against] = [by("metric"), by("against")];
  const figure = (x) => {
    const a = Math.abs(x);
    if (a === 0) return "0";
    return a >= 99.95 ? x.toFixed(0) : a >= 9.995 ? x.toFixed(1) : a >= 0.9995 ? x.toFixed(2) : a >= 0.0005 ? x.toFixed(3) : x.toExponential(1);
  };
  const paint = () => {
    const higher = metric.selectedOptions[0].dataset.higher === "true";
    const whole = against.value === "all";
    by("scale").textContent = whole
      ? "Full colour is the best of the matrix, none is the worst."
      : "Full colour is the best of its column, none is twice as bad or worse.";
    for (const table of all("table.matrix")) {
      const value = (cell) => {
        const text = (cell.dataset.v || "").split(",")[metric.selectedIndex];
        return text && cell.classList.contains("ok") ? Number(text) : NaN;
      };
      const rows = [...table.tBodies[0].rows].map((row) => all("td", row));
      const best = (cells) => {
        const values = cells.map(value).filter((v) => v > 0);
        return values.length ? [Math.min(...values), Math.max(...values)] : [1, 1];
      };
      const everything = best(rows.flat());
      rows.forEach((cells) =>
        cells.forEach((cell, at) => {
          const link = cell.firstElementChild;
          const v = value(cell);
          if (!link || !cell.classList.contains("ok")) return;
          link.textContent = Number.isNaN(v) ? "–" : figure(v);
          const [low, high] = whole ? everything : best(rows.map((row) => row[at]));
          const away = Math.log2(higher ? high / v : v / low) / (whole ? Math.max(Math.log2(high / low), 1e-9) : 1);
          cell.style.setProperty("--heat", Number.isNaN(v) ? "0%" : `${Math.round(100 * (1 - Math.min(Math.max(away, 0), 1)))}%`);
        }),
      );
    }
  };
  if (metric) [metric, against].forEach((select) => select.addEventListener("change", paint));

  // Hover values of plots: a box of our own, because a browser's takes its time and a finger has none.
  const tip = by("tip");
  for (const hit of all(".hit")) {
    const title = hit.querySelector("title");
    hit.tipText = title.textContent;
    title.remove();
  }
  const show = (event) => {
    const text = event.target.tipText;
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const { innerWidth: w, innerHeight: h } = window;
    const [x, y] = [event.clientX + 14, event.clientY + 14];
    tip.style.left = `${Math.max(4, x + tip.offsetWidth > w - 4 ? event.clientX - tip.offsetWidth - 14 : x)}px`;
    tip.style.top = `${Math.max(4, y + tip.offsetHeight > h - 4 ? event.clientY - tip.offsetHeight - 14 : y)}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  addEventListener("scroll", () => (tip.hidden = true), { passive: true });

  // On paper everything is open but the units, which would be a book.
  addEventListener("beforeprint", () => all("details:not(.unit)").forEach((element) => (element.open = true)));
}
