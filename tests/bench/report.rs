//! The figures of all passes: medians and ratios, as tables and as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::figures::{Figure, Figures};
use crate::plan::{Run, Size, Subject};

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Report {
    /// The figures of each pass; `None` where it could not be measured.
    cells: BTreeMap<(Run, Subject), Vec<Option<Figures>>>,
}

/// A figure over all passes.
struct Summary {
    median: f64,
    /// The median of the ratios to the floor of the same pass.
    ratio: Option<f64>,
}

impl Report {
    pub(crate) fn add(&mut self, run: Run, subject: Subject, figures: Option<Figures>) {
        self.cells.entry((run, subject)).or_default().push(figures);
    }

    fn summary(&self, run: Run, subject: Subject, figure: Figure) -> Option<Summary> {
        let passes = self.cells.get(&(run, subject))?;
        let values = passes
            .iter()
            .flatten()
            .filter_map(|figures| figures.get(&figure).copied());
        let median = if figure.is_fault() {
            values.reduce(f64::max)
        } else {
            median(values.collect())
        };
        let floors = figure.floor(run).filter(|floor| *floor != subject);
        let floors = floors.and_then(|floor| self.cells.get(&(run, floor)));
        let ratios = passes
            .iter()
            .zip(floors.into_iter().flatten())
            .filter_map(|(figures, floor)| {
                let ratio = figures.as_ref()?.get(&figure)? / floor.as_ref()?.get(&figure)?;
                ratio.is_finite().then_some(ratio)
            });
        Some(Summary {
            median: median?,
            ratio: median_of(ratios),
        })
    }

    /// One table in Markdown for each run, whose size the caller knows.
    pub(crate) fn tables(&self, size: impl Fn(Run) -> Size) -> String {
        let mut lines = Vec::new();
        let mut last = None;
        for (run, subject) in self.cells.keys() {
            let columns = Figure::columns(*run);
            if last.replace(*run) != Some(*run) {
                let titles: Vec<_> = columns.iter().map(|figure| figure.describe().1).collect();
                lines.push(format!("\n### {}: {}\n", run.name(), size(*run)));
                lines.push(format!("| | {} |", titles.join(" | ")));
                lines.push(format!("|{}", " --- |".repeat(columns.len() + 1)));
            }
            let cells: Vec<_> = columns
                .iter()
                .map(|figure| self.cell(*run, *subject, *figure))
                .collect();
            lines.push(format!("| {} | {} |", subject.name(), cells.join(" | ")));
        }
        lines.join("\n")
    }

    fn cell(&self, run: Run, subject: Subject, figure: Figure) -> String {
        let (_, _, digits) = figure.describe();
        match self.summary(run, subject, figure) {
            None => "–".to_owned(),
            Some(Summary { median, ratio: None }) => number(median, digits),
            Some(Summary {
                median,
                ratio: Some(ratio),
            }) => format!("{} ({ratio:.2}×)", number(median, digits)),
        }
    }

    /// Medians, ratios and the figures of every pass.
    pub(crate) fn json(&self) -> Value {
        let rows = self.cells.iter().map(|((run, subject), passes)| {
            let mut summaries = Map::new();
            for figure in Figure::columns(*run) {
                if let Some(Summary { median, ratio }) = self.summary(*run, *subject, *figure) {
                    summaries.insert(
                        figure.describe().0.to_owned(),
                        json!({ "median": rounded(median), "ratio": ratio.map(rounded) }),
                    );
                }
            }
            let passes: Vec<_> = passes
                .iter()
                .map(|figures| figures.as_ref().map(object))
                .collect();
            json!({ "run": run.name(), "subject": subject.name(), "figures": summaries, "passes": passes })
        });
        rows.collect()
    }
}

/// One pass, on a line.
pub(crate) fn line(figures: &Figures) -> String {
    let parts = figures.iter().map(|(figure, value)| {
        let (name, _, digits) = figure.describe();
        format!("{name}={value:.digits$}")
    });
    parts.collect::<Vec<_>>().join(" ")
}

fn object(figures: &Figures) -> Value {
    let fields = figures
        .iter()
        .map(|(figure, value)| (figure.describe().0.to_owned(), json!(rounded(*value))));
    Value::Object(fields.collect())
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// With commas between thousands.
pub(crate) fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

fn median_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    median(values.collect())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, upper))
}

#[cfg(test)]
mod tests {
    use super::{Report, number};
    use crate::figures::{Figure, Figures};
    use crate::plan::{Run, Subject};

    #[test]
    fn ratios_are_those_of_the_same_pass() {
        let mut report = Report::default();
        for (floor, hubcast) in [(1.0, 2.0), (10.0, 30.0), (100.0, 150.0)] {
            let figures = |value| {
                Some(Figures::from([
                    (Figure::DeliveryCpu, value),
                    (Figure::Lost, value),
                ]))
            };
            report.add(Run::Groups, Subject::Direct, figures(floor));
            report.add(Run::Groups, Subject::Hubcast, figures(hubcast));
        }
        let cell = |figure| report.cell(Run::Groups, Subject::Hubcast, figure);
        assert_eq!(cell(Figure::DeliveryCpu), "30.00 (2.00×)");
        assert_eq!(cell(Figure::Lost), "150", "the worst, not the median");
        assert_eq!(cell(Figure::RedisCpu), "–");
    }

    #[test]
    fn a_pass_without_figures_has_no_ratio() {
        let mut report = Report::default();
        let figures = |value| Some(Figures::from([(Figure::RedisCpu, value)]));
        report.add(Run::Groups, Subject::Publish, None);
        report.add(Run::Groups, Subject::Publish, figures(20.0));
        report.add(Run::Groups, Subject::Hubcast, figures(1_000.0));
        report.add(Run::Groups, Subject::Hubcast, figures(40.0));
        assert_eq!(
            report.cell(Run::Groups, Subject::Hubcast, Figure::RedisCpu),
            "520.0 (2.00×)"
        );
    }

    #[test]
    fn thousands_are_grouped() {
        for (value, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (1_000.0, "1,000"),
            (-123_456.0, "-123,456"),
        ] {
            assert_eq!(number(value, 0), text);
        }
        assert_eq!(number(1_234.567, 2), "1,234.57");
    }
}
