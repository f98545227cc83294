//! Flume's wiring rules: which components a text names, and how they hang together.
//!
//! A component that breaks a rule is dropped and the others stay, exactly where Flume does so; the findings carry
//! Flume's own words. Where Flume ends the agent or silences components that its documentation promises to run (a
//! sink group without a type, a group without sinks), the documentation is followed.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, Origin, nearest};
use super::plan::{AgentPlan, ComponentPlan, GroupPlan, Kind, SinkPlan, SourcePlan};
use super::properties::Property;
use super::{Configuration, filter};

/// The keys of one component as they are written.
#[derive(Clone, Debug, Default)]
pub struct Section(BTreeMap<String, Property>);

impl Section {
    /// One key.
    pub fn get(&self, key: &str) -> Option<&Property> {
        self.0.get(key)
    }

    /// The first line that speaks of it.
    pub fn origin(&self) -> Option<&Origin> {
        self.0.values().map(|property| &property.origin).min_by_key(|origin| origin.line)
    }
}

/// A list such as `a1.sources = r1 r2`.
#[derive(Clone, Debug)]
pub struct List {
    /// The names.
    pub names: Vec<String>,
    /// Where it stands.
    pub origin: Origin,
    value: String,
}

/// What a text says of one agent, before the rules.
#[derive(Debug, Default)]
pub struct AgentSection {
    /// The name.
    pub name: String,
    lists: BTreeMap<Kind, List>,
    sections: BTreeMap<(Kind, String), Section>,
}

impl AgentSection {
    /// The list of a kind.
    pub fn list(&self, kind: Kind) -> Option<&List> {
        self.lists.get(&kind)
    }

    /// The keys of a component.
    pub fn section(&self, kind: Kind, name: &str) -> Option<&Section> {
        self.sections.get(&(kind, name.to_owned()))
    }

    /// The first line that speaks of it.
    pub fn origin(&self) -> Option<&Origin> {
        let lists = self.lists.values().map(|list| &list.origin);
        let sections = self.sections.values().filter_map(Section::origin);
        lists.chain(sections).min_by_key(|origin| origin.line)
    }

