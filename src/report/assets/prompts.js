// All prompts, with their best and worst candidate.

/** Best and worst candidate of each prompt by total, the first of equals; who was stopped early is neither. */
const extremes = index.prompts.map((prompt) => {
  const total = (row) => table.scores[4][row];
  const all = rowsOf(prompt);
  const judged = all.filter((row) => total(row) !== null);
  const rows = judged.length > 0 ? judged : all;
  const best = rows.reduce((a, b) => (total(b) > total(a) ? b : a));
  const worst = rows.reduce((a, b) => (total(b) < total(a) ? b : a));
  return { best, worst, spread: judged.length > 0 ? total(best) - total(worst) : null };
});

const pairOfPrompt = new Map(index.pairs.map(([win, lose]) => [table.prompt[win], { win, lose }]));

/** The two candidates of a prompt that are looked at first: its pair, else best and worst. */
function firstPair(position) {
  const pair = pairOfPrompt.get(position);
  return pair ? [pair.win, pair.lose] : [extremes[position].best, extremes[position].worst];
}

function compareLink(left, right, text) {
  return el("a", { href: `#/compare/${idOf(left)}/${idOf(right)}` }, text);
}

function promptsView(section) {
  const total = (row) => table.scores[4][row];
  const candidateCell = (row) => el("td", { class: "n" }, shownScore(total(row), fixed2), " ", el("a", { href: `#/candidate/${idOf(row)}`, "aria-label": `candidate ${idOf(row)}` }, idOf(row)));
  const list = dataTable({
    caption: "Prompts",
    noun: ["prompt", "prompts"],
    sort: { column: 0, falling: false },
    columns: [
      { label: "Prompt", value: (p) => p, cell: (p) => el("th", { scope: "row" }, index.prompts[p].idx) },
      { label: "Question", value: questionRank, cell: (p) => questionCell(index.prompts[p]) },
      { label: "Document characters", numeric: true, falling: true, value: (p) => index.prompts[p].chars, cell: (p) => numberCell(index.prompts[p].chars.toLocaleString("en")) },
      { label: "Candidates", numeric: true, falling: true, value: (p) => index.prompts[p].count, cell: (p) => numberCell(index.prompts[p].count) },
      { label: "Best", numeric: true, falling: true, value: (p) => total(extremes[p].best), cell: (p) => candidateCell(extremes[p].best) },
      { label: "Worst", numeric: true, falling: true, value: (p) => total(extremes[p].worst), cell: (p) => candidateCell(extremes[p].worst) },
      { label: "Spread", numeric: true, falling: true, value: (p) => extremes[p].spread, cell: (p) => scoreCell(extremes[p].spread, 40, fixed2) },
      { label: index.pairs_from_file ? "Pair" : "Side by side", value: (p) => (pairOfPrompt.has(p) ? 0 : 1), cell: pairCell },
    ],
  });

  function pairCell(p) {
    if (index.prompts[p].count < 2) return cell("–");
    const [left, right] = firstPair(p);
    if (left === right) return cell("all equal");
    return cell([compareLink(left, right, "Compare"), index.pairs_from_file && !pairOfPrompt.has(p) ? " (not paired)" : null]);
  }

  const words = el("input", { type: "search", id: "prompt-search", autocomplete: "off", oninput: filter });
  const say = quietly(() => announce(plural(found, "prompt", "prompts") + " found"), 400);
  let found = 0;
  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
    const meets = (prompt) => wanted.every((word) => prompt.idx === word || prompt.query.toLowerCase().includes(word));
    const rows = index.prompts.map((_, p) => p).filter((p) => meets(index.prompts[p]));
    found = rows.length;
    list.show(rows);
    say();
  }
  const form = el("form", { class: "filters", role: "search", "aria-label": "Prompts", onsubmit: (event) => event.preventDefault() },
    el("div", { class: "search" }, el("label", { for: "prompt-search" }, "Search questions"), words));
  section.replaceChildren(el("h1", { id: "prompts-title", tabindex: -1 }, "Prompts"), form, list.element);
  list.show(index.prompts.map((_, p) => p));
}
