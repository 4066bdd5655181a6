//! Numbers, tables and goals.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

const HEAD: &str = include_str!("head.md");

/// The measurements, and which goals were met.
#[derive(Default)]
pub struct Report {
    parts: String,
    goals: Vec<[String; 4]>,
}

impl Report {
    /// Begins a part.
    pub fn part(&mut self, title: &str, method: &str) {
        let paragraphs: Vec<String> = method.split("\n\n").map(wrap).collect();
        let _ = write!(self.parts, "\n## {title}\n\n{}", paragraphs.join("\n"));
    }

    /// Adds a table to the current part.
    pub fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]]) {
        let _ = write!(self.parts, "\n{}", table(head, rows));
    }

    /// Adds a goal: an upper or a lower bound.
    ///
    /// Compares the number as it is shown, so the report never contradicts itself.
    pub fn goal(&mut self, what: impl Into<String>, value: f64, digits: usize, limit: Limit, unit: &str) {
        let shown = format!("{value:.digits$}");
        let value: f64 = shown.parse().unwrap_or(f64::NAN);
        let (text, bound, is_met) = match limit {
            Limit::AtMost(bound) => ("at most", bound, value <= bound),
            Limit::AtLeast(bound) => ("at least", bound, value >= bound),
        };
        let met = if is_met { "met".to_owned() } else { format!("**missed**, {:.2} of the goal", value / bound) };
        self.goals.push([what.into(), format!("{text} {bound}{unit}"), format!("{shown}{unit}"), met]);
    }

    /// The report as Markdown.
    pub fn text(&self, machine: &str) -> String {
        let goals = table(["Goal", "Limit", "Measured", ""], &self.goals);
        format!("{HEAD}\n{}\n## Goals\n\n{goals}{}", wrap(machine), self.parts)
    }
}

/// The bound of a goal.
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// Wraps a paragraph at 120 characters.
fn wrap(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 120 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

/// A table with padded columns, readable as plain text.
fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let width = |column: usize| {
        let all = rows.iter().chain([&head]);
        all.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    let mut line = |row: &[String; N]| {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
    };
    line(&head);
    line(&widths.map(|width| "-".repeat(width)));
    rows.iter().for_each(line);
    text
}

/// Repeated measurements of one number.
#[derive(Clone, Debug, Default)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn median(&self) -> f64 {
        percentile(&self.0, 50.0)
    }

    pub fn maximum(&self) -> f64 {
        percentile(&self.0, 100.0)
    }

    pub fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        self.0.iter().map(|value| change(*value)).collect()
    }

    /// The median, minimum and maximum, with this many digits.
    pub fn show(&self, digits: usize) -> String {
        let (minimum, maximum) = (percentile(&self.0, 0.0), percentile(&self.0, 100.0));
        format!("{:.digits$} ({minimum:.digits$} to {maximum:.digits$})", self.median())
    }

    /// This series relative to another one, measured alternately: the median of the ratios, which
    /// is not affected by slow moments of the machine.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        let ratios: Vec<f64> = self.0.iter().zip(&other.0).map(|(this, other)| this / other).collect();
        percentile(&ratios, 50.0)
    }

    /// The difference to another series, measured alternately.
    pub fn more_than(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(this, other)| this - other).collect())
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// A percentile, interpolated between neighbours.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = last as f64 * percent / 100.0;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The durations of many events, in several repetitions.
#[derive(Clone, Debug, Default)]
pub struct Times {
    pub p50: Series,
    all: Vec<f64>,
}

impl Times {
    pub fn add(&mut self, times: impl IntoIterator<Item = Duration>) {
        let millis: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        self.p50.add(percentile(&millis, 50.0));
        self.all.extend(millis);
    }

    /// Over all repetitions: a single one has too few events.
    pub fn p99(&self) -> f64 {
        percentile(&self.all, 99.0)
    }
}

/// A number of KiB as MiB.
pub struct Mib(pub f64);

impl Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.0 / 1024.0)
    }
}
