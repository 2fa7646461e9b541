//! The figures measured, and the table they are printed as.

/// What a figure should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Goal::AtMost(most) => value <= most,
            Goal::AtLeast(least) => least <= value,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    name: String,
    goal: Option<Goal>,
    value: f64,
    unit: &'static str,
    note: String,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure {
            name: name.into(),
            goal: None,
            value,
            unit,
            note: String::new(),
        }
    }

    pub(crate) fn goal(self, goal: Goal) -> Figure {
        Figure {
            goal: Some(goal),
            ..self
        }
    }

    /// What a reader must know to judge the figure.
    pub(crate) fn note(self, note: impl Into<String>) -> Figure {
        Figure {
            note: note.into(),
            ..self
        }
    }

    fn cells(&self) -> [String; 5] {
        let goal = match self.goal {
            Some(Goal::AtMost(most)) => format!("≤ {} {}", number(most), self.unit),
            Some(Goal::AtLeast(least)) => format!("≥ {} {}", number(least), self.unit),
            None => String::new(),
        };
        let verdict = match self.goal.map(|goal| goal.is_met(self.value)) {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        let measured = format!("{} {}", number(self.value), self.unit);
        [
            self.name.clone(),
            goal,
            measured,
            verdict.to_owned(),
            self.note.clone(),
        ]
    }
}

/// All figures of one run.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Figure>);

impl Table {
    pub(crate) fn add(&mut self, figure: Figure) {
        self.0.push(figure);
    }

    #[expect(clippy::print_stdout, reason = "this is what the tool is for")]
    pub(crate) fn print(&self) {
        for line in self.lines() {
            println!("{line}");
        }
    }

    fn lines(&self) -> Vec<String> {
        let head = ["figure", "goal", "measured", "", "how"].map(str::to_owned);
        let rows = std::iter::once(head).chain(self.0.iter().map(Figure::cells));
        align(rows.map(Vec::from).collect(), &[1, 2])
    }
}

/// Rows as lines, their cells below each other; columns named in `right` end at one edge.
pub(crate) fn align(rows: Vec<Vec<String>>, right: &[usize]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let lengths = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> = (0..columns)
        .map(|column| lengths(column).map(|cell| cell.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let cell = |(column, text): (usize, &String)| {
        let width = widths[column];
        match right.contains(&column) {
            true => format!("{text:>width$}"),
            false => format!("{text:<width$}"),
        }
    };
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Three digits that matter, and no more.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// The value below which a share of all lies (nearest rank); `sorted` must not be empty.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goal_stands_beside_measured() {
        let mut table = Table::default();
        table.add(Figure::new("start", 1.234, "s").goal(Goal::AtMost(2.0)));
        table.add(
            Figure::new("creates", 4_321.0, "/s")
                .goal(Goal::AtLeast(5_000.0))
                .note("64"),
        );
        let expected = [
            "figure        goal  measured          how",
            "start        ≤ 2 s    1.23 s  met",
            "creates  ≥ 5000 /s   4321 /s  MISSED  64",
        ];
        assert_eq!(table.lines(), expected);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<f64> = (1..=50).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.5), 25.0);
        assert_eq!(percentile(&sorted, 0.99), 50.0);
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
    }
}
