//! What stands in the table that compares: ours, theirs, how many times better, and the goal.

use crate::table::{align, number};

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Better {
    More,
    Less,
}

/// What is asked of ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// So many times better than theirs.
    Times(f64),
    /// At most this, whatever theirs is.
    AtMost(f64),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    name: String,
    unit: &'static str,
    better: Better,
    ours: f64,
    theirs: Option<f64>,
    goal: Option<Goal>,
    note: String,
}

impl Comparison {
    pub(super) fn new(
        name: impl Into<String>,
        unit: &'static str,
        better: Better,
        ours: f64,
        theirs: Option<f64>,
    ) -> Comparison {
        Comparison {
            name: name.into(),
            unit,
            better,
            ours,
            theirs,
            goal: None,
            note: String::new(),
        }
    }

    pub(super) fn goal(self, goal: Goal) -> Comparison {
        Comparison {
            goal: Some(goal),
            ..self
        }
    }

    pub(super) fn note(self, note: impl Into<String>) -> Comparison {
        Comparison {
            note: note.into(),
            ..self
        }
    }

    /// How many times better ours is.
    fn ratio(&self) -> Option<f64> {
        let theirs = self.theirs?;
        Some(match self.better {
            Better::More => self.ours / theirs,
            Better::Less => theirs / self.ours,
        })
    }

    fn is_met(&self) -> Option<bool> {
        match self.goal? {
            Goal::Times(times) => Some(self.ratio()? >= times),
            Goal::AtMost(most) => Some(self.ours <= most),
        }
    }

    fn cells(&self) -> Vec<String> {
        let value = |value: f64| format!("{} {}", number(value), self.unit);
        let goal = match self.goal {
            Some(Goal::Times(times)) => format!("≥ {}×", number(times)),
            Some(Goal::AtMost(most)) => format!("≤ {}", value(most)),
            None => String::new(),
        };
        let verdict = match self.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        let ratio = self.ratio().map(|ratio| format!("{}×", number(ratio)));
        vec![
            self.name.clone(),
            value(self.ours),
            self.theirs.map_or("–".into(), value),
            ratio.unwrap_or("–".into()),
            goal,
            verdict.to_owned(),
            self.note.clone(),
        ]
    }
}

/// The lines of the whole table.
pub(super) fn lines(figures: &[Comparison]) -> Vec<String> {
    let head = ["figure", "ours", "theirs", "better by", "goal", "", "how"];
    let head = head.map(str::to_owned).to_vec();
    let rows = std::iter::once(head).chain(figures.iter().map(Comparison::cells));
    align(rows.collect(), &[1, 2, 3, 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_always_more_than_one() {
        let rate = Comparison::new("creates", "/s", Better::More, 9_000.0, Some(1_500.0));
        let time = Comparison::new("list", "ms", Better::Less, 20.0, Some(300.0));
        let alone = Comparison::new("list", "ms", Better::Less, 40.0, None);
        let figures = [
            rate.goal(Goal::Times(5.0)).note("64 clients"),
            time.goal(Goal::Times(20.0)),
            alone.goal(Goal::AtMost(30.0)),
        ];
        let expected = [
            "figure      ours   theirs  better by     goal          how",
            "creates  9000 /s  1500 /s         6×     ≥ 5×  met     64 clients",
            "list       20 ms   300 ms        15×    ≥ 20×  MISSED",
            "list       40 ms        –          –  ≤ 30 ms  MISSED",
        ];
        assert_eq!(lines(&figures), expected);
    }
}
