//! A page of metrics in Prometheus' text form.

use std::fmt::{Display, Write};

/// What Prometheus reads.
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that grows family by family.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a family; `kind` is `counter` or `gauge`.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0
            .push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Adds a series with its moment in nanoseconds since the epoch, if it has one.
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: f64, at: Option<i64>) {
        let braced = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{labels}}}"),
        };
        self.0.push_str(&format!("{name}{braced} {value}"));
        if let Some(at) = at {
            self.0.push_str(&format!(" {}", at / 1_000_000));
        }
        self.0.push('\n');
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// Pairs as they stand between braces.
pub(super) fn labels<V: Display>(pairs: &[(&str, V)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        let value = value.to_string();
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        let written = write!(text, "{key}=\"{}\"", value.replace('\n', "\\n"));
        debug_assert!(written.is_ok(), "a string takes all that is written");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_have_labels_and_moments() {
        let mut page = Page::default();
        page.family("x_total", "counter", "Counts x.");
        page.sample(
            "x_total",
            &labels(&[("a", "say \"b\"")]),
            1.5,
            Some(2_000_000),
        );
        page.sample("x_total", "", 2.0, None);
        let expected = "# HELP x_total Counts x.\n# TYPE x_total counter\n\
            x_total{a=\"say \\\"b\\\"\"} 1.5 2\nx_total 2\n";
        assert_eq!(page.into_text(), expected);
    }
}
