//! What the tests of the parts have in common.

use std::collections::BTreeMap;

use crate::config::{Globals, Props, parse};

/// Reads options from lines without their prefix, which is `kafka.producer.` or `kafka.consumer.`, whichever is asked
/// for. Gives what was noted about them: the key and the message.
pub fn with_props<T>(text: &str, read: impl Fn(&Props<'_>) -> T) -> (T, Vec<String>) {
    let lines = text.lines().flat_map(|line| ["producer", "consumer"].map(|who| format!("kafka.{who}.{line}\n")));
    let mut findings = Vec::new();
    let properties = parse("test.conf", lines.collect::<String>().as_bytes(), &mut findings);
    assert_eq!(findings, []);
    let entries: BTreeMap<_, _> = properties.into_iter().map(|property| (property.key.clone(), property)).collect();
    let globals = Globals::default();
    let props = Props::new("a1.sinks.k1", &entries, None, &globals);
    let value = read(&props);
    let own = |key: &str| key.strip_prefix("a1.sinks.k1.").unwrap_or(key).to_owned();
    let noted = props.into_findings().into_iter().filter(|finding| finding.message != "unknown key, ignored");
    let noted =
        noted.map(|finding| format!("{}: {}", own(finding.key.as_deref().unwrap_or_default()), finding.message));
    (value, noted.collect())
}
