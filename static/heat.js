// Arrow keys on the heat map; the tab key stops once a group (the server gives the others tabindex -1).

function target(cells, now, key) {
  const rows = Math.max(1, cells.findIndex((cell) => cell.offsetTop > cells[0].offsetTop));
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: rows, ArrowUp: -rows }[key];
  if (by !== undefined) return cells[now + by];
  return { Home: cells[0], End: cells[cells.length - 1] }[key];
}

export function startHeat() {
  document.addEventListener("keydown", (event) => {
    const group = event.target.closest?.("[data-cells]");
    if (!group || event.ctrlKey || event.metaKey || event.altKey) return;
    const cells = [...group.children];
    const next = target(cells, cells.indexOf(event.target), event.key);
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}
