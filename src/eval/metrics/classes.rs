//! Answers that name a class.

/// One divided by the number of classes that the prediction names, if the right one is among them.
/// A named class whose name is part of the right one's is not counted, but for one that follows
/// right after another such: the public scorer shortens the list while it goes through it.
pub fn classification(prediction: &str, reference: &str, classes: &[String]) -> f64 {
    let mut named: Vec<&str> = classes.iter().map(String::as_str).collect();
    named.retain(|class| prediction.contains(class));
    let mut at = 0;
    while at < named.len() {
        let class = named[at];
        if reference.contains(class) && class != reference {
            let first = named.iter().position(|one| *one == class).unwrap_or(at);
            named.remove(first);
        }
        at += 1;
    }
    match named.contains(&reference) {
        true => 1.0 / named.len() as f64,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(prediction: &str, reference: &str, classes: &[&str]) -> f64 {
        let classes: Vec<String> = classes.iter().map(|one| (*one).to_owned()).collect();
        classification(prediction, reference, &classes)
    }

    #[test]
    fn all_named_classes_share_the_point() {
        let classes = ["Country", "City", "Other city"];
        assert_eq!(score("City", "City", &classes), 1.0);
        assert_eq!(score("Country or City", "City", &classes), 0.5);
        assert_eq!((score("Country", "City", &classes), score("", "City", &classes)), (0.0, 0.0));
    }

    #[test]
    fn parts_of_the_right_name_are_left_out_every_other_time() {
        assert_eq!(score("a city's name", "city's name", &["name", "city's name"]), 1.0);
        // "ab" follows "a", which was removed, and is passed over.
        assert_eq!(score("abc", "abc", &["a", "ab", "abc"]), 0.5);
    }
}
