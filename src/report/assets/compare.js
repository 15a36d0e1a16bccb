// Two candidates of one prompt beside each other, their differences marked.

function differenceTable(left, right) {
  const rows = SCORES.map((name, i) => {
    const [a, b] = [table.scores[i][left], table.scores[i][right]];
    return el("tr", {}, el("th", { scope: "row" }, name), numberCell(shownScore(a, fixed2)), numberCell(shownScore(b, fixed2)), numberCell(signed(a === null || b === null ? null : a - b)));
  });
  const more = (name, values, shown) => el("tr", {}, el("th", { scope: "row" }, name), cell(shown(left), "n"), cell(shown(right), "n"), numberCell(values ? signed(values[left] - values[right]).replace(".00", "") : null));
  const head = ["", idOf(left), idOf(right), "Difference"].map((text, i) => (i === 0 ? el("td") : el("th", { scope: "col", class: "n" }, text)));
  return el("table", { class: "data both" }, el("caption", { class: "unseen" }, "Scores of both"), el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, rows, more("Characters", table.chars, (row) => table.chars[row].toLocaleString("en")), more("Statements", null, (row) => (table.scores[2][row] === null ? "–" : supportCounts(row)))));
}

function markedText(runs, mark) {
  return el("div", { class: "text", dir: "auto" }, runs.map((run) => (run.same ? run.text : el(mark, {}, run.text))));
}

const totalText = (row) => (table.scores[4][row] === null ? "stopped early" : `${tidy(table.scores[4][row])} of 40`);

function side(row, runs, mark, verdicts) {
  const statements = verdicts.statements.map((statement) => {
    const degree = supportOf(statement);
    return el("li", {}, el("span", { class: `label ${degree.kind}` }, degree.name), " ", el("span", { dir: "auto" }, statement.fact));
  });
  return el("div", { class: "side" },
    el("h3", {}, el("a", { href: `#/candidate/${idOf(row)}` }, `Candidate ${idOf(row)}`), ` · ${totalText(row)}`),
    el("div", { class: "box" }, markedText(runs, mark)),
    el("h3", {}, "Statements"),
    statements.length > 0 ? el("ul", {}, statements) : el("p", { class: "small" }, verdicts.faithfulness ? "States no fact." : "Not judged: this answer was stopped early."));
}

/** The share of the words of both texts that stand in both. */
function sharedWords(both) {
  const count = (runs, same) => runs.filter((run) => same === null || run.same === same).reduce((sum, run) => sum + words(run.text).filter((word) => /[\p{L}\p{N}]/u.test(word)).length, 0);
  const all = both.reduce((sum, runs) => sum + count(runs, null), 0);
  const same = both.reduce((sum, runs) => sum + count(runs, true), 0);
  return all === 0 ? 1 : same / all;
}

function chooser(label, id, row, prompt, change) {
  const option = (other) => el("option", { value: idOf(other), selected: other === row }, `${idOf(other)} · ${totalText(other)}`);
  const choose = (event) => {
    // Whoever goes through the list by keyboard stays in it.
    focusNext = id;
    change(event.target.value);
  };
  return el("label", {}, label, el("select", { id, onchange: choose }, rowsOf(prompt).map(option)));
}

async function compareView(section, leftId, rightId) {
  const [left, right] = [rowOf(leftId), rowOf(rightId)];
  if (left === undefined) return missing(section, "candidate", leftId);
  if (right === undefined || table.prompt[left] !== table.prompt[right]) return missing(section, "candidate of the same prompt:", rightId ?? "none given");
  const prompt = promptOf(left);
  const { candidates } = await block(table.prompt[left]);
  const runs = difference(answers()[left], answers()[right]);
  const go = (a, b) => (location.hash = `#/compare/${a}/${b}`);
  const sides = el("div", { class: "columns" },
    side(left, runs[0], "del", candidates[left - prompt.first]),
    side(right, runs[1], "ins", candidates[right - prompt.first]));
  const check = el("input", { type: "checkbox", id: "marks", checked: true, onchange: () => sides.classList.toggle("unmarked", !check.checked) });
  section.replaceChildren(
    el("nav", { class: "crumbs", "aria-label": "Back" }, el("a", { href: "#/prompts" }, "All prompts"), el("span", {}, `Prompt ${prompt.idx}`)),
    el("h1", { id: "compare-title", tabindex: -1 }, `${leftId} against ${rightId}`),
    el("div", { class: "box question-text", tabindex: 0, role: "group", "aria-label": "Question" }, foreign(prompt.query)),
    el("div", { class: "choose" },
      chooser("Left", "compare-left", left, prompt, (id) => go(id, rightId)),
      chooser("Right", "compare-right", right, prompt, (id) => go(leftId, id)),
      el("label", { class: "check" }, check, " Mark differences"),
      el("span", { class: "small" }, `${percent(sharedWords(runs))} of the words stand in both, in the same order. The others are marked: dotted on the left, solid on the right.`)),
    differenceTable(left, right),
    el("h2", {}, "Answers"),
    sides);
  return `${leftId} against ${rightId}`;
}
