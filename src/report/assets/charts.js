// Small charts of single verdicts.

/** Probabilities of the ratings 0 to 10 as bars, the given rating marked. */
function ratingChart(distribution, score) {
  const step = 32, height = 74, base = 56;
  const most = Math.max(...distribution, 0.01);
  const parts = distribution
    .map((p, rating) => [p, rating])
    .filter(([p]) => p >= 0.005)
    .map(([p, rating]) => `${rating}: ${percent(p)}`);
  const chart = svg("svg", { class: "distribution", viewBox: `0 0 ${step * distribution.length} ${height}`, role: "img", "aria-label": `Probability of each rating. ${parts.join(", ")}` });
  chart.append(svg("path", { class: "axis", d: `M0 ${base}H${step * distribution.length}` }));
  distribution.forEach((p, rating) => {
    const size = (p / most) * 38;
    const chosen = rating === score;
    const x = rating * step;
    chart.append(
      svg("rect", { class: chosen ? "bar chosen" : "bar", x: x + 4, width: step - 8, y: base - size, height: size }, svg("title", {}, `${rating}: ${(p * 100).toFixed(1)} %`)),
      svg("text", { x: x + step / 2, y: base + 14, class: chosen ? "chosen-text" : null }, rating),
    );
    if (p >= 0.05) chart.append(svg("text", { x: x + step / 2, y: base - size - 4 }, Math.round(p * 100)));
  });
  return el("div", { class: "probabilities" }, chart);
}

/** Where passages stand in a document, as marks on a strip; positions are shares. */
function strip(positions, wide) {
  const named = positions.map((position) => `${percent(position.start)} to ${percent(position.end)}`);
  const chart = svg("svg", { class: wide ? "strip wide" : "strip", viewBox: "0 0 1000 10", preserveAspectRatio: "none", role: "img", "aria-label": `Place in the document: ${named.join(", ")}` });
  chart.append(svg("rect", { class: "track", x: 0, y: 2, width: 1000, height: 6, rx: 3 }));
  for (const { start, end } of positions) {
    chart.append(svg("rect", { class: "here", x: Math.min(start * 1000, 994), y: 0, width: Math.max((end - start) * 1000, 6), height: 10 }));
  }
  return chart;
}

/** How many statements are fully, partially, not supported. */
function supportCounts(row) {
  const parts = SUPPORT.map((degree, i) => {
    const count = table.support[i][row];
    return el("span", {}, el("i", { class: `mark ${degree.kind}`, "aria-hidden": "true" }), count, el("span", { class: "unseen" }, ` ${degree.short} supported`));
  });
  return el("span", { class: "counts" }, parts);
}
