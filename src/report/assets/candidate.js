// One candidate: its answer, and all that its scores rest on.

function scoreList(row, verdicts) {
  const expected = [verdicts.helpfulness.expected, verdicts.logicality.expected, verdicts.faithfulness.expected, verdicts.completeness.expected];
  const forced = [verdicts.helpfulness.forced, verdicts.logicality.forced, verdicts.faithfulness.forced, verdicts.completeness.forced];
  const items = SCORES.map((name, i) => {
    const most = i === 4 ? 40 : 10;
    const value = table.scores[i][row];
    const bar = el("i");
    bar.style.width = `${(value / most) * 100}%`;
    const note = i === 4 ? `mean ${round2(value / 4)} of 10` : expected[i] === null || expected[i] === undefined ? null : `expected ${round2(expected[i])}`;
    return el("div", {},
      el("dt", {}, name),
      el("dd", {}, el("b", {}, tidy(value)), el("span", {}, ` of ${most}`), el("span", { class: "meter", "aria-hidden": "true" }, bar), el("span", {}, note), forced[i] ? [" ", forcedTag()] : null));
  });
  return el("dl", { class: "scores" }, items);
}

function forcedTag() {
  return el("span", { class: "tag", title: "No reply could be read: the likeliest of all possible verdicts was taken" }, "forced");
}

const attemptsText = (verdict) => (verdict.forced ? `forced after ${plural(verdict.attempts, "reply", "replies")}` : verdict.attempts === 1 ? "first reply" : `reply ${verdict.attempts}`);

/** Content that is made when it is first unfolded: most never is. */
function lazyFold(summary, make) {
  const details = el("details", { class: "fold" }, el("summary", {}, summary));
  details.addEventListener("toggle", () => details.append(make()), { once: true });
  return details;
}

function passageItem(passage) {
  const { start, end, offset } = passage.position;
  const [first, after, all] = passage.tokens;
  const where = offset === null ? `about ${percent(start)} to ${percent(end)}; its text is not in the document as it stands` : `${percent(start)} to ${percent(end)}, from character ${offset.toLocaleString("en")}`;
  return el("li", {},
    el("div", { class: "place" }, strip([passage.position]), el("span", {}, `Chunk ${passage.number + 1} · ${where} · tokens ${first} to ${after} of ${all}`)),
    foreign(passage.text));
}

function supportTable(statement) {
  if (statement.distribution.length === 0) return null;
  const parts = SUPPORT.map((degree, i) => `${degree.short} ${percent(statement.distribution[i] ?? 0)}`);
  return el("span", {}, `probabilities: ${parts.join(", ")}`);
}

function statementItem(statement, block) {
  const degree = supportOf(statement.score);
  const passages = statement.passages.map((i) => block.passages[i]);
  return el("li", { class: `statement ${degree.kind}` },
    el("div", { class: "head" }, el("span", { class: `label ${degree.kind}` }, degree.name), el("span", {}, attemptsText(statement)), supportTable(statement)),
    el("h3", { dir: "auto" }, statement.fact),
    passages.length > 0 ? strip(passages.map((passage) => passage.position), true) : null,
    el("div", { class: "folds" },
      lazyFold(plural(passages.length, "evidence chunk", "evidence chunks"), () => el("ol", { class: "passages" }, passages.map(passageItem))),
      lazyFold("The judge’s reply", () => foreign(statement.analysis))));
}

function statementsPart(row, verdicts, block) {
  const { faithfulness, statements } = verdicts;
  const intro = faithfulness.no_statements
    ? el("p", {}, "This answer states no fact, so nothing in it can be unfaithful: 10.")
    : el("p", { class: "lead" }, supportCounts(row), " The strip shows where in the document the evidence stands.");
  return [
    el("h2", {}, `Faithfulness: ${tidy(table.scores[2][row])}`),
    intro,
    el("ol", { class: "statements" }, statements.map((statement) => statementItem(statement, block))),
    lazyFold("How the answer was cut into statements", () => foreign(faithfulness.analysis)),
  ];
}

