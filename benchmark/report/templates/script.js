(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const toggle = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const say = () => { toggle.textContent = isDark() ? "Light" : "Dark"; };
  toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; say(); });
  system.addEventListener("change", say);
  say();
  const table = document.querySelector("table.main");
  if (!table) return;
  const bodies = [...table.tBodies].filter((body) => body.classList.contains("rows"));
  const order = new Map(bodies.map((body) => [body, [...body.rows]]));
  const number = (row, column) => {
    const text = row.cells[column]?.dataset.v;
    return text === undefined ? NaN : Number(text);
  };
  const status = document.getElementById("sorted");
  table.tHead.querySelectorAll("button.sort").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const column = head.cellIndex;
      const before = head.getAttribute("aria-sort");
      const first = head.dataset.up === "1" ? "descending" : "ascending";
      const second = first === "descending" ? "ascending" : "descending";
      const now = before === first ? second : before === second ? "none" : first;
      table.tHead.querySelectorAll("th[aria-sort]").forEach((each) => each.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", now);
      for (const [body, rows] of order) {
        const sign = now === "descending" ? -1 : 1;
        const sorted = now === "none" ? rows : [...rows].sort((a, b) => {
          const one = number(a, column), other = number(b, column);
          if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other);
          return sign * (one - other);
        });
        body.append(...sorted);
      }
      table.classList.toggle("sorted", now !== "none");
      status.textContent = now === "none" ? "in the order of families" : `sorted by ${button.textContent}, ${now}`;
    });
  });
})();
