//! Answers that are a number.

use super::python;

/// The share of numbers in the prediction that are spelled as the reference; 0 without any.
pub fn count(prediction: &str, reference: &str) -> f64 {
    let (mut all, mut right) = (0u32, 0u32);
    for number in python::numbers(prediction) {
        all += 1;
        right += u32::from(number == reference);
    }
    f64::from(right) / f64::from(all.max(1))
}

/// [`count`] against the paragraph that the reference names; 0 if it names none.
pub fn retrieval(prediction: &str, reference: &str) -> f64 {
    names_paragraph(reference).map_or(0.0, |number| count(prediction, number))
}

/// The number of the first `Paragraph 7` or `段落7`.
pub fn names_paragraph(reference: &str) -> Option<&str> {
    let after =
        |words: &'static str| reference.match_indices(words).map(move |(at, _)| at + words.len());
    let mut places: Vec<usize> = after("Paragraph ").chain(after("段落")).collect();
    places.sort_unstable();
    places.into_iter().find_map(|at| {
        let rest = &reference[at..];
        python::numbers(rest).next().filter(|number| rest.starts_with(number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_prediction_counts() {
        assert_eq!(count("There are 7, or 8", "7"), 0.5);
        assert_eq!((count("seven", "7"), count("07", "7")), (0.0, 0.0));
    }

    #[test]
    fn paragraphs_are_known_by_their_number() {
        assert_eq!(names_paragraph("see Paragraph x, Paragraph 15."), Some("15"));
        assert_eq!((names_paragraph("段落3"), names_paragraph("Paragraph")), (Some("3"), None));
        assert_eq!(retrieval("Paragraph 15", "Paragraph 15"), 1.0);
        assert_eq!(retrieval("段落1还是段落3", "段落3"), 0.5);
    }
}
