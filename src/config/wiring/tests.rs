use super::super::{Lookups, load};
use super::*;

fn loaded(text: &str) -> (Configuration, Vec<String>) {
    let configuration = load(&[("f".to_owned(), text.as_bytes().to_vec())], &Lookups::default());
    let findings = configuration.findings.iter().map(Finding::log_line).collect();
    (configuration, findings)
}

const GOOD: &str = "a1.sources = r1\na1.channels = c1\na1.sinks = k1\na1.sources.r1.type = netcat\na1.sources.r1.channels = c1\n\
                    a1.channels.c1.type = memory\na1.sinks.k1.type = logger\na1.sinks.k1.channel = c1\n";

fn with(lines: &str) -> (Configuration, Vec<String>) {
    loaded(&format!("{GOOD}{lines}"))
}

fn names<'a>(plans: impl IntoIterator<Item = &'a ComponentPlan>) -> Vec<&'a str> {
    plans.into_iter().map(|plan| plan.name.as_str()).collect()
}

#[test]
fn a_good_file_has_no_findings() {
    let (configuration, findings) = loaded(GOOD);
    assert_eq!(findings, Vec::<String>::new());
    let plan = &configuration.agents["a1"];
    assert_eq!(plan.sources[0].channels, ["c1"]);
    assert_eq!(plan.sinks[0].channel, "c1");
}

#[test]
fn agent_names_may_have_dashes_and_digits_and_several_agents_share_a_file() {
    let text = format!("{GOOD}{}", GOOD.replace("a1.", "exec-memory-avro."));
    let (configuration, findings) = loaded(&text);
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(configuration.mentioned, ["a1", "exec-memory-avro"]);
}

#[test]
fn flumes_words_come_with_line_and_suggestion() {
    let (configuration, findings) = with("a1.sinks.k1.channels = c1\na1.sinks.k1.channel =\n");
    assert!(configuration.agents["a1"].sinks.is_empty());
    let dropped = findings.iter().find(|f| f.starts_with("Could not configure sink  k1 due to: No channel configured for sink: k1 (f:7: error: a1.sinks.k1.channel")).expect("the finding");
    assert!(dropped.ends_with("a sink has \"channel\", a source has \"channels\""), "{dropped}");
    assert!(
        findings.iter().any(|f| f.starts_with("Configuration property ignored: a1.sinks.k1.channel =  (f:10")),
        "{findings:?}"
    );
}

#[test]
fn an_unknown_channel_drops_only_what_needs_it() {
    let (configuration, findings) = with("a1.sources.r1.channels = c1 cc1\na1.sinks.k1.channel = c2\n");
    let plan = &configuration.agents["a1"];
    assert_eq!(plan.sources[0].channels, ["c1"]);
    assert_eq!(names(plan.sinks.iter().map(|s| &s.component)), Vec::<&str>::new());
    assert!(
        findings.iter().any(|f| f.contains("there is no channel cc1") && f.contains("did you mean \"c1\"")),
        "{findings:?}"
    );
    assert!(
        findings.iter().any(|f| f.starts_with("Could not configure sink  k1 due to: Channel c2 not in active set.")),
        "{findings:?}"
    );
}

#[test]
fn an_agent_without_channels_is_removed() {
    let (configuration, findings) =
        loaded("a1.sources = r1\na1.sources.r1.type = netcat\na1.channels.c1.type = memory\n");
    assert!(configuration.agents.is_empty());
    assert!(
        findings.iter().any(|f| f
            .starts_with("Agent configuration for 'a1' does not contain any channels. Marking it as invalid.")
            && f.ends_with("add a1.channels = c1")),
        "{findings:?}"
    );
    assert!(findings.iter().any(|f| f.starts_with("Agent configuration invalid for agent 'a1'. It will be removed.")));
}

#[test]
fn wrong_kinds_and_keys_are_named() {
    let (_, findings) = with(
        "a1.Sources = r1\na1.source.r1.port = 1\na1.sources.r1 = x\nport = 5\nUSED = 1\na1.sources.r1.max = ${USED}\n",
    );
    assert!(
        findings.iter().any(|f| f.contains("a1.Sources") && f.ends_with("did you mean \"a1.sources\"?")),
        "{findings:?}"
    );
    assert!(
        findings.iter().any(|f| f.contains("a1.source.r1.port") && f.ends_with("did you mean \"a1.sources\"?")),
        "{findings:?}"
    );
    assert!(findings.iter().any(|f| f.contains("expected a key after the source's name")), "{findings:?}");
    assert!(findings.iter().any(|f| f.starts_with("Configuration property ignored: port = 5")), "{findings:?}");
    assert!(!findings.iter().any(|f| f.contains("USED")), "{findings:?}");
}

#[test]
fn commas_do_not_separate() {
    let (_, findings) = with("a1.sources = r1,r2\n");
    assert!(
        findings.iter().any(|f| f.starts_with("Configuration empty for: r1,r2.Removed.") && f.ends_with("not commas")),
        "{findings:?}"
    );
}

#[test]
fn a_sink_is_in_one_group() {
    let (configuration, findings) =
        with("a1.sinkgroups = g1 g2\na1.sinkgroups.g1.sinks = k1 k9\na1.sinkgroups.g2.sinks = k1\n");
    let plan = &configuration.agents["a1"];
    assert_eq!(plan.groups.len(), 1);
    assert!(
        findings
            .iter()
            .any(|f| f
                .starts_with("Agent configuration for 'a1' sinkgroup 'g1' sink not found: 'k9',  sink not added")),
        "{findings:?}"
    );
    assert!(
        findings.iter().any(|f| f.starts_with(
            "Agent configuration for 'a1' sinkgroup 'g2' sink 'k1' in use by another group: 'g1', sink not added"
        )),
        "{findings:?}"
    );
}

#[test]
fn components_and_values_set_twice_are_named() {
    let (_, findings) = with("a1.sinks = k1 k1\na1.sources.r2.type = seq\n");
    assert!(findings.iter().any(|f| f.contains("set twice: the value of line 3")), "{findings:?}");
    assert!(findings.iter().any(|f| f.contains("names sink k1 twice")), "{findings:?}");
    assert!(
        findings
            .iter()
            .any(|f| f.contains("source r2 is not in a1.sources = r1") && f.contains("add r2 to a1.sources")),
        "{findings:?}"
    );
}
