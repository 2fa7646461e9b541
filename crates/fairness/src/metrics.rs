//! What is counted, by upstream's names.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::gate::Fairness;

/// Upper bounds of waiting and serving times, in seconds.
const BUCKETS: [f64; 12] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0,
];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Histogram {
    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            if seconds <= bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) -> std::fmt::Result {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let count = load(&self.count);
        if count == 0 {
            return Ok(());
        }
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            writeln!(
                text,
                "{name}_bucket{{{labels},le=\"{bound}\"}} {}",
                load(bucket)
            )?;
        }
        writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        let seconds = load(&self.nanos) as f64 / 1e9;
        writeln!(text, "{name}_sum{{{labels}}} {seconds}")?;
        writeln!(text, "{name}_count{{{labels}}} {count}")
    }
}

const REASONS: [&str; 3] = ["queue-full", "concurrency-limit", "time-out"];

/// Counts of one schema at one level.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    dispatched: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
    waiting: AtomicI64,
    serving: AtomicI64,
    seats: AtomicI64,
    waited: Histogram,
    waited_in_vain: Histogram,
    served: Histogram,
}

impl Flow {
    pub(crate) fn refused(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|own| *own == reason) {
            self.refused[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn waits(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// No longer waits.
    pub(crate) fn gone(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn timed_out(&self, waited: Duration) {
        self.refused("time-out");
        self.waited_in_vain.observe(waited);
    }

    pub(crate) fn began(&self, seats: u32, waited: Duration) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.serving.fetch_add(1, Ordering::Relaxed);
        self.seats.fetch_add(i64::from(seats), Ordering::Relaxed);
        self.waited.observe(waited);
    }

    pub(crate) fn ended(&self, seats: u32, took_ns: u64) {
        self.serving.fetch_sub(1, Ordering::Relaxed);
        self.seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
        self.served.observe(Duration::from_nanos(took_ns));
    }

    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let load = |at: usize| self.refused[at].load(Ordering::Relaxed);
        (
            self.dispatched.load(Ordering::Relaxed),
            load(0) + load(1),
            load(2),
        )
    }
}

impl Fairness {
    /// All figures in the text form of Prometheus.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_levels(&mut text);
        let _ = self.write_flows(&mut text);
        text
    }

    fn write_levels(&self, text: &mut String) -> std::fmt::Result {
        let plan = self.plan();
        let mut rows: Vec<(&str, [(&str, f64); 9])> = Vec::new();
        for (name, room) in &plan.rooms {
            let limits = *room.limits.lock();
            let found = room.state().set.demand.found;
            let target = f64::from(limits.least.max(limits.nominal.min(found.peak)));
            rows.push((
                name,
                [
                    ("nominal_limit_seats", f64::from(limits.nominal)),
                    ("lower_limit_seats", f64::from(limits.least)),
                    ("upper_limit_seats", f64::from(limits.most)),
                    ("current_limit_seats", f64::from(limits.current)),
                    ("demand_seats_high_watermark", f64::from(found.peak)),
                    ("demand_seats_average", found.mean),
                    ("demand_seats_stdev", found.deviation),
                    ("demand_seats_smoothed", found.smoothed),
                    ("target_seats", target.max(found.smoothed)),
                ],
            ));
        }
        let figures = rows.first().map_or(0, |row| row.1.len());
        for at in 0..figures {
            for (row, (level, values)) in rows.iter().enumerate() {
                let (name, value) = values[at];
                if row == 0 {
                    writeln!(text, "# TYPE apiserver_flowcontrol_{name} gauge")?;
                }
                writeln!(
                    text,
                    "apiserver_flowcontrol_{name}{{priority_level=\"{level}\"}} {value}"
                )?;
            }
        }
        writeln!(text, "# TYPE apiserver_flowcontrol_seat_fair_frac gauge")?;
        let proportion = *self.fair_proportion.lock();
        writeln!(text, "apiserver_flowcontrol_seat_fair_frac {proportion}")
    }

    fn write_flows(&self, text: &mut String) -> std::fmt::Result {
        let plan = self.plan();
        let label = |at: usize| {
            let way = &plan.ways[at];
            let (schema, level) = (&way.schema.name, &way.room.name);
            format!("flow_schema=\"{schema}\",priority_level=\"{level}\"")
        };
        type Gauge = fn(&Flow) -> &AtomicI64;
        let gauges: [(&str, Gauge); 3] = [
            ("current_inqueue_requests", |flow| &flow.waiting),
            ("current_executing_requests", |flow| &flow.serving),
            ("current_executing_seats", |flow| &flow.seats),
        ];
        for (name, value) in gauges {
            writeln!(text, "# TYPE apiserver_flowcontrol_{name} gauge")?;
            for (at, way) in plan.ways.iter().enumerate() {
                let value = value(&way.flow).load(Ordering::Relaxed);
                writeln!(
                    text,
                    "apiserver_flowcontrol_{name}{{{}}} {value}",
                    label(at)
                )?;
            }
        }
        let name = "apiserver_flowcontrol_dispatched_requests_total";
        writeln!(text, "# TYPE {name} counter")?;
        for (at, way) in plan.ways.iter().enumerate() {
            let value = way.flow.dispatched.load(Ordering::Relaxed);
            if value > 0 {
                writeln!(text, "{name}{{{}}} {value}", label(at))?;
            }
        }
        let name = "apiserver_flowcontrol_rejected_requests_total";
        writeln!(text, "# TYPE {name} counter")?;
        for (at, way) in plan.ways.iter().enumerate() {
            for (reason, count) in REASONS.iter().zip(&way.flow.refused) {
                let value = count.load(Ordering::Relaxed);
                if value > 0 {
                    writeln!(text, "{name}{{{},reason=\"{reason}\"}} {value}", label(at))?;
                }
            }
        }
        let name = "apiserver_flowcontrol_request_wait_duration_seconds";
        writeln!(text, "# TYPE {name} histogram")?;
        for (at, way) in plan.ways.iter().enumerate() {
            for (execute, waited) in [
                ("true", &way.flow.waited),
                ("false", &way.flow.waited_in_vain),
            ] {
                waited.write(text, name, &format!("execute=\"{execute}\",{}", label(at)))?;
            }
        }
        let name = "apiserver_flowcontrol_request_execution_seconds";
        writeln!(text, "# TYPE {name} histogram")?;
        for (at, way) in plan.ways.iter().enumerate() {
            way.flow
                .served
                .write(text, name, &format!("{},type=\"regular\"", label(at)))?;
        }
        Ok(())
    }
}
