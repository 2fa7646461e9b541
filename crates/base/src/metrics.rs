//! What is counted, in the text form of Prometheus.
//!
//! A family (counter, gauge or histogram) is a static of the part that counts; one page shows all
//! families that were used. Counting takes a shared lock, a search among the label sets that were
//! seen, and one atomic addition.
//!
//! ```text
//! use base::metrics::{Counters, page};
//! static TRIPS: Counters = Counters::new("trips_total", "Trips by boat.", &["boat"]);
//! TRIPS.add(&["junk"], 1);
//! assert!(page().contains("trips_total{boat=\"junk\"} 1"));
//! ```

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Greatest number of label sets of a family; what goes beyond is counted under `other`.
const SERIES_MAX: usize = 4096;
/// Stands in for every label beyond [`SERIES_MAX`].
const OTHER: &str = "other";

/// Buckets from a start, each a factor above the one before.
pub const fn exponential<const N: usize>(start: f64, factor: f64) -> [f64; N] {
    let mut bounds = [start; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * factor;
        at += 1;
    }
    bounds
}

/// Families that were used.
static USED: Mutex<Vec<&'static dyn Shown>> = Mutex::new(Vec::new());

/// All families that were used, by name.
pub fn page() -> String {
    let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    used.sort_by_key(|family| family.name());
    let mut text = String::new();
    for family in used {
        // Writing to a string cannot fail.
        let _ = family.write(&mut text);
    }
    text
}

trait Shown: Sync {
    fn name(&self) -> &'static str;
    fn write(&self, out: &mut String) -> fmt::Result;
}

/// The series of one family: label values in order, each with what is counted.
struct Family<T> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    series: RwLock<Vec<Series<T>>>,
}

type Series<T> = (Box<[Box<str>]>, Arc<T>);

impl<T> Family<T> {
    const fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Family<T> {
        Family {
            name,
            help,
            labels,
            series: RwLock::new(Vec::new()),
        }
    }

    /// The series of these label values; says whether it is the first of all.
    fn of(&self, values: &[&str], new: impl FnOnce() -> T) -> (Arc<T>, bool) {
        debug_assert_eq!(values.len(), self.labels.len(), "labels of {}", self.name);
        let place = |series: &[Series<T>], values: &[&str]| {
            series.binary_search_by(|(own, _)| {
                let own = own.iter().map(|value| &**value);
                own.cmp(values.iter().copied())
            })
        };
        {
            let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
            if let Ok(at) = place(&series, values) {
                return (Arc::clone(&series[at].1), false);
            }
        }
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let others = vec![OTHER; values.len()];
        let values = match series.len() < SERIES_MAX {
            true => values,
            false => &others,
        };
        match place(&series, values) {
            Ok(at) => (Arc::clone(&series[at].1), false),
            Err(at) => {
                let own = values.iter().map(|value| Box::from(*value)).collect();
                let first = series.is_empty();
                series.insert(at, (own, Arc::new(new())));
                (Arc::clone(&series[at].1), first)
            }
        }
    }

    /// The head, and a line for each series that `line` writes: it is given the labels.
    fn show(
        &self,
        kind: &str,
        out: &mut String,
        line: impl Fn(&str, &T, &mut String) -> fmt::Result,
    ) -> fmt::Result {
        let (name, help) = (self.name, self.help);
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        for (values, own) in series.iter() {
            let mut labels = String::new();
            for (label, value) in self.labels.iter().zip(values) {
                if !labels.is_empty() {
                    labels.push(',');
                }
                write!(labels, "{label}=\"{}\"", escape(value))?;
            }
            line(&labels, own, out)?;
        }
        Ok(())
    }
}

/// A label's value as the text form has it.
fn escape(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

fn braces(labels: &str) -> String {
    match labels {
        "" => String::new(),
        labels => format!("{{{labels}}}"),
    }
}

fn register(family: &'static dyn Shown) {
    USED.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(family);
}

/// Numbers that only grow.
pub struct Counters(Family<AtomicU64>);

impl Counters {
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Counters {
        Counters(Family::new(name, help, labels))
    }

    /// Adds to the series of these label values.
    pub fn add(&'static self, values: &[&str], count: u64) {
        self.of(values).fetch_add(count, Ordering::Relaxed);
    }

    /// This family alone, as a page shows it.
    pub fn page(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    /// The series itself, for those who count often.
    pub fn of(&'static self, values: &[&str]) -> Arc<AtomicU64> {
        let (series, first) = self.0.of(values, AtomicU64::default);
        if first {
            register(self);
        }
        series
    }
}

impl Shown for Counters {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        self.0.show("counter", out, |labels, own, out| {
            let count = own.load(Ordering::Relaxed);
            writeln!(out, "{}{} {count}", self.0.name, braces(labels))
        })
    }
}

/// Numbers that come and go.
pub struct Gauges(Family<AtomicI64>);

impl Gauges {
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Gauges {
        Gauges(Family::new(name, help, labels))
    }

    /// Adds to the series of these label values, or takes from it.
    pub fn add(&'static self, values: &[&str], count: i64) {
        self.of(values).fetch_add(count, Ordering::Relaxed);
    }

    /// Sets the series of these label values.
    pub fn set(&'static self, values: &[&str], value: i64) {
        self.of(values).store(value, Ordering::Relaxed);
    }

    /// The series itself, for those who count often.
    pub fn of(&'static self, values: &[&str]) -> Arc<AtomicI64> {
        let (series, first) = self.0.of(values, AtomicI64::default);
        if first {
            register(self);
        }
        series
    }
}

impl Shown for Gauges {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        self.0.show("gauge", out, |labels, own, out| {
            let value = own.load(Ordering::Relaxed);
            writeln!(out, "{}{} {value}", self.0.name, braces(labels))
        })
    }
}

