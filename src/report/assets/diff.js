// Differences of two texts, word by word (Myers 1986, the greedy algorithm with its trace kept).

/** Words, spaces and single signs; where words are not written apart, single characters. */
function words(text) {
  return text.match(/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{M}\p{N}]+|\s+|[^]/gu) ?? [];
}

/** Beyond so many differing words texts are taken to be wholly different: the trace is quadratic. */
const MOST_EDITS = 4000;

/**
 * Two lists of runs { text, same }, one for each text. Runs that are the same stand in both, in the
 * same order.
 */
function difference(left, right) {
  const [a, b] = [words(left), words(right)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const kept = commonWords(a.slice(start, a.length - end), b.slice(start, b.length - end));
  const marks = (list, side) => {
    const same = new Array(list.length).fill(false);
    for (let i = 0; i < start; i += 1) same[i] = true;
    for (let i = 0; i < end; i += 1) same[list.length - 1 - i] = true;
    for (const pair of kept) same[start + pair[side]] = true;
    return runs(list, same);
  };
  return [marks(a, 0), marks(b, 1)];
}

/** Positions [in a, in b] of a longest common subsequence; none where the texts differ too much. */
function commonWords(a, b) {
  const trace = [];
  const reach = new Map([[1, 0]]);
  for (let edits = 0; edits <= Math.min(a.length + b.length, MOST_EDITS); edits += 1) {
    const step = new Int32Array(edits + 1);
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && reach.get(k - 1) < reach.get(k + 1));
      let x = down ? reach.get(k + 1) : reach.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      reach.set(k, x);
      step[(k + edits) / 2] = x;
      if (x >= a.length && x - k >= b.length) return walkBack(trace, a.length, b.length);
    }
    trace.push(step);
  }
  return [];
}

/** From the end of both texts back to their beginning, along the furthest points of each step. */
function walkBack(trace, x, y) {
  const kept = [];
  for (let edits = trace.length; edits >= 0; edits -= 1) {
    const k = x - y;
    const before = edits === 0 ? null : trace[edits - 1];
    const at = (diagonal) => before[(diagonal + edits - 1) / 2];
    const down = edits > 0 && (k === -edits || (k !== edits && at(k - 1) < at(k + 1)));
    const [fromX, fromK] = edits === 0 ? [0, 0] : down ? [at(k + 1), k + 1] : [at(k - 1), k - 1];
    const fromY = fromX - fromK;
    while (x > fromX && y > fromY && x > 0 && y > 0 && (x - fromX > (down ? 0 : 1) || edits === 0)) {
      x -= 1;
      y -= 1;
      kept.push([x, y]);
    }
    [x, y] = [fromX, fromY];
  }
  return kept;
}

/** Neighbours of one kind as one run; a space between two different words differs with them. */
function runs(list, same) {
  const joined = [];
  list.forEach((text, i) => {
    const space = /^\s+$/.test(text) && i > 0 && i < list.length - 1 && !same[i - 1] && !same[i + 1];
    const kind = same[i] && !space;
    const last = joined.at(-1);
    if (last && last.same === kind) last.text += text;
    else joined.push({ text, same: kind });
  });
  return joined;
}
