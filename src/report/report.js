for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[head.cellIndex];
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (!x.textContent !== !y.textContent) return x.textContent ? -1 : 1;
      const way = down ? -1 : 1;
      return "n" in x.dataset && "n" in y.dataset
        ? way * (x.dataset.n - y.dataset.n)
        : way * x.textContent.localeCompare(y.textContent);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  });
}
