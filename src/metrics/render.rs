//! Samples as text: Flume's JSON and the Prometheus exposition format.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Sample;

/// Flume's JSON: one object with a member `KIND.name` per component, in which every value is a string.
pub fn json(samples: &[Sample]) -> String {
    let mut groups = Map::new();
    for sample in samples {
        let attributes = sample.attributes.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str())));
        groups.insert(format!("{}.{}", sample.kind, sample.name), Value::Object(attributes.collect()));
    }
    Value::Object(groups).to_string()
}

/// Attributes that go up and down.
const GAUGES: [&str; 6] =
    ["StartTime", "StopTime", "OpenConnectionCount", "ChannelCapacity", "ChannelSize", "ChannelFillPercentage"];

/// Prometheus text: `flume_source_event_received_total{name="r1"} 10` and so on, one family per attribute.
pub fn prometheus(samples: &[Sample]) -> String {
    struct Family<'a> {
        name: String,
        kind: &'a str,
        values: Vec<(&'a str, f64)>,
    }
    let mut families: Vec<Family<'_>> = Vec::new();
    for sample in samples {
        for (attribute, value) in &sample.attributes {
            let Ok(number) = value.parse::<f64>() else { continue };
            let gauge = GAUGES.contains(attribute);
            let base = attribute.strip_suffix("Count").filter(|_| !gauge).unwrap_or(attribute);
            let suffix = if gauge { "" } else { "_total" };
            let name = format!("flume_{}_{}{suffix}", sample.kind.to_lowercase(), snake_case(base));
            let kind = if gauge { "gauge" } else { "counter" };
            match families.iter_mut().find(|family| family.name == name) {
                Some(family) => family.values.push((&sample.name, number)),
                None => families.push(Family { name, kind, values: vec![(&sample.name, number)] }),
            }
        }
    }
    let mut text = String::new();
    for Family { name, kind, values } in families {
        writeln!(text, "# TYPE {name} {kind}").ok();
        for (component, value) in values {
            let component = component.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            writeln!(text, "{name}{{name=\"{component}\"}} {value}").ok();
        }
    }
    text
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Sample> {
        let attributes = vec![
            ("Type", "CHANNEL".to_owned()),
            ("ChannelSize", "3".to_owned()),
            ("EventPutSuccessCount", "7".to_owned()),
        ];
        vec![Sample { kind: "CHANNEL", name: "c\"1".to_owned(), attributes }]
    }

    #[test]
    fn json_values_are_strings() {
        let value: Value = serde_json::from_str(&json(&sample())).expect("valid JSON");
        assert_eq!(value["CHANNEL.c\"1"]["ChannelSize"], "3");
        assert_eq!(value["CHANNEL.c\"1"]["Type"], "CHANNEL");
    }

    #[test]
    fn prometheus_has_counters_and_gauges() {
        assert_eq!(
            prometheus(&sample()),
            "# TYPE flume_channel_channel_size gauge\nflume_channel_channel_size{name=\"c\\\"1\"} 3\n\
             # TYPE flume_channel_event_put_success_total counter\nflume_channel_event_put_success_total{name=\"c\\\"1\"} 7\n"
        );
    }
}
