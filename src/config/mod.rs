//! From text to plan: properties files, substitution, config filters, Flume's wiring rules, and what is wrong.
//!
//! This part knows no component. It says which components an agent has and how they are wired; what their own
//! keys mean is for each component to read, through [`Props`].

mod filter;
mod finding;
mod flume_types;
mod java_date;
mod plan;
mod properties;
mod props;
mod provider;
mod substitution;
mod wiring;

pub use finding::{Finding, Origin, Severity, nearest};
pub use flume_types::flume_alias_or_class;
pub use plan::{AgentPlan, ComponentPlan, GroupPlan, Kind, SinkPlan, SourcePlan};
pub use properties::{Property, parse};
pub use props::{FromText, Globals, Props};
pub use provider::{Credentials, Location, ReadError};
pub use substitution::Lookups;

use std::collections::BTreeMap;

/// How a component type is registered: its short names, its Flume class, and what reads its configuration.
#[derive(Clone, Copy, Debug)]
pub struct ComponentType<B> {
    /// Short names, matched in any case.
    pub aliases: &'static [&'static str],
    /// The class name, as existing configurations have it.
    pub class: &'static str,
    /// What reads the configuration.
    pub build: B,
}

/// Finds a type by alias or class name.
pub fn resolve_type<'a, B>(types: &'a [ComponentType<B>], text: &str) -> Option<&'a ComponentType<B>> {
    types.iter().find(|known| {
        known.class.eq_ignore_ascii_case(text) || known.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(text))
    })
}

/// A configuration as read: the plan of every agent in it, and all findings.
#[derive(Debug, Default)]
pub struct Configuration {
    /// Plans by agent name, in alphabetical order. Agents that Flume would remove are not among them.
    pub agents: BTreeMap<String, AgentPlan>,
    /// The names of all agents that the text mentions.
    pub mentioned: Vec<String>,
    /// What is wrong or worth knowing.
    pub findings: Vec<Finding>,
}

impl Configuration {
    /// Puts the findings in the order of the texts, whose names these are; what has no place in them comes last.
    pub fn sort_findings(&mut self, files: &[String]) {
        self.findings.sort_by_key(|finding| {
            let file = |origin: &Origin| files.iter().position(|file| **file == *origin.file).unwrap_or(usize::MAX);
            finding.origin.as_ref().map_or((usize::MAX, 0), |origin| (file(origin), origin.line))
        });
    }
}

/// Reads all texts, later ones overriding earlier ones, and applies substitution, filters and wiring rules.
pub fn load(texts: &[(String, Vec<u8>)], lookups: &Lookups) -> Configuration {
    let mut findings = Vec::new();
    let mut merged: BTreeMap<String, Property> = BTreeMap::new();
    for (file, text) in texts {
        let mut in_this_file: BTreeMap<String, Origin> = BTreeMap::new();
        for property in properties::parse(file, text, &mut findings) {
            if let Some(first) = in_this_file.insert(property.key.clone(), property.origin.clone()) {
                let message = format!("set twice: the value of line {} is replaced by this one", first.line);
                findings.push(Finding::warning(message).at(&property.key, &property.value, &property.origin));
            }
            merged.insert(property.key.clone(), property);
        }
    }
    let variables = substitution::resolve(&mut merged, lookups, &mut findings);
    wiring::plan(merged, &variables, findings)
}
