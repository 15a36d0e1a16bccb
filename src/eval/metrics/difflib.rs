//! The matching blocks of Python's `difflib.SequenceMatcher` (after Ratcliff and Obershelp 1988),
//! with its rule for what is too common in long texts.

use std::collections::HashMap;
use std::ops::Range;

/// From this length on, characters of `b` that are more frequent than this share are no beginning
/// of a match.
const LONG: usize = 200;
const SHARE: usize = 100;

/// How many characters of `a` and `b` match: the longest block in common, and so on to its left and
/// its right.
pub fn matches(a: &[char], b: &[char]) -> usize {
    let places = places(b);
    let mut open = vec![(0..a.len(), 0..b.len())];
    let mut found = 0;
    while let Some((in_a, in_b)) = open.pop() {
        let block = longest(a, b, &places, in_a.clone(), in_b.clone());
        if block.len == 0 {
            continue;
        }
        found += block.len;
        open.push((in_a.start..block.a, in_b.start..block.b));
        open.push((block.a + block.len..in_a.end, block.b + block.len..in_b.end));
    }
    found
}

/// Where each character stands in `b`, but for those that are too common.
fn places(b: &[char]) -> HashMap<char, Vec<usize>> {
    let mut places: HashMap<char, Vec<usize>> = HashMap::new();
    for (at, &c) in b.iter().enumerate() {
        places.entry(c).or_default().push(at);
    }
    if b.len() >= LONG {
        places.retain(|_, at| at.len() <= b.len() / SHARE + 1);
    }
    places
}

#[derive(Clone, Copy)]
struct Block {
    a: usize,
    b: usize,
    len: usize,
}

/// The longest block in common; of equals the one that begins first in `a`, then in `b`.
fn longest(
    a: &[char],
    b: &[char],
    places: &HashMap<char, Vec<usize>>,
    in_a: Range<usize>,
    in_b: Range<usize>,
) -> Block {
    let mut best = Block { a: in_a.start, b: in_b.start, len: 0 };
    // Lengths of the blocks that end at a place of `b` and at the last place of `a`.
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for i in in_a.clone() {
        let mut next = HashMap::new();
        for &j in places.get(&a[i]).into_iter().flatten() {
            if !in_b.contains(&j) {
                continue;
            }
            let before = j.checked_sub(1).and_then(|j| lengths.get(&j)).copied().unwrap_or(0);
            let len = before + 1;
            next.insert(j, len);
            if len > best.len {
                best = Block { a: i + 1 - len, b: j + 1 - len, len };
            }
        }
        lengths = next;
    }
    widened(a, b, best, in_a, in_b)
}

/// With the equal characters around it, which may be common ones.
fn widened(
    a: &[char],
    b: &[char],
    mut block: Block,
    in_a: Range<usize>,
    in_b: Range<usize>,
) -> Block {
    while block.a > in_a.start && block.b > in_b.start && a[block.a - 1] == b[block.b - 1] {
        block = Block { a: block.a - 1, b: block.b - 1, len: block.len + 1 };
    }
    let ends = |block: &Block| (block.a + block.len, block.b + block.len);
    loop {
        let (end_a, end_b) = ends(&block);
        if end_a >= in_a.end || end_b >= in_b.end || a[end_a] != b[end_b] {
            return block;
        }
        block.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(a: &str, b: &str) -> usize {
        matches(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
    }

    #[test]
    fn blocks_are_found_left_and_right_of_the_longest() {
        assert_eq!(count("abxcd", "abcd"), 4);
        assert_eq!(count(" abcd", "abcd abcd"), 5);
        // Once "cde" is taken, "ab" stands on the other side of it.
        assert_eq!((count("", "a"), count("abcde", "cdeab")), (0, 3));
    }

    #[test]
    fn common_characters_begin_no_match_in_long_texts() {
        assert_eq!(count(&"a".repeat(150), &"a".repeat(199)), 150);
        let b = "a".repeat(200);
        assert_eq!(count("ba", &b), 0);
        // They may stand at the very beginning, or beside a match.
        assert_eq!((count("ab", &b), count("aab", &format!("{b}b"))), (1, 3));
    }
}
