// What the page knows. The index is parsed at once, answers when first needed, and a prompt's block
// when one of its candidates is shown.

const index = JSON.parse(document.getElementById("index").textContent);
const table = index.candidates;
const DIMENSIONS = ["Helpfulness", "Logicality", "Faithfulness", "Completeness"];
const SCORES = [...DIMENSIONS, "Total"];
const SUPPORT = [
  { score: 1, name: "Fully supported", short: "fully", kind: "full" },
  { score: 0.5, name: "Partially supported", short: "partially", kind: "partial" },
  { score: 0, name: "Not supported", short: "not", kind: "none" },
];

const supportOf = (statement) => SUPPORT.find((degree) => degree.kind === statement.degree) ?? SUPPORT[2];
/** Between what the total of an answer lies that was stopped early. */
const stoppedText = (row) => table.stopped[row].map(tidy).join(" and ");
const promptOf = (row) => index.prompts[table.prompt[row]];
const idOf = (row) => `${promptOf(row).idx}-${table.k[row]}`;
const rowsOf = (prompt) => Array.from({ length: prompt.count }, (_, i) => prompt.first + i);

let rowsById = null;
/** The row of a candidate's id; undefined if there is none. */
function rowOf(id) {
  rowsById ??= new Map(table.k.map((_, row) => [idOf(row), row]));
  return rowsById.get(id);
}

let allAnswers = null;
function answers() {
  allAnswers ??= JSON.parse(document.getElementById("answers").textContent);
  return allAnswers;
}

let allTexts = null;
/** Lower-case texts that a search looks at: id, question and answer of each candidate. */
function searchTexts() {
  if (allTexts === null) {
    const queries = index.prompts.map((prompt) => prompt.query.toLowerCase());
    allTexts = answers().map((answer, row) => ({
      id: idOf(row),
      query: queries[table.prompt[row]],
      answer: answer.toLowerCase(),
    }));
  }
  return allTexts;
}

/** Resolves when the whole file has been read. */
function wholePage() {
  if (document.readyState !== "loading") return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
}

const KEPT_BLOCKS = 8;
const blocks = new Map();
/** What is known of a prompt's candidates; the blocks asked for last are kept. */
async function block(position) {
  if (!blocks.has(position)) {
    await wholePage();
    const bytes = Uint8Array.from(atob(document.getElementById(`block-${position}`).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    blocks.set(position, JSON.parse(await new Response(stream).text()));
    if (blocks.size > KEPT_BLOCKS) blocks.delete(blocks.keys().next().value);
  }
  return blocks.get(position);
}
