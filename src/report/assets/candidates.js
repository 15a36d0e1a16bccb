// All candidates: to search, filter and sort.

/** Faithfulness and total are fractions, the others whole as a rule. */
const WRITTEN = [tidy, tidy, fixed2, tidy, fixed2];

function candidatesTable() {
  const score = (i) => ({
    label: SCORES[i],
    numeric: true,
    falling: true,
    value: (row) => table.scores[i][row],
    cell: (row) => scoreCell(table.scores[i][row], i === 4 ? 40 : 10, WRITTEN[i]),
  });
  return dataTable({
    caption: "Candidates",
    noun: ["candidate", "candidates"],
    sort: { column: 0, falling: false },
    columns: [
      { label: "Candidate", value: (row) => row, cell: (row) => el("th", { scope: "row" }, el("a", { href: `#/candidate/${idOf(row)}` }, idOf(row))) },
      { label: "Question", value: (row) => questionRank(table.prompt[row]), cell: (row) => questionCell(promptOf(row)) },
      ...SCORES.map((_, i) => score(i)),
      { label: "Statements", numeric: false, falling: true, value: statements, cell: (row) => cell(statements(row) === null ? "–" : supportCounts(row)) },
      { label: "Characters", numeric: true, falling: true, value: (row) => table.chars[row], cell: (row) => numberCell(table.chars[row].toLocaleString("en")) },
      { label: "Replies", numeric: true, falling: true, value: (row) => table.replies[row], cell: (row) => numberCell(table.replies[row]) },
      { label: "Notes", falling: true, value: (row) => table.forced[row] + 2 * stopped(row), cell: (row) => cell(tags(row)) },
    ],
  });
}

const stopped = (row) => Number(table.stopped[row] !== null);

function tags(row) {
  const tag = (text) => [el("span", { class: "tag" }, text), " "];
  return [table.forced[row] ? tag("forced") : null, stopped(row) ? tag("stopped early") : null];
}

const statements = (row) => table.scores[2][row] === null ? null : table.support[0][row] + table.support[1][row] + table.support[2][row];

/** A range filter: two inputs that are empty, or bound a score. */
function rangeFilter(name, most, change) {
  const input = (label) => el("input", { type: "number", min: 0, max: most, step: "any", "aria-label": `${name}, ${label}`, oninput: change });
  const [low, high] = [input("at least"), input("at most")];
  const bound = (field, otherwise) => (field.value === "" || Number.isNaN(Number(field.value)) ? otherwise : Number(field.value));
  return {
    element: el("fieldset", { class: "pair" }, el("legend", {}, name), el("div", {}, low, el("span", { "aria-hidden": "true" }, "to"), high)),
    bounds: () => [bound(low, -Infinity), bound(high, Infinity)],
  };
}

/** What can be asked of a row's notes. */
const NOTES = {
  any: () => true,
  forced: (row) => table.forced[row] === 1,
  "not forced": (row) => table.forced[row] === 0,
  "stopped early": (row) => stopped(row) === 1,
  "judged to the end": (row) => stopped(row) === 0,
};

/** The rows that meet all filters. */
function matchingRows({ words, ranges, note }) {
  const texts = words.length > 0 ? searchTexts() : null;
  const active = ranges.map(([low, high], i) => [table.scores[i], low, high]).filter(([, low, high]) => low > -Infinity || high < Infinity);
  const rows = [];
  for (let row = 0; row < table.k.length; row += 1) {
    if (!note(row)) continue;
    if (active.some(([scores, low, high]) => scores[row] === null || scores[row] < low || scores[row] > high)) continue;
    if (texts !== null) {
      const { id, query, answer } = texts[row];
      if (!words.every((word) => id === word || query.includes(word) || answer.includes(word))) continue;
    }
    rows.push(row);
  }
  return rows;
}

/** Calls `f` once things have been quiet for a while. */
function quietly(f, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(f, milliseconds);
  };
}

function candidatesView(section) {
  const list = candidatesTable();
  const say = quietly(() => announce(plural(found, "candidate", "candidates") + " found"), 400);
  let found = 0;
  const search = el("input", { type: "search", id: "search", autocomplete: "off", placeholder: "Words of the question or answer, or an id", oninput: filter });
  const names = table.stopped.some((bounds) => bounds !== null) ? Object.keys(NOTES) : Object.keys(NOTES).slice(0, 3);
  const notes = el("select", { id: "notes", onchange: filter }, names.map((name) => el("option", { value: name }, name)));
  const ranges = SCORES.map((name, i) => rangeFilter(name, i === 4 ? 40 : 10, filter));

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
    const rows = matchingRows({ words, ranges: ranges.map((range) => range.bounds()), note: NOTES[notes.value] });
    found = rows.length;
    list.show(rows);
    say();
  }

  const clear = el("button", { type: "reset" }, "Clear filters");
  const form = el("form", { class: "filters", role: "search", "aria-label": "Candidates", onreset: () => setTimeout(filter), onsubmit: (event) => event.preventDefault() },
    el("div", { class: "search" }, el("label", { for: "search" }, "Search"), search),
    ranges.map((range) => range.element),
    el("div", {}, el("label", { for: "notes" }, "Verdicts"), notes),
    clear);
  section.replaceChildren(el("h1", { id: "candidates-title", tabindex: -1 }, "Candidates"), form, list.element);
  list.show(table.k.map((_, row) => row));
}
