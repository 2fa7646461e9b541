//! Rewrites the links of proxied pages: a link to the root of the proxied server is one to the
//! proxy's path for it.

use bytes::{Bytes, BytesMut};
use client::{Body, BoxError};
use futures::StreamExt;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Frame;

use super::coding::{Coder, Coding};

/// A tag that does not end within so many bytes is passed on as it is.
const TAG_BYTES_MAX: usize = 64 << 10;

/// Bytes that are decoded at once.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Attributes that hold one link, by tag.
const LINKS: [(&str, &[&str]); 26] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];

/// Knows where the proxied server seems to be.
#[derive(Clone, Debug)]
pub(crate) struct Rewriter {
    /// Path of the proxy itself, such as `/api/v1/namespaces/x/pods/y/proxy`.
    pub(crate) prefix: String,
    /// Host and port that we dialed.
    pub(crate) target: String,
    /// The host that the client asked for.
    pub(crate) asked: Option<String>,
}

impl Rewriter {
    /// A link as it must be for the client to come back to the proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let (host, rest) = match split_host(url) {
            Some((host, rest)) => (host, rest),
            None => ("", url),
        };
        let elsewhere =
            !host.is_empty() && host != self.target && self.asked.as_deref() != Some(host);
        if elsewhere || !rest.starts_with('/') {
            return url.to_owned();
        }
        match rest.starts_with(&self.prefix) {
            true => rest.to_owned(),
            false => format!("{}{rest}", self.prefix),
        }
    }

    /// A page with all its links rewritten, as it arrives.
    pub(crate) fn pages(&self, body: Body, coding: Coding) -> Body {
        let mut scanner = Scanner::new(self.clone());
        let mut coder = Coder::new(coding);
        let frames = BodyStream::new(body).flat_map(|frame| {
            let pieces = match frame.map(|frame| frame.into_data()) {
                Ok(Ok(bytes)) => split(bytes).into_iter().map(Ok).collect(),
                Ok(Err(_trailers)) => Vec::new(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(pieces).map(Some)
        });
        // One more turn after the last piece: what was held back goes out.
        let frames = frames.chain(futures::stream::once(async { None }));
        let pieces = frames.map(move |piece| {
            let bytes = match piece {
                Some(piece) => {
                    let plain = coder.decode(&piece?)?;
                    coder.encode(&scanner.feed(&plain))?
                }
                None => {
                    let last = scanner.finish();
                    coder.finish(&last)?
                }
            };
            Ok::<_, BoxError>(Frame::data(bytes))
        });
        StreamBody::new(pieces).boxed_unsync()
    }
}

/// So that what a piece unpacks to is bounded.
fn split(mut bytes: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while bytes.len() > PIECE_BYTES_MAX {
        pieces.push(bytes.split_to(PIECE_BYTES_MAX));
    }
    pieces.push(bytes);
    pieces
}

/// Host, and path with query, of an absolute link.
fn split_host(url: &str) -> Option<(&str, &str)> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .or_else(|| url.strip_prefix("//"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(rest.split_at(end))
}

/// Finds tags in pieces of a page.
struct Scanner {
    rewriter: Rewriter,
    /// The beginning of a tag whose end has not come.
    held: BytesMut,
    /// The element whose text is no markup, such as `script`, until it is closed.
    raw: Option<&'static str>,
}

impl Scanner {
    fn new(rewriter: Rewriter) -> Scanner {
        Scanner {
            rewriter,
            held: BytesMut::new(),
            raw: None,
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Bytes {
        self.held.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.held);
        let mut out = BytesMut::with_capacity(input.len() + 256);
        let mut rest = &input[..];
        while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            match self.markup_end(rest) {
                Some(end) => {
                    self.markup(&rest[..end], &mut out);
                    rest = &rest[end..];
                }
                None if rest.len() < TAG_BYTES_MAX => {
                    self.held.extend_from_slice(rest);
                    return out.freeze();
                }
                None => {
                    out.extend_from_slice(&rest[..1]);
                    rest = &rest[1..];
                }
            }
        }
        out.extend_from_slice(rest);
        out.freeze()
    }

    fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    /// Where the markup that begins here ends; `None` when more must come.
    fn markup_end(&self, text: &[u8]) -> Option<usize> {
        if self.raw.is_some() {
            // Only a closing tag matters, and any `<` is passed on alone.
            return match text {
                [_, b'/', ..] => Some(text.iter().position(|byte| *byte == b'>')? + 1),
                [_, _, ..] => Some(1),
                _ => None,
            };
        }
        if text.starts_with(b"<!--") {
            return Some(text.windows(3).position(|three| three == b"-->")? + 3);
        }
        match text.get(1)? {
            letter if letter.is_ascii_alphabetic() => tag_end(text),
            b'/' | b'!' | b'?' => Some(text.iter().position(|byte| *byte == b'>')? + 1),
            _ => Some(1),
        }
    }

    fn markup(&mut self, text: &[u8], out: &mut BytesMut) {
        let name: String = text
            .iter()
            .skip(1)
            .skip_while(|byte| **byte == b'/')
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .map(|byte| byte.to_ascii_lowercase() as char)
            .collect();
        let closing = text.get(1) == Some(&b'/');
        if closing || self.raw.is_some() || !text.get(1).is_some_and(u8::is_ascii_alphabetic) {
            if closing && self.raw == Some(name.as_str()) {
                self.raw = None;
            }
            return out.extend_from_slice(text);
        }
        let raw = ["script", "style", "textarea", "title"];
        self.raw = raw.into_iter().find(|own| *own == name);
        let links = LINKS.iter().find(|(tag, _)| *tag == name);
        match links {
            Some((_, attributes)) => self.tag(text, 1 + name.len(), attributes, out),
            None => out.extend_from_slice(text),
        }
    }

    /// Copies a tag, its links rewritten.
    fn tag(&self, text: &[u8], name_end: usize, links: &[&str], out: &mut BytesMut) {
        let mut copied = 0;
        let mut at = name_end;
        while at < text.len() {
            let begin = at
                + skip(&text[at..], |byte| {
                    byte.is_ascii_whitespace() || byte == b'/'
                });
            let length = skip(&text[begin..], |byte| {
                !byte.is_ascii_whitespace() && !matches!(byte, b'=' | b'>' | b'/')
            });
            let name = String::from_utf8_lossy(&text[begin..begin + length]).to_ascii_lowercase();
            at = begin + length;
            let equals = at + skip(&text[at..], |byte| byte.is_ascii_whitespace());
            if text.get(equals) != Some(&b'=') {
                at = equals.max(at + usize::from(length == 0));
                continue;
            }
            let mut value = equals + 1;
            value += skip(&text[value..], |byte| byte.is_ascii_whitespace());
            let end = match text.get(value) {
                Some(quote @ (b'"' | b'\'')) => {
                    value += 1;
                    value + skip(&text[value..], |byte| byte != *quote)
                }
                _ => {
                    value
                        + skip(&text[value..], |byte| {
                            !byte.is_ascii_whitespace() && byte != b'>'
                        })
                }
            };
            if links.contains(&name.as_str())
                && let Ok(link) = std::str::from_utf8(&text[value..end])
            {
                out.extend_from_slice(&text[copied..value]);
                out.extend_from_slice(self.rewriter.url(link).as_bytes());
                copied = end;
            }
            at = end + 1;
        }
        out.extend_from_slice(&text[copied..]);
    }
}

fn skip(text: &[u8], fits: impl Fn(u8) -> bool) -> usize {
    let end = text.iter().position(|byte| !fits(*byte));
    end.unwrap_or(text.len())
}

/// The end of a tag, past quoted values.
fn tag_end(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewriter() -> Rewriter {
        Rewriter {
            prefix: "/proxy".into(),
            target: "10.0.0.1:80".into(),
            asked: Some("api".into()),
        }
    }

    fn check(page: &str, expect: &str) {
        // Whole, and byte by byte.
        let mut scanner = Scanner::new(rewriter());
        let whole = [scanner.feed(page.as_bytes()), scanner.finish()].concat();
        assert_eq!(String::from_utf8(whole).unwrap(), expect);
        let mut scanner = Scanner::new(rewriter());
        let mut pieces: Vec<u8> = Vec::new();
        for byte in page.as_bytes() {
            pieces.extend_from_slice(&scanner.feed(&[*byte]));
        }
        pieces.extend_from_slice(&scanner.finish());
        assert_eq!(String::from_utf8(pieces).unwrap(), expect);
    }

    #[test]
    fn links_are_rewritten_and_nothing_else() {
        check(
            r#"<p>1 < 2 <a class=x href="/a?b=1#c">/a</a> <img SRC=/i.png alt="<a href='/no'>">"#,
            r#"<p>1 < 2 <a class=x href="/proxy/a?b=1#c">/a</a> <img SRC=/proxy/i.png alt="<a href='/no'>">"#,
        );
        check(
            "<!-- <a href='/x'> --><script src='/s.js'>'<a href=\"/x\">'</script><a href='rel'>",
            "<!-- <a href='/x'> --><script src='/proxy/s.js'>'<a href=\"/x\">'</script><a href='rel'>",
        );
        check("<form action=/f/><br/><b", "<form action=/proxy/f/><br/><b");
        check(
            "<a disabled href='/proxy/x'>",
            "<a disabled href='/proxy/x'>",
        );
    }

    #[test]
    fn hosts_decide() {
        let url = |text: &str| rewriter().url(text);
        assert_eq!(url("http://10.0.0.1:80/x/"), "/proxy/x/");
        assert_eq!(url("https://api/x"), "/proxy/x");
        assert_eq!(url("http://example.com/x"), "http://example.com/x");
        assert_eq!(url("//example.com/x"), "//example.com/x");
        assert_eq!(url("x/y"), "x/y");
        assert_eq!(url("/"), "/proxy/");
    }
}
