//! The metrics of a gateway, from `/metrics`.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format.
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self {
            samples: lines.map(Sample::parse).collect(),
        }
    }

    /// The sum over all samples of a name.
    pub fn sum(&self, name: &str) -> f64 {
        self.sum_where(name, &[])
    }

    /// The sum over the samples of a name that have all these labels.
    pub fn sum_where(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        };
        self.samples
            .iter()
            .filter(matches)
            .map(|sample| sample.value)
            .sum()
    }

    /// Returns whether there is a sample of that name.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, rest) = match line.split_once('}') {
            Some((series, rest)) => (series, rest),
            None => line
                .split_once(' ')
                .unwrap_or_else(|| panic!("no value in {line:?}")),
        };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let value = rest
            .split_whitespace()
            .next()
            .and_then(|value| value.parse().ok());
        let pairs = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
        Self {
            name: name.to_owned(),
            labels: pairs
                .map(|(k, v)| (k.trim().to_owned(), v.trim_end_matches('"').to_owned()))
                .collect(),
            value: value.unwrap_or_else(|| panic!("no value in {line:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_added_up_by_label() {
        let text = "# TYPE a gauge\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4 1700000000\nb 0.5\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a"), 7.0);
        assert_eq!(metrics.sum_where("a", &[("x", "2"), ("y", "2")]), 4.0);
        assert_eq!(metrics.sum("b"), 0.5);
        assert_eq!(metrics.names(), ["a", "b"]);
        assert!(!metrics.has("c"));
    }
}
