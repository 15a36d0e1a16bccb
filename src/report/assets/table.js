// A table that sorts and shows a page of its rows at a time, so that it is as fast with ten
// thousand rows as with ten, and no row is hidden from a search or a screen reader halfway.

const PAGE = 50;

/**
 * Columns are { label, value(row) → number to sort by or null, cell(row) → td or th, numeric, falling },
 * where `falling` sorts the largest first at the first click. `noun` is [one, many].
 */
function dataTable({ caption, columns, noun, sort }) {
  const state = { rows: [], sorted: [], page: 0, sort };
  const body = el("tbody");
  const signs = columns.map(() => el("span", { class: "sign", "aria-hidden": "true" }));
  const heads = columns.map((column, i) => {
    const label = column.numeric ? [signs[i], column.label] : [column.label, signs[i]];
    const button = el("button", { type: "button", onclick: () => sortBy(i) }, label);
    return el("th", { scope: "col", class: column.numeric ? "n" : null }, button);
  });
  const count = el("span", { class: "count" });
  const step = (label, by) => el("button", { type: "button", onclick: () => turn(by()) }, label);
  const [first, back] = [step("First", () => 0), step("Back", () => state.page - 1)];
  const [next, last] = [step("Next", () => state.page + 1), step("Last", () => pages() - 1)];
  const number = el("input", { type: "number", min: 1, "aria-label": "Page", onchange: () => turn(Number(number.value) - 1) });
  const of = el("span");
  const pager = el("div", { class: "pager", role: "group", "aria-label": "Pages" }, count, first, back, el("span", {}, "Page "), number, of, next, last);
  const head = el("thead", {}, el("tr", {}, heads));
  const view = el("table", { class: "rows" }, el("caption", { class: "unseen" }, caption), head, body);

  const pages = () => Math.max(1, Math.ceil(state.sorted.length / PAGE));

  function sortBy(i) {
    const same = state.sort.column === i;
    state.sort = { column: i, falling: same ? !state.sort.falling : Boolean(columns[i].falling) };
    order();
    state.page = 0;
    draw();
    announce(`Sorted by ${columns[i].label}, ${state.sort.falling ? "falling" : "rising"}`);
  }

  function order() {
    const { column, falling } = state.sort;
    const sign = falling ? -1 : 1;
    const keys = [];
    // What has no value stands last, whichever way it is sorted.
    for (const row of state.rows) {
      const value = columns[column].value(row);
      keys[row] = value === null ? Infinity : sign * value;
    }
    state.sorted = [...state.rows].sort((a, b) => keys[a] - keys[b] || a - b);
  }

  function turn(page) {
    state.page = Math.min(Math.max(0, page || 0), pages() - 1);
    draw();
    announce(count.textContent);
  }

  function draw() {
    const from = state.page * PAGE;
    const rows = state.sorted.slice(from, from + PAGE);
    body.replaceChildren(...rows.map((row) => el("tr", {}, columns.map((column) => column.cell(row)))));
    heads.forEach((cell, i) => {
      const { column, falling } = state.sort;
      if (i === column) cell.setAttribute("aria-sort", falling ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
      signs[i].textContent = i !== column ? "" : falling ? "▾" : "▴";
    });
    const shown = rows.length === 0 ? "" : `, ${(from + 1).toLocaleString("en")} to ${(from + rows.length).toLocaleString("en")} shown`;
    count.textContent = plural(state.sorted.length, ...noun) + shown;
    number.value = state.page + 1;
    number.max = pages();
    of.textContent = `of ${pages()}`;
    first.disabled = back.disabled = state.page === 0;
    next.disabled = last.disabled = state.page >= pages() - 1;
  }

  /** Shows these rows, from the first page on. */
  function show(rows) {
    state.rows = rows;
    state.page = 0;
    order();
    draw();
  }

  const scroll = el("div", { class: "scroll table" }, view);
  return { element: el("div", {}, pager, scroll), show };
}

const cell = (content, classes = null) => el("td", { class: classes }, content);
const numberCell = (content) => cell(content, "n");

/** A score with a bar as long as its share of the most that it can be; a dash where there is none. */
function scoreCell(value, most, write = tidy) {
  if (value === null) return numberCell("–");
  const td = el("td", { class: "n score" }, write(value));
  td.style.setProperty("--v", `${(value / most) * 100}%`);
  return td;
}

/** The place of each prompt's question in alphabetical order. */
let questionRanks = null;
function questionRank(position) {
  if (questionRanks === null) {
    const collator = new Intl.Collator("en");
    const order = index.prompts.map((_, i) => i);
    order.sort((a, b) => collator.compare(index.prompts[a].query, index.prompts[b].query));
    questionRanks = [];
    order.forEach((prompt, rank) => (questionRanks[prompt] = rank));
  }
  return questionRanks[position];
}

function questionCell(prompt) {
  return el("td", { class: "question" }, el("span", { dir: "auto" }, prompt.query));
}