    /// The keys of all components but the filters, by their whole names.
    pub fn component_properties_mut(&mut self) -> impl Iterator<Item = (String, &mut Property)> {
        let agent = &self.name;
        self.sections.iter_mut().filter(|((kind, _), _)| *kind != Kind::ConfigFilter).flat_map(
            move |((kind, name), section)| {
                let prefix = format!("{agent}.{}.{name}", kind.plural());
                section.0.iter_mut().map(move |(key, property)| (format!("{prefix}.{key}"), property))
            },
        )
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Applies the rules to all properties. `variables` are the names that values refer to.
pub fn plan(
    properties: BTreeMap<String, Property>,
    variables: &BTreeSet<String>,
    mut findings: Vec<Finding>,
) -> Configuration {
    let mut agents: BTreeMap<String, AgentSection> = BTreeMap::new();
    for property in properties.into_values() {
        sort_in(property, variables, &mut agents, &mut findings);
    }
    let mut configuration = Configuration { mentioned: agents.keys().cloned().collect(), ..Configuration::default() };
    for (name, mut section) in agents {
        filter::apply(&mut section, &mut findings);
        let rules = Rules { agent: &section, findings: &mut findings };
        match rules.apply() {
            Some(plan) => {
                configuration.agents.insert(name, plan);
            }
            None => {
                let flume = format!("Agent configuration invalid for agent '{name}'. It will be removed.");
                findings.push(
                    Finding::error(format!("agent {name} has nothing that could run"))
                        .missing(&name, section.origin())
                        .as_flume(flume),
                );
            }
        }
    }
    configuration.findings = findings;
    configuration
}

/// Puts one property where it belongs.
fn sort_in(
    property: Property,
    variables: &BTreeSet<String>,
    agents: &mut BTreeMap<String, AgentSection>,
    findings: &mut Vec<Finding>,
) {
    let Property { key, value, origin } = &property;
    let ignored = format!("Configuration property ignored: {key} = {value}");
    let mut ignore = |message: &str, help: Option<String>| {
        let finding = Finding::warning(message).at(key, value, origin).as_flume(&ignored);
        findings.push(Finding { help, ..finding });
    };
    if value.is_empty() {
        return ignore("has no value and is ignored", None);
    }
    let Some((agent, rest)) = key.split_once('.').filter(|(agent, rest)| !agent.is_empty() && !rest.is_empty()) else {
        if !variables.contains(key) {
            ignore("ignored: expected AGENT.KIND or AGENT.KIND.COMPONENT.KEY", None);
        }
        return;
    };
    let section =
        agents.entry(agent.to_owned()).or_insert_with(|| AgentSection { name: agent.to_owned(), ..Default::default() });
    let (kind_text, component) = rest.split_once('.').map_or((rest, None), |(kind, component)| (kind, Some(component)));
    let kind = Kind::from_plural(kind_text);
    match (kind, component) {
        (Some(kind), None) => {
            // Flume splits this one list at single blanks only; a tab would stay in a name, which nobody wants.
            let list = List { names: words(value), origin: origin.clone(), value: value.clone() };
            section.lists.insert(kind, list);
        }
        (Some(kind), Some(component)) => match component.split_once('.') {
            Some((name, key)) if !name.is_empty() && !key.is_empty() => {
                let section = section.sections.entry((kind, name.to_owned())).or_default();
                section.0.insert(key.to_owned(), property.clone());
            }
            _ => ignore(&format!("ignored: expected a key after the {kind}'s name"), None),
        },
        (None, _) => {
            let kinds = Kind::ALL.map(Kind::plural);
            let singular = Kind::ALL.into_iter().find(|kind| kind.plural().strip_suffix('s') == Some(kind_text));
            let near = singular.map(Kind::plural).or_else(|| nearest(kind_text, kinds));
            let help = near.map(|near| format!("did you mean \"{agent}.{near}\"?"));
            let variable = variables.contains(key);
            if !variable {
                ignore(&format!("ignored: expected one of {} after the agent's name", kinds.join(", ")), help);
            }
            // A name with a dot that is no agent's is no reason to speak of an agent.
            if section.lists.is_empty() && section.sections.is_empty() {
                agents.remove(agent);
            }
        }
    }
}

struct Rules<'a> {
    agent: &'a AgentSection,
    findings: &'a mut Vec<Finding>,
}

impl Rules<'_> {
    fn apply(mut self) -> Option<AgentPlan> {
        let name = &self.agent.name;
        self.unlisted();
        let mut plan = AgentPlan { name: name.clone(), ..AgentPlan::default() };
        if self.agent.list(Kind::Channel).is_none() {
            let flume =
                format!("Agent configuration for '{name}' does not contain any channels. Marking it as invalid.");
            self.missing_list(Kind::Channel, flume);
            return None;
        }
        plan.channels = self.channels();
        if plan.channels.is_empty() {
            let flume =
                format!("Agent configuration for '{name}' does not contain any valid channels. Marking it as invalid.");
            self.findings.push(
                Finding::error(format!("agent {name} has no channel that could run"))
                    .missing(format!("{name}.channels"), self.agent.origin())
                    .as_flume(flume),
            );
            return None;
        }
        let channels: Vec<&str> = plan.channels.iter().map(|channel| channel.name.as_str()).collect();
        plan.sources = self.sources(&channels);
        plan.sinks = self.sinks(&channels);
        plan.groups = self.groups(&plan.sinks);
        if plan.sources.is_empty() && plan.sinks.is_empty() {
            let flume = format!("Agent configuration for '{name}' has no sources or sinks. Will be marked invalid.");
            self.findings.push(
                Finding::error(format!("agent {name} has neither a source nor a sink that could run"))
                    .missing(name, self.agent.origin())
                    .as_flume(flume),
            );
            return None;
        }
        Some(plan)
    }

    fn key(&self, kind: Kind, component: &str, key: &str) -> String {
        format!("{}.{}.{component}.{key}", self.agent.name, kind.plural())
    }

    fn missing_list(&mut self, kind: Kind, flume: String) {
        let key = format!("{}.{}", self.agent.name, kind.plural());
        let names: Vec<&str> =
            self.agent.sections.keys().filter(|(other, _)| *other == kind).map(|(_, name)| name.as_str()).collect();
        let finding = Finding::error(format!("missing: expected the names of the {}", kind.plural()))
            .missing(&key, self.agent.origin());
        let finding = if names.is_empty() { finding } else { finding.help(format!("add {key} = {}", names.join(" "))) };
        // Only the lack of channels is fatal to an agent; Flume runs one without sources or without sinks.
        let fatal = kind == Kind::Channel;
        let severity = if fatal { finding.severity } else { super::Severity::Warning };
        self.findings.push(Finding { severity, ..finding.as_flume(flume) });
    }

