// One candidate: its answer, and all that its scores rest on.

function scoreItem(name, i, row, verdict) {
  const value = table.scores[i][row];
  const most = i === 4 ? 40 : 10;
  const bar = el("i");
  bar.style.width = `${((value ?? 0) / most) * 100}%`;
  return el("div", {},
    el("dt", {}, name),
    el("dd", {}, el("b", {}, shownScore(value)), value === null ? null : el("span", {}, ` of ${most}`), el("span", { class: "meter", "aria-hidden": "true" }, bar), el("span", {}, scoreNote(i, row, verdict)), verdict?.forced ? [" ", forcedTag()] : null));
}

/** What stands below a score. */
function scoreNote(i, row, verdict) {
  const value = table.scores[i][row];
  if (i === 4) return value === null ? `between ${stoppedText(row)} of 40` : `mean ${round2(value / 4)} of 10`;
  if (value === null) return "not judged";
  if (verdict.expected === null || verdict.expected === undefined) return null;
  const was = typeof verdict.uncalibrated === "number" ? verdict.uncalibrated : verdict.uncalibrated?.expected;
  return `expected ${round2(verdict.expected)}${was === undefined || was === null ? "" : `, uncalibrated ${round2(was)}`}`;
}

function scoreList(row, verdicts) {
  const parts = [verdicts.helpfulness, verdicts.logicality, verdicts.faithfulness, verdicts.completeness, null];
  return el("dl", { class: "scores" }, SCORES.map((name, i) => scoreItem(name, i, row, parts[i])));
}

/** Why there is no total. */
function stoppedNote(row, stopped) {
  if (!stopped) return [];
  const names = stopped.skipped.join(" and ");
  return [el("p", { class: "notice" }, `Stopped early: this answer was not judged in ${names}. Whatever that had come to, its total would be between ${stoppedText(row)} of 40, so that it can be neither the best nor the worst of its prompt.`)];
}

function passageItem(passage) {
  const { start, end, offset } = passage.position;
  const [first, after, all] = passage.tokens;
  const where = offset === null ? `about ${percent(start)} to ${percent(end)}; its text is not in the document as it stands` : `${percent(start)} to ${percent(end)}, from character ${offset.toLocaleString("en")}`;
  return el("li", {},
    el("div", { class: "place" }, strip([passage.position]), el("span", {}, `Chunk ${passage.number + 1} · ${where} · tokens ${first} to ${after} of ${all}`)),
    foreign(passage.text));
}

function supportTable(name, distribution) {
  if (distribution.length === 0) return null;
  const parts = SUPPORT.map((degree, i) => `${degree.short} ${percent(distribution[i] ?? 0)}`);
  return el("span", {}, `${name}: ${parts.join(", ")}`);
}

/** Where the evidence stands, and the evidence. */
function evidenceParts(statement, passages) {
  if (statement.whole_document) return [strip([{ start: 0, end: 1 }], true), el("p", { class: "small" }, "Evidence: the whole document.")];
  const why = statement.whole_document === false ? " (the document is too long to be shown whole)" : "";
  return [
    passages.length > 0 ? strip(passages.map((passage) => passage.position), true) : null,
    lazyFold(plural(passages.length, "evidence chunk", "evidence chunks") + why, () => el("ol", { class: "passages" }, passages.map(passageItem))),
  ];
}

function statementItem(statement, block) {
  const degree = supportOf(statement);
  const [place, evidence] = evidenceParts(statement, statement.passages.map((i) => block.passages[i]));
  const was = statement.uncalibrated;
  return el("li", { class: `statement ${degree.kind}` },
    el("div", { class: "head" },
      el("span", { class: `label ${degree.kind}` }, degree.name),
      statement.score === degree.score ? null : el("span", {}, `${tidy(statement.score)} of 1`),
      el("span", {}, attemptsText(statement)),
      supportTable("probabilities", statement.distribution),
      was ? supportTable("before calibration", was.distribution) : null,
      estimateNote(statement),
      statement.statements_in_call ? el("span", {}, `one of ${statement.statements_in_call} statements in one call`) : null),
    el("h3", { dir: "auto" }, statement.fact),
    place,
    statement.votes ? el("p", { class: "small" }, `Votes: ${votesText(statement.votes)}`) : null,
    el("div", { class: "folds" },
      evidence,
      votesFold(statement.votes),
      lazyFold("The judge’s reply", () => foreign(statement.analysis))));
}

/** In the place of a dimension that an answer was not judged in. */
const notJudged = (name) => [el("h2", {}, `${name}: not judged`), el("p", { class: "small" }, "This answer was stopped early.")];