function ratedPart(name, score, rated) {
  return [
    el("h2", {}, `${name}: ${tidy(score)}`),
    el("p", { class: "small" }, attemptsText(rated)),
    rated.distribution.length > 0 ? ratingChart(rated.distribution, score) : null,
    rated.uncalibrated ? el("p", { class: "small" }, `Calibrated by labels; the judge’s own probabilities had the mean ${round2(rated.uncalibrated.expected)}.`) : null,
    el("h3", {}, "The judge’s reply"),
    foreign(rated.analysis),
  ];
}

/** Shares of a place such as `0% - 12%`; null for another text. */
function placeShares(place) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*%\s*-\s*(\d+(?:\.\d+)?)\s*%\s*$/.exec(place);
  return found && { start: Math.min(found[1] / 100, 1), end: Math.min(found[2] / 100, 1) };
}

function extractsPart(extracts) {
  if (extracts.length === 0) return el("p", { class: "small" }, "No chunk of the document has anything on the question.");
  const item = ({ place, text, forced }) => {
    const shares = placeShares(place);
    return el("li", {},
      el("div", { class: "place" }, shares ? strip([shares]) : null, el("span", {}, place.replace(" - ", " to ")), forced ? forcedTag() : null),
      foreign(text));
  };
  return el("ol", { class: "passages" }, extracts.map(item));
}

function crumbs(row) {
  const prompt = promptOf(row);
  const rows = rowsOf(prompt);
  const at = rows.indexOf(row);
  const [win, lose] = firstPair(table.prompt[row]);
  const link = (other, text) => (other === undefined ? null : el("a", { href: `#/candidate/${idOf(other)}` }, text));
  return el("nav", { class: "crumbs", "aria-label": "Candidates of this prompt" },
    el("a", { href: "#/candidates" }, "All candidates"),
    el("span", {}, `Prompt ${prompt.idx}, candidate ${at + 1} of ${rows.length}`),
    el("span", { class: "spacer" }),
    win === lose ? null : compareLink(win, lose, "Best against worst"),
    row === win || win === lose ? null : compareLink(win, row, "Against the best"),
    link(rows[at - 1], "Previous"),
    link(rows[at + 1], "Next"));
}

async function candidateView(section, id) {
  const row = rowOf(id);
  if (row === undefined) return missing(section, "candidate", id);
  const prompt = promptOf(row);
  const facts = await block(table.prompt[row]);
  const verdicts = facts.candidates[row - prompt.first];
  const rank = rowsOf(prompt).filter((other) => table.scores[4][other] > table.scores[4][row]).length + 1;
  section.replaceChildren(
    crumbs(row),
    el("h1", { id: "candidate-title", tabindex: -1 }, `Candidate ${id}`),
    el("div", { class: "box question-text", tabindex: 0, role: "group", "aria-label": "Question" }, foreign(prompt.query)),
    scoreList(row, verdicts),
    el("div", { class: "columns" },
      el("div", { class: "beside", tabindex: 0, role: "group", "aria-label": "Answer" },
        el("h2", {}, "Answer"),
        el("p", { class: "small" }, `${plural(table.chars[row], "character", "characters")} · place ${rank} of ${prompt.count} · document of ${plural(prompt.chars, "character", "characters")}`, table.cut[row] ? " · cut off at its longest allowed length" : null),
        el("div", { class: "box" }, foreign(answers()[row]))),
      el("div", {}, statementsPart(row, verdicts, facts))),
    el("div", { class: "columns" },
      el("div", {}, ratedPart("Helpfulness", table.scores[0][row], verdicts.helpfulness)),
      el("div", {}, ratedPart("Logicality", table.scores[1][row], verdicts.logicality))),
    el("div", { class: "columns" },
      el("div", {}, ratedPart("Completeness", table.scores[3][row], verdicts.completeness)),
      el("div", {}, el("h2", {}, "Extracts"), el("p", { class: "lead" }, "What the document says on the question, by place."), extractsPart(facts.extracts[verdicts.extracts] ?? []))));
  return `Candidate ${id}`;
}

/** Says that there is no such thing. */
function missing(section, kind, id) {
  section.replaceChildren(el("h1", { id: `${section.dataset.view}-title`, tabindex: -1 }, `No ${kind} ${id}`), el("p", {}, el("a", { href: "#/candidates" }, "All candidates")));
  return `No ${kind} ${id}`;
}