    /// Components that have keys but stand in no list. Flume says nothing about them.
    fn unlisted(&mut self) {
        for ((kind, name), section) in &self.agent.sections {
            let Some(list) = self.agent.list(*kind) else { continue };
            if list.names.contains(name) {
                continue;
            }
            let Some((key, property)) = section.0.iter().min_by_key(|(_, property)| property.origin.line) else {
                continue;
            };
            let list_key = format!("{}.{}", self.agent.name, kind.plural());
            let finding = Finding::warning(format!(
                "{kind} {name} is not in {list_key} = {} and does not run",
                list.value
            ))
            .at(self.key(*kind, name, key), &property.value, &property.origin);
            let missing = list.names.iter().filter(|listed| self.agent.section(*kind, listed).is_none());
            let finding = finding.nearest(name, missing.map(String::as_str));
            let help =
                finding.help.clone().unwrap_or_else(|| format!("add {name} to {list_key}, or take its lines out"));
            self.findings.push(finding.help(help));
        }
    }

    /// The components of a kind that have keys and a type.
    fn typed(
        &mut self,
        kind: Kind,
        no_properties: impl Fn(&str) -> String,
        failed: impl Fn(&str, &str) -> String,
    ) -> Vec<ComponentPlan> {
        let Some(list) = self.agent.list(kind) else { return Vec::new() };
        let list_key = format!("{}.{}", self.agent.name, kind.plural());
        let mut plans: Vec<ComponentPlan> = Vec::new();
        let mut seen = BTreeSet::new();
        for name in &list.names {
            if !seen.insert(name) {
                let finding = Finding::warning(format!("names {kind} {name} twice; there is one"));
                self.findings.push(finding.at(&list_key, &list.value, &list.origin));
                continue;
            }
            let Some(section) = self.agent.section(kind, name) else {
                let finding = Finding::error(format!("{kind} {name} has no properties and does not run"))
                    .at(&list_key, &list.value, &list.origin)
                    .as_flume(no_properties(name));
                let names = self
                    .agent
                    .sections
                    .keys()
                    .filter(|(other, other_name)| *other == kind && !list.names.contains(other_name));
                let comma = name.contains(',').then(|| "separate names with blanks, not commas".to_owned());
                let finding = finding.nearest(name, names.map(|(_, name)| name.as_str()));
                let help = comma.or(finding.help.clone());
                self.findings.push(Finding { help, ..finding });
                continue;
            };
            let type_key = if kind == Kind::SinkGroup { "processor.type" } else { "type" };
            let type_name = match section.get(type_key) {
                Some(property) => property.value.clone(),
                None if kind == Kind::SinkGroup => String::new(),
                None => {
                    let reason = format!("Component has no type. Cannot configure. {name}");
                    let finding = Finding::error(format!("missing: expected a {kind} type"))
                        .missing(self.key(kind, name, type_key), section.origin())
                        .as_flume(failed(name, &reason));
                    self.findings.push(finding);
                    continue;
                }
            };
            plans.push(ComponentPlan { kind, name: name.clone(), type_name, properties: section.0.clone() });
        }
        plans
    }

    fn channels(&mut self) -> Vec<ComponentPlan> {
        let failed = |name: &str, why: &str| format!("Could not configure channel {name} due to: {why}");
        self.typed(Kind::Channel, |name| format!("Configuration empty for: {name}. Removed."), failed)
    }

    /// Notes that a component lacks its channel, and what to do when it has the other kind's key.
    fn missing_wiring(&mut self, finding: Finding, component: &ComponentPlan, key: String, other: (&str, &str)) {
        let (other_key, help) = other;
        let help = component.properties.contains_key(other_key).then(|| help.to_owned());
        self.findings.push(Finding { help, ..finding }.missing(key, component.origin()));
    }

    fn sources(&mut self, channels: &[&str]) -> Vec<SourcePlan> {
        if self.agent.list(Kind::Source).is_none() {
            self.missing_list(Kind::Source, format!("Agent configuration for '{}' has no sources.", self.agent.name));
        }
        // Two blanks after "source", as Flume writes it.
        let failed = |name: &str, why: &str| format!("Could not configure source  {name} due to: {why}");
        let typed = self.typed(Kind::Source, |name| format!("Configuration empty for: {name}.Removed."), failed);
        let mut sources = Vec::new();
        for component in typed {
            let name = component.name.clone();
            let key = self.key(Kind::Source, &name, "channels");
            let Some(property) = component.properties.get("channels") else {
                let finding = Finding::error("missing: expected the names of the source's channels");
                let other = ("channel", "a source has \"channels\", a sink has \"channel\"");
                self.missing_wiring(
                    finding.as_flume(failed(&name, "Failed to configure component!")),
                    &component,
                    key,
                    other,
                );
                continue;
            };
            let (known, unknown): (Vec<String>, Vec<String>) =
                words(&property.value).into_iter().partition(|channel| channels.contains(&channel.as_str()));
            for channel in &unknown {
                let finding = Finding::error(format!("there is no channel {channel} that could run")).at(
                    &key,
                    &property.value,
                    &property.origin,
                );
                let comma = channel.contains(',').then(|| "separate names with blanks, not commas".to_owned());
                let finding = finding.nearest(channel, channels.iter().copied());
                let help = comma.or(finding.help.clone());
                let finding = Finding { help, ..finding };
                self.findings.push(if known.is_empty() {
                    finding.as_flume(failed(&name, &format!("No Channels configured for {name}")))
                } else {
                    finding
                });
            }
            let mut unique: Vec<String> = Vec::new();
            for channel in known {
                if !unique.contains(&channel) {
                    unique.push(channel);
                }
            }
            if !unique.is_empty() {
                sources.push(SourcePlan { component, channels: unique });
            }
        }
        sources
    }

