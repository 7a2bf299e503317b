// Filters the list of services by what is typed. Without it, the whole list is there.
const input = document.getElementById("q");
const rows = [...document.querySelectorAll("#services > li")];
const found = document.getElementById("found");
const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const filter = () => {
  const words = fold(input.value).split(/\s+/).filter(Boolean);
  let n = 0;
  for (const row of rows) {
    const name = fold(row.textContent);
    row.hidden = !words.every((word) => name.includes(word));
    n += row.hidden ? 0 : 1;
  }
  const text = n === 0 ? input.dataset.none : input.dataset.found.replace("{n}", n).replace("{all}", rows.length);
  found.textContent = words.length === 0 ? "" : text;
};
input.addEventListener("input", filter);
addEventListener("pageshow", filter); // the browser may have kept what was typed
input.closest("[role=search]").hidden = false;
