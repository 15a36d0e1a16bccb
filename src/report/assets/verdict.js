// What a verdict is made of: replies, votes, probabilities, and how they were had.

const ESTIMATES = {
  echo: "Probabilities are estimates from echoed prompts.",
  first_token: "Probabilities are estimates from the first tokens of a reply of its own.",
};

function forcedTag() {
  return el("span", { class: "tag", title: "No reply could be read: the likeliest of all possible verdicts was taken" }, "forced");
}

/** How many replies a verdict took. */
function attemptsText(verdict) {
  const replies = plural(verdict.attempts, "reply", "replies");
  if (verdict.votes) return `${verdict.votes.each.length} votes from ${replies}${verdict.forced ? ", some forced" : ""}`;
  if (verdict.attempts === 0) return "no reply: the likeliest right after the prompt";
  if (verdict.forced) return `forced after ${replies}`;
  return verdict.attempts === 1 ? "first reply" : `reply ${verdict.attempts}`;
}

/** Content that is made when it is first unfolded: most never is. */
function lazyFold(summary, make) {
  const details = el("details", { class: "fold" }, el("summary", {}, summary));
  details.addEventListener("toggle", () => details.append(make()), { once: true });
  return details;
}

const votesText = (votes) => `${votes.each.map((vote) => tidy(vote.score)).join(", ")}; mean ${round2(votes.mean)}, median ${round2(votes.median)}, standard deviation ${round2(votes.spread)}`;

function votesTable(votes) {
  const head = ["Vote", "Score", "Expected"].map((name, i) => el("th", { scope: "col", class: i > 0 ? "n" : null }, name));
  const rows = votes.each.map((vote, i) => el("tr", {}, el("th", { scope: "row" }, i + 1), numberCell(tidy(vote.score)), numberCell(round2(vote.expected)), cell([attemptsText(vote), lazyFold("Its reply", () => foreign(vote.analysis))])));
  return el("table", { class: "data votes" }, el("caption", { class: "unseen" }, "Votes"),
    el("thead", {}, el("tr", {}, head, el("th", { scope: "col" }, "Replies"))), el("tbody", {}, rows));
}

/** The votes behind a verdict, folded; null of a single one. */
function votesFold(votes) {
  return votes ? lazyFold(plural(votes.each.length, "vote", "votes"), () => votesTable(votes)) : null;
}

/** The votes of a rating, for all to see. */
function votesPart(votes) {
  return votes ? [el("h3", {}, "Votes"), el("p", { class: "small" }, votesText(votes)), votesTable(votes)] : null;
}

/** What the probabilities were before they were corrected. */
function uncalibratedPart(rated) {
  const was = rated.uncalibrated;
  if (!was) return null;
  const [now, before] = [round2(rated.expected), round2(was.expected)];
  return [
    el("p", { class: "small" }, `Corrected by a calibration: expected value ${now}, by the judge’s own probabilities ${before}.`),
    String(was.distribution) === String(rated.distribution) ? null : lazyFold("The judge’s own probabilities", () => ratingChart(was.distribution, rated.score)),
  ];
}

const estimateNote = (verdict) => (verdict.estimate ? el("span", { class: "small" }, ESTIMATES[verdict.estimate]) : null);
