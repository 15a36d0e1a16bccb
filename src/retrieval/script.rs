//! Which script a character belongs to.

/// A Han character: the unified blocks and the compatibility ones.
pub fn is_han(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

/// A character of a script that puts no blanks between words: Han and kana.
pub fn is_unspaced(c: char) -> bool {
    is_han(c) || matches!(c, '\u{3040}'..='\u{30ff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_characters() {
        assert!("汉字㐀豈𠀀".chars().all(is_han));
        assert!(!"a1é，。かカ한".chars().any(is_han));
        assert!("汉かカ".chars().all(is_unspaced));
        assert!(!"a한，".chars().any(is_unspaced));
    }
}
