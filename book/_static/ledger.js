// The ledger's filters, made from its rows: without this script the table is complete. The choice stands in the
// address (#paper=graceful&status=open), so that a filtered ledger can be linked to.

const table = document.querySelector("table.ledger");
if (table) {
  const rows = [...table.querySelectorAll("tr[data-paper]")];
  const keys = ["paper", "chapter", "said", "status", "scale"];
  const labels = { scale: "paper scale" };
  const unnamed = { chapter: "none yet" };

  const form = document.createElement("form");
  form.className = "ledger-filters";
  const selects = keys.map((key) => {
    const label = form.appendChild(document.createElement("label"));
    label.append(labels[key] || key);
    const select = label.appendChild(document.createElement("select"));
    select.name = key;
    const values = [...new Set(rows.map((row) => row.dataset[key]))].sort();
    select.append(new Option("all", "*"), ...values.map((value) => new Option(value || unnamed[key], value)));
    return select;
  });
  const tally = form.appendChild(document.createElement("output"));

  const passes = (row, except) =>
    selects.every((select) => select === except || select.value === "*" || row.dataset[select.name] === select.value);

  const show = () => {
    for (const row of rows) row.hidden = !passes(row);
    for (const section of table.tBodies) section.hidden = !section.querySelector("tr[data-paper]:not([hidden])");
    for (const select of selects) {
      const rest = rows.filter((row) => passes(row, select));
      for (const option of select.options) {
        const count = option.value === "*" ? rest.length : rest.filter((row) => row.dataset[select.name] === option.value).length;
        option.text = `${option.value === "*" ? "all" : option.value || unnamed[select.name]} (${count})`;
        option.disabled = count === 0 && !option.selected;
      }
    }
    tally.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims`;
  };

  const read = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    for (const select of selects) {
      const value = wanted.get(select.name);
      select.value = [...select.options].some((option) => option.value === value) ? value : "*";
    }
    show();
  };

  const write = () => {
    const chosen = selects.filter((select) => select.value !== "*").map((select) => [select.name, select.value]);
    history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
    show();
  };

  form.addEventListener("change", write);
  addEventListener("hashchange", read);
  table.closest(".ledger-box").before(form);
  read();
}