    fn sinks(&mut self, channels: &[&str]) -> Vec<SinkPlan> {
        if self.agent.list(Kind::Sink).is_none() {
            self.missing_list(Kind::Sink, format!("Agent configuration for '{}' has no sinks.", self.agent.name));
        }
        let failed = |name: &str, why: &str| format!("Could not configure sink  {name} due to: {why}");
        let typed = self.typed(Kind::Sink, |name| format!("no context for sink{name}"), failed);
        let mut sinks = Vec::new();
        for component in typed {
            let name = component.name.clone();
            let key = self.key(Kind::Sink, &name, "channel");
            let Some(property) = component.properties.get("channel") else {
                let finding = Finding::error("missing: expected the name of the sink's channel");
                let flume = failed(&name, &format!("No channel configured for sink: {name}"));
                let other = ("channels", "a sink has \"channel\", a source has \"channels\"");
                self.missing_wiring(finding.as_flume(flume), &component, key, other);
                continue;
            };
            let channel = property.value.clone();
            if !channels.contains(&channel.as_str()) {
                let several = channel.contains(char::is_whitespace);
                let expected = if several {
                    "a sink has exactly one channel".to_owned()
                } else {
                    format!("there is no channel {channel} that could run")
                };
                let finding = Finding::error(expected)
                    .at(key, &channel, &property.origin)
                    .nearest(&channel, channels.iter().copied())
                    .as_flume(failed(&name, &format!("Channel {channel} not in active set.")));
                self.findings.push(finding);
                continue;
            }
            sinks.push(SinkPlan { component, channel });
        }
        sinks
    }

    fn groups(&mut self, sinks: &[SinkPlan]) -> Vec<GroupPlan> {
        let agent = &self.agent.name;
        let failed = |name: &str, why: &str| format!("Could not configure sink group {name} due to: {why}");
        let typed = self.typed(Kind::SinkGroup, |name| format!("Configuration error for: {name}.Removed."), failed);
        let mut used: BTreeMap<String, String> = BTreeMap::new();
        let mut groups = Vec::new();
        for component in typed {
            let name = component.name.clone();
            let key = self.key(Kind::SinkGroup, &name, "sinks");
            let Some(property) = component.properties.get("sinks") else {
                let finding = Finding::error("missing: expected the names of the group's sinks; Flume would end here")
                    .missing(key, component.origin());
                self.findings.push(finding);
                continue;
            };
            let mut members = Vec::new();
            for sink in words(&property.value) {
                let problem = if let Some(other) = used.get(&sink) {
                    let flume = format!(
                        "Agent configuration for '{agent}' sinkgroup '{name}' sink '{sink}' in use by another group: '{other}', sink not added"
                    );
                    Some((format!("sink {sink} is in group {other} already"), flume))
                } else if !sinks.iter().any(|plan| plan.component.name == sink) {
                    let flume = format!(
                        "Agent configuration for '{agent}' sinkgroup '{name}' sink not found: '{sink}',  sink not added"
                    );
                    Some((format!("there is no sink {sink} that could run"), flume))
                } else {
                    None
                };
                match problem {
                    Some((message, flume)) => {
                        let names = sinks.iter().map(|plan| plan.component.name.as_str());
                        let finding = Finding::error(message).at(&key, &property.value, &property.origin);
                        self.findings.push(finding.nearest(&sink, names).as_flume(flume));
                    }
                    None => {
                        used.insert(sink.clone(), name.clone());
                        members.push(sink);
                    }
                }
            }
            if members.is_empty() {
                let why = format!("No available sinks for sinkgroup: {name}. Sinkgroup will be removed");
                let finding =
                    Finding::error("the group has no sink that could run").at(&key, &property.value, &property.origin);
                self.findings.push(finding.as_flume(failed(&name, &why)));
                continue;
            }
            groups.push(GroupPlan { component, sinks: members });
        }
        groups
    }
}

#[cfg(test)]
mod tests;
