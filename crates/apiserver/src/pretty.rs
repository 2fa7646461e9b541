//! Indented JSON, for people.

/// The same JSON with line breaks and two spaces per level, as Go's encoder has it.
pub(crate) fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            out.push(byte);
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                match bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        break_line(&mut out, depth);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                break_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            byte => {
                in_text = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

fn break_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use super::indent;

    #[test]
    fn json_is_indented_and_texts_stay() {
        let json = br#"{"a":[1,{"b":"x,:{\"y\\"}],"c":{},"d":[]}"#;
        let text = String::from_utf8(indent(json)).unwrap();
        let expect = "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x,:{\\\"y\\\\\"\n    }\n  ],\n  \
                      \"c\": {},\n  \"d\": []\n}";
        assert_eq!(text, expect);
    }
}