/// How often which amounts were seen.
pub struct Histograms {
    family: Family<Histogram>,
    bounds: &'static [f64],
}

/// The amounts of one label set.
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: what is above all of them.
    buckets: Box<[AtomicU64]>,
    /// The bits of a floating-point number.
    sum: AtomicU64,
}

impl Histogram {
    /// One amount was seen.
    pub fn observe(&self, amount: f64) {
        let at = self.bounds.partition_point(|bound| *bound < amount);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        let add = |bits: u64| Some((f64::from_bits(bits) + amount).to_bits());
        // It is always changed, so it cannot fail.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn write(&self, name: &str, labels: &str, out: &mut String) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound = self.bounds.get(at).map(f64::to_string);
            let bound = bound.as_deref().unwrap_or("+Inf");
            writeln!(
                out,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
            )?;
        }
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        let labels = braces(labels);
        writeln!(
            out,
            "{name}_sum{labels} {sum}\n{name}_count{labels} {count}"
        )
    }
}

impl Histograms {
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Histograms {
        Histograms {
            family: Family::new(name, help, labels),
            bounds,
        }
    }

    /// One amount was seen of the series of these label values.
    pub fn observe(&'static self, values: &[&str], amount: f64) {
        self.of(values).observe(amount);
    }

    /// The same for a time, in seconds.
    pub fn observe_time(&'static self, values: &[&str], time: Duration) {
        self.observe(values, time.as_secs_f64());
    }

    /// The series itself, for those who see amounts often.
    pub fn of(&'static self, values: &[&str]) -> Arc<Histogram> {
        let (series, first) = self.family.of(values, || Histogram {
            bounds: self.bounds,
            buckets: (0..=self.bounds.len())
                .map(|_| AtomicU64::default())
                .collect(),
            sum: AtomicU64::new(0f64.to_bits()),
        });
        if first {
            register(self);
        }
        series
    }
}

impl Shown for Histograms {
    fn name(&self) -> &'static str {
        self.family.name
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let name = self.family.name;
        self.family.show("histogram", out, |labels, own, out| {
            own.write(name, labels, out)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_what_was_used() {
        static SAILED: Counters = Counters::new("sailed_total", "Sailed.", &["boat", "to"]);
        static DOCKED: Gauges = Gauges::new("docked", "Docked.", &[]);
        static IDLE: Gauges = Gauges::new("idle", "Never used.", &[]);
        static LONG: Histograms = Histograms::new("long", "Long.", &["x"], &[0.5, 1.0]);
        SAILED.add(&["b", "a\"\n"], 2);
        SAILED.add(&["a", "z"], 1);
        DOCKED.add(&[], 3);
        DOCKED.add(&[], -1);
        for amount in [0.5, 0.75, 7.0] {
            LONG.observe(&["y"], amount);
        }
        LONG.observe_time(&["z"], Duration::from_secs(2));
        let page = page();
        for lines in [
            "# HELP sailed_total Sailed.\n# TYPE sailed_total counter\n\
             sailed_total{boat=\"a\",to=\"z\"} 1\nsailed_total{boat=\"b\",to=\"a\\\"\\n\"} 2\n",
            "# TYPE docked gauge\ndocked 2\n",
            "long_bucket{x=\"y\",le=\"0.5\"} 1\nlong_bucket{x=\"y\",le=\"1\"} 2\n\
             long_bucket{x=\"y\",le=\"+Inf\"} 3\nlong_sum{x=\"y\"} 8.25\nlong_count{x=\"y\"} 3\n",
        ] {
            assert!(page.contains(lines), "{lines}\n{page}");
        }
        assert!(!page.contains(IDLE.0.name));
    }

    #[test]
    fn label_sets_are_bounded() {
        static MANY: Counters = Counters::new("many_total", "Many.", &["n"]);
        for n in 0..SERIES_MAX + 10 {
            MANY.add(&[&n.to_string()], 1);
        }
        assert_eq!(MANY.of(&[OTHER]).load(Ordering::Relaxed), 10);
    }

    #[test]
    fn buckets_grow_by_a_factor() {
        assert_eq!(exponential::<3>(1.0, 2.0), [1.0, 2.0, 4.0]);
    }
}
