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

/// The ASCII character that a full-width one (`Ａ`, `１`, `：`) stands for; others as they are.
pub fn narrow(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xFEE0).unwrap_or(c),
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_width_characters_become_narrow() {
        let narrow = |text: &str| text.chars().map(narrow).collect::<String>();
        assert_eq!(narrow("ＧＬＭ－４：１９１３年！～。a"), "GLM-4:1913年!~。a");
    }

    #[test]
    fn scripts_of_characters() {
        assert!("汉字㐀豈𠀀".chars().all(is_han));
        assert!(!"a1é，。かカ한".chars().any(is_han));
        assert!("汉かカ".chars().all(is_unspaced));
        assert!(!"a한，".chars().any(is_unspaced));
    }
}
