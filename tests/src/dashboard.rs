//! The shipped dashboard, as far as a test can be a reader of it: its queries, with Grafana's
//! variables filled in, and what a Prometheus answers to them.

use procstorm_testkit::fault::{Fault, OrFault as _};
use serde_json::{Map, Value};

use crate::prometheus::Prometheus;

/// How much a reader sees, in seconds: ten minutes, in steps of 20 s.
const TEN_MINUTES: Span = Span { range: 600, step: 20 };

/// The range of a dashboard, and the step of its graphs, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    range: i64,
    step: i64,
}

impl Span {
    /// Puts Grafana's variables into an expression, for a reader who chooses these users, and all
    /// jobs, roles and hosts. A name that begins another one comes after it.
    fn fill(self, expression: &str, users: &str) -> String {
        let Self { range, step } = self;
        let times = [
            ("$__rate_interval", format!("{}s", step.max(20))),
            ("$__interval", format!("{step}s")),
            ("$__range_s", range.to_string()),
            ("$__range", format!("{range}s")),
        ];
        let chosen = [("$job", ".*"), ("$host", ".*"), ("$role", ".*"), ("$user", users)];
        let chosen = chosen.map(|(name, value)| (name, value.to_owned()));
        let fill = |text: String, (name, value): (&str, String)| text.replace(name, &value);
        times.into_iter().chain(chosen).fold(expression.to_owned(), fill)
    }
}

/// One query of the dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The panel's, annotation's or variable's title, and the query's letter.
    pub place: String,
    /// PromQL, without variables.
    pub expression: String,
}

/// A dashboard's file.
#[derive(Debug, Clone)]
pub struct Dashboard(Value);

impl Dashboard {
    /// Reads a dashboard.
    pub fn read(json: &str) -> Result<Self, Fault> {
        serde_json::from_str(json).map(Self).or_fault("the dashboard is not JSON")
    }

    fn list(&self, pointer: &str) -> impl Iterator<Item = &Value> {
        self.0.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
    }

    /// The panels that show data, with their titles.
    #[must_use]
    pub fn panels(&self) -> Vec<(String, Vec<Query>)> {
        let shows_data = |panel: &&Value| text(panel, "type") != "row";
        let panels = self.list("/panels").filter(shows_data);
        panels.map(|panel| (text(panel, "title").to_owned(), queries_of(panel))).collect()
    }

    /// The queries of the annotations that Prometheus answers.
    #[must_use]
    pub fn annotations(&self) -> Vec<Query> {
        let annotations =
            self.list("/annotations/list").filter(|one| !text(one, "expr").is_empty());
        annotations.map(|one| query(text(one, "name"), text(one, "expr"))).collect()
    }

    /// What the variables offer. `label_values(SERIES, LABEL)` is Grafana's own; to Prometheus it
    /// is the series that have the label.
    #[must_use]
    pub fn variables(&self) -> Vec<Query> {
        let offer = |one: &Value| {
            let inside =
                text(one, "definition").strip_prefix("label_values(")?.strip_suffix(')')?;
            let (series, label) = inside.rsplit_once(", ")?;
            Some(query(text(one, "name"), &format!("group by ({label}) ({series})")))
        };
        self.list("/templating/list").filter_map(offer).collect()
    }

    /// The dashboard's identifier, which the alerts' links name.
    #[must_use]
    pub fn uid(&self) -> &str {
        text(&self.0, "uid")
    }

    /// The queries of the panel with this title.
    pub fn panel(&self, title: &str) -> Result<Vec<Query>, Fault> {
        let found = self.panels().into_iter().find(|(name, _)| name == title);
        let (_, queries) = found.ok_or_else(|| Fault::new(format!("no panel {title:?}")))?;
        Ok(queries)
    }

    /// The file itself, for what a panel looks like.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// The titles of all panels, annotations and variables that show nothing. A query that
    /// Prometheus refuses is a fault.
    pub fn empty(&self, prometheus: &Prometheus) -> Result<Vec<String>, Fault> {
        let mut empty = Vec::new();
        let alone = self.annotations().into_iter().chain(self.variables());
        let alone = alone.map(|query| (query.place.clone(), vec![query]));
        for (title, queries) in self.panels().into_iter().chain(alone) {
            let mut shown = 0;
            for query in queries {
                let answer = prometheus.query(&query.expression).or_fault(&query.place)?;
                // A quantile of nothing is not a number: Grafana draws nothing.
                shown += answer.iter().filter(|sample| !sample.value.is_nan()).count();
            }
            if shown == 0 {
                empty.push(title);
            }
        }
        Ok(empty)
    }

    /// What Prometheus answers to each query of a panel, for a reader who looks at these users in the last
    /// `range` seconds: the result, by the panel's id and the query's letter. Steps are those of Grafana:
    /// as many as the panel has points at most, and multiples of five seconds.
    pub fn answers(
        &self,
        prometheus: &Prometheus,
        users: &str,
        now: i64,
        range: i64,
    ) -> Result<Map<String, Value>, Fault> {
        let mut answers = Map::new();
        for panel in self.list("/panels") {
            let points = panel.get("maxDataPoints").and_then(Value::as_i64).unwrap_or(range / 5);
            let step = 5 * (range / points.max(1)).div_euclid(5).max(1);
            let targets = panel.get("targets").and_then(Value::as_array);
            for target in targets.into_iter().flatten() {
                let query = Span { range, step }.fill(text(target, "expr"), users);
                let result = if target.get("instant") == Some(&Value::Bool(true)) {
                    prometheus.result("query", &[("query", &query), ("time", &now.to_string())])
                } else {
                    let [start, end] = [now - range, now].map(|at| (at - at % step).to_string());
                    let step = step.to_string();
                    let span = [("start", &start), ("end", &end), ("step", &step)];
                    let span = span.map(|(name, value)| (name, value.as_str()));
                    prometheus
                        .result("query_range", &[&[("query", query.as_str())][..], &span].concat())
                };
                let id = panel.get("id").and_then(Value::as_i64).unwrap_or_default();
                let result = result.or_fault(text(panel, "title"))?;
                answers.insert(format!("{id}{}", text(target, "refId")), result);
            }
        }
        Ok(answers)
    }
}

fn text<'a>(json: &'a Value, key: &str) -> &'a str {
    json.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn queries_of(panel: &Value) -> Vec<Query> {
    let targets = panel.get("targets").and_then(Value::as_array);
    let place = |target| format!("{} {}", text(panel, "title"), text(target, "refId"));
    let targets = targets.into_iter().flatten();
    targets.map(|target| query(&place(target), text(target, "expr"))).collect()
}

fn query(place: &str, expression: &str) -> Query {
    Query { place: place.to_owned(), expression: TEN_MINUTES.fill(expression, ".*") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let json = r#"{"panels": [{"type": "row", "title": "r"}, {"title": "p", "targets":
            [{"refId": "A", "expr": "rate(x{host=~\"$host\"}[$__rate_interval])"}]}],
            "templating": {"list": [{"name": "host", "definition": "label_values(up{a=\"b\"}, host)"}]}}"#;
        let dashboard = Dashboard::read(json).unwrap();
        let [(title, queries)] = &dashboard.panels()[..] else { panic!("one panel") };
        assert_eq!(title, "p");
        assert_eq!(queries[0].place, "p A");
        assert_eq!(queries[0].expression, "rate(x{host=~\".*\"}[20s])");
        assert_eq!(dashboard.variables()[0].expression, "group by (host) (up{a=\"b\"})");
    }
}