function statementsPart(row, verdicts, block) {
  const { faithfulness, statements } = verdicts;
  if (!faithfulness) return notJudged("Faithfulness");
  const intro = faithfulness.no_statements
    ? el("p", {}, "This answer states no fact, so nothing in it can be unfaithful: 10.")
    : el("p", { class: "lead" }, supportCounts(row), " The strip shows where in the document the evidence stands.");
  return [
    el("h2", {}, `Faithfulness: ${tidy(table.scores[2][row])}`),
    intro,
    faithfulness.cut ? el("p", { class: "small" }, "The list of statements was cut off at its longest allowed length; sentences of the answer that it had not come to follow it.") : null,
    el("ol", { class: "statements" }, statements.map((statement) => statementItem(statement, block))),
    lazyFold("How the answer was cut into statements", () => foreign(faithfulness.analysis)),
  ];
}

function ratedPart(name, score, rated) {
  if (!rated) return notJudged(name);
  return [
    el("h2", {}, `${name}: ${tidy(score)}`),
    el("p", { class: "small" }, attemptsText(rated), score === rated.score ? null : `; the judge says ${tidy(rated.score)}, and the expected value counts`),
    rated.distribution.length > 0 ? ratingChart(rated.distribution, rated.score) : null,
    uncalibratedPart(rated),
    estimateNote(rated),
    votesPart(rated.votes),
    el("h3", {}, rated.votes ? "The reply nearest to the score" : "The judge’s reply"),
    foreign(rated.analysis),
  ];
}

function completenessPart(row, verdicts, block) {
  if (!verdicts.completeness) return el("div", {}, notJudged("Completeness"));
  return el("div", { class: "columns" },
    el("div", {}, ratedPart("Completeness", table.scores[3][row], verdicts.completeness)),
    el("div", {}, el("h2", {}, "Extracts"), el("p", { class: "lead" }, "What the document says on the question, by place."), extractsPart(block.extracts[verdicts.extracts] ?? [])));
}

/** Shares of a place such as `0% - 12%`; null for another text. */
function placeShares(place) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*%\s*-\s*(\d+(?:\.\d+)?)\s*%\s*$/.exec(place);
  return found && { start: Math.min(found[1] / 100, 1), end: Math.min(found[2] / 100, 1) };
}

function extractsPart(extracts) {
  if (extracts.length === 0) return el("p", { class: "small" }, "No chunk of the document has anything on the question.");
  const item = ({ place, text, forced, cut }) => {
    const shares = placeShares(place);
    return el("li", {},
      el("div", { class: "place" }, shares ? strip([shares]) : null, el("span", {}, place.replace(" - ", " to ")), forced ? forcedTag() : null, cut ? el("span", { class: "tag", title: "The extract was cut off at its longest allowed length" }, "cut off") : null),
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
  const place = table.stopped[row] ? "" : ` · place ${rank} of ${prompt.count}`;
  section.replaceChildren(
    crumbs(row),
    el("h1", { id: "candidate-title", tabindex: -1 }, `Candidate ${id}`),
    el("div", { class: "box question-text", tabindex: 0, role: "group", "aria-label": "Question" }, foreign(prompt.query)),
    scoreList(row, verdicts),
    ...stoppedNote(row, verdicts.stopped),
    el("div", { class: "columns" },
      el("div", { class: "beside", tabindex: 0, role: "group", "aria-label": "Answer" },
        el("h2", {}, "Answer"),
        el("p", { class: "small" }, `${plural(table.chars[row], "character", "characters")}${place} · document of ${plural(prompt.chars, "character", "characters")}`, table.cut[row] ? " · cut off at its longest allowed length" : null),
        el("div", { class: "box" }, foreign(answers()[row]))),
      el("div", {}, statementsPart(row, verdicts, facts))),
    el("div", { class: "columns" },
      el("div", {}, ratedPart("Helpfulness", table.scores[0][row], verdicts.helpfulness)),
      el("div", {}, ratedPart("Logicality", table.scores[1][row], verdicts.logicality))),
    completenessPart(row, verdicts, facts));
  return `Candidate ${id}`;
}

/** Says that there is no such thing. */
function missing(section, kind, id) {
  section.replaceChildren(el("h1", { id: `${section.dataset.view}-title`, tabindex: -1 }, `No ${kind} ${id}`), el("p", {}, el("a", { href: "#/candidates" }, "All candidates")));
  return `No ${kind} ${id}`;
}
