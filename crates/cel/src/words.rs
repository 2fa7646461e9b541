//! Words of the language, which no name may be.

/// Words that are literals or operators.
const KEYWORDS: [&str; 4] = ["true", "false", "null", "in"];

/// Words that mean nothing yet.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether no name may be this word.
pub(crate) fn is_reserved(word: &str) -> bool {
    KEYWORDS.contains(&word) || RESERVED.contains(&word)
}

/// Whether an expression can spell a name as it is.
pub fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    characters.next().is_some_and(is_letter)
        && characters.all(|c| is_letter(c) || c.is_ascii_digit())
        && !is_reserved(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_and_no_words() {
        for (name, expect) in [
            ("a", true),
            ("_a1", true),
            ("1a", false),
            ("a-b", false),
            ("", false),
            ("in", false),
            ("namespace", false),
        ] {
            assert_eq!(is_identifier(name), expect, "{name}");
        }
    }
}
