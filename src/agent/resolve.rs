//! From a plan to components that can be built: types are looked up and every key is read.

use crate::channel::{self, ChannelConfig, file};
use crate::config::{
    AgentPlan, ComponentPlan, ComponentType, Finding, Globals, GroupPlan, Kind, Props, flume_alias_or_class,
    resolve_type,
};
use crate::interceptor::Chain;
use crate::selector::{self, Selector};
use crate::sink::processor::{self, SinkProcessor};
use crate::sink::{self, SinkConfig};
use crate::source::{self, SourceConfig};

/// A sink's key for the channel that takes what it can never deliver. Flume has no such thing.
const DEAD_LETTERS: &str = "deadLetterChannel";

/// A channel that can be built.
pub struct ResolvedChannel {
    /// As it is written.
    pub plan: ComponentPlan,
    /// Its Flume class.
    pub class: &'static str,
    /// Its keys, read.
    pub config: Box<dyn ChannelConfig>,
}

/// A source that can be built.
pub struct ResolvedSource {
    /// As it is written.
    pub plan: ComponentPlan,
    /// Its Flume class.
    pub class: &'static str,
    /// Its keys, read.
    pub config: Box<dyn SourceConfig>,
    /// The names of its channels, of those that exist.
    pub channels: Vec<String>,
    /// Its interceptors.
    pub chain: Chain,
    /// Its selector.
    pub selector: Box<dyn Selector>,
}

impl ResolvedSource {
    /// Whether a channel must take what the source delivers.
    fn requires(&self, channel: &str) -> bool {
        self.channels.iter().position(|name| name == channel).is_some_and(|number| self.selector.requires(number))
    }
}

/// A sink that can be built.
pub struct ResolvedSink {
    /// As it is written.
    pub plan: ComponentPlan,
    /// Its Flume class.
    pub class: &'static str,
    /// Its keys, read.
    pub config: Box<dyn SinkConfig>,
    /// The name of its channel.
    pub channel: String,
    /// The name of the channel for what it can never deliver.
    pub dead_letters: Option<String>,
}

/// A group of sinks that can be built.
pub struct ResolvedGroup {
    /// As it is written; its type is that of its processor.
    pub plan: ComponentPlan,
    /// The Flume class of its processor.
    pub class: &'static str,
    /// What decides among its sinks.
    pub processor: Box<dyn SinkProcessor>,
    /// Its sinks.
    pub sinks: Vec<ResolvedSink>,
}

/// An agent that can be started: everything in it has been read and found valid.
#[derive(Default)]
pub struct ResolvedAgent {
    /// The name.
    pub name: String,
    /// Channels.
    pub channels: Vec<ResolvedChannel>,
    /// Sources.
    pub sources: Vec<ResolvedSource>,
    /// Sinks that are in no group.
    pub sinks: Vec<ResolvedSink>,
    /// Groups of sinks.
    pub groups: Vec<ResolvedGroup>,
}

impl ResolvedAgent {
    /// All sinks, those of groups too.
    pub fn all_sinks(&self) -> impl Iterator<Item = &ResolvedSink> {
        self.sinks.iter().chain(self.groups.iter().flat_map(|group| &group.sinks))
    }
}

/// Looks up all types and reads all keys. What does not work is left out and noted.
///
/// Flume ends the whole agent at an unknown type; here only the component is left out.
pub fn resolve(plan: &AgentPlan, globals: &Globals, findings: &mut Vec<Finding>) -> ResolvedAgent {
    Resolver { plan, globals, findings }.resolve()
}

struct Resolver<'a> {
    plan: &'a AgentPlan,
    globals: &'a Globals,
    findings: &'a mut Vec<Finding>,
}

impl Resolver<'_> {
    fn resolve(mut self) -> ResolvedAgent {
        let mut agent = ResolvedAgent { name: self.plan.name.clone(), ..ResolvedAgent::default() };
        for plan in &self.plan.channels {
            let read = self
                .look_up(plan, channel::TYPES)
                .and_then(|(class, build)| Some((class, self.read(plan, &["type"], build)?)));
            match read {
                Some((class, config)) => agent.channels.push(ResolvedChannel { plan: plan.clone(), class, config }),
                None => self.removed(plan, "Channel"),
            }
        }
        for source in &self.plan.sources {
            match self.source(&source.component, &source.channels, &agent.channels) {
                Some(resolved) => agent.sources.push(resolved),
                None => self.removed(&source.component, "Source"),
            }
        }
        for sink in &self.plan.sinks {
            match self.sink(&sink.component, &sink.channel, &agent.channels) {
                Some(resolved) => agent.sinks.push(resolved),
                None => self.removed(&sink.component, "Sink"),
            }
        }
        for group in &self.plan.groups {
            self.group(group, &mut agent);
        }
        self.transactions(&mut agent);
        self.connections(&mut agent);
        agent
    }

    fn removed(&mut self, plan: &ComponentPlan, kind: &str) {
        let flume = format!("{kind} {} has been removed due to an error during configuration", plan.name);
        let finding = Finding::error(format!("{} {} does not run", plan.kind, plan.name));
        let key = format!("{}.{}.{}", self.plan.name, plan.kind.plural(), plan.name);
        self.findings.push(finding.missing(key, plan.origin()).as_flume(flume));
    }

    fn look_up<B: Copy>(
        &mut self,
        plan: &ComponentPlan,
        types: &'static [ComponentType<B>],
    ) -> Option<(&'static str, B)> {
        if let Some(found) = resolve_type(types, &plan.type_name) {
            return Some((found.class, found.build));
        }
        let kind = plan.kind;
        let known: Vec<&str> = types.iter().flat_map(|known| known.aliases).copied().collect();
        let flumes = flume_alias_or_class(kind, &plan.type_name);
        let message = if flumes {
            format!("this {kind} type of Flume is not in this version; it has {}", known.join(", "))
        } else {
            format!("unknown {kind} type; expected one of {}, or a class name", known.join(", "))
        };
        let classes = types.iter().map(|known| known.class);
        let finding = Finding::error(message).nearest(&plan.type_name, known.iter().copied().chain(classes));
        let finding = if flumes { Finding { help: None, ..finding } } else { finding };
        let flume = format!("Unable to load {kind} type: {0}, class: {0}", plan.type_name);
        let key = format!("{}.{}.{}.type", self.plan.name, kind.plural(), plan.name);
        if let Some(property) = plan.properties.get("type") {
            self.findings.push(finding.at(key, &property.value, &property.origin).as_flume(flume));
        }
        None
    }

    fn read<T>(
        &mut self,
        plan: &ComponentPlan,
        wiring: &[&str],
        read: impl FnOnce(&mut Props<'_>) -> Option<T>,
    ) -> Option<T> {
        let prefix = format!("{}.{}.{}", self.plan.name, plan.kind.plural(), plan.name);
        let mut props = Props::new(prefix, &plan.properties, plan.origin(), self.globals);
        for key in wiring {
            props.text(key);
        }
        let config = read(&mut props);
        self.findings.extend(props.into_findings());
        config
    }

    /// Flume's check of a declared batch size against the channel's transaction capacity.
    fn fits(&mut self, plan: &ComponentPlan, batch: Option<usize>, channel: &ResolvedChannel) -> bool {
        let (Some(batch), Some(capacity)) = (batch, channel.config.transaction_capacity()) else { return true };
        if batch <= capacity {
            return true;
        }
        let (kind, label) = (plan.kind, if plan.kind == Kind::Source { "Source" } else { "Sink" });
        let name = &channel.plan.name;
        let flume = format!(
            "Incompatible {kind} and channel settings defined. {kind}'s batch size is greater than the channels transaction capacity. {label}: {}, batch size = {batch}, channel {name}, transaction capacity = {capacity}",
            plan.name
        );
        let message =
            format!("the batch size, {batch}, is greater than the transactionCapacity of channel {name}, {capacity}");
        let agent = &self.plan.name;
        let key = format!("{agent}.{}.{}", kind.plural(), plan.name);
        let help = format!("set {agent}.channels.{name}.transactionCapacity = {batch} or more");
        self.findings.push(Finding::error(message).missing(key, plan.origin()).help(help).as_flume(flume));
        false
    }

    fn source(
        &mut self,
        plan: &ComponentPlan,
        names: &[String],
        channels: &[ResolvedChannel],
    ) -> Option<ResolvedSource> {
        let found: Vec<&ResolvedChannel> =
            names.iter().filter_map(|name| channels.iter().find(|channel| channel.plan.name == *name)).collect();
        let names: Vec<String> = found.iter().map(|channel| channel.plan.name.clone()).collect();
        let looked_up = self.look_up(plan, source::TYPES);
        let read = looked_up.and_then(|(class, build)| {
            let read = self.read(plan, &["type", "channels"], |props| {
                // All three, so that all that is wrong is found.
                let config = build(props);
                let chain = Chain::from_props(props);
                let selector = selector::from_props(props, &names);
                Some((config?, chain?, selector?))
            });
            read.map(|read| (class, read))
        });
        if found.is_empty() {
            let flume = format!("Source {} is not connected to a channel", plan.name);
            let key = format!("{}.sources.{}.channels", self.plan.name, plan.name);
            self.findings
                .push(Finding::error("none of the source's channels runs").missing(key, plan.origin()).as_flume(flume));
            return None;
        }
        let (class, (config, chain, selector)) = read?;
        let mut fits = true;
        for channel in found {
            fits &= self.fits(plan, config.batch_size(), channel);
        }
        fits.then(|| ResolvedSource { plan: plan.clone(), class, config, channels: names, chain, selector })
    }

    fn sink(&mut self, plan: &ComponentPlan, channel: &str, channels: &[ResolvedChannel]) -> Option<ResolvedSink> {
        let looked_up = self.look_up(plan, sink::TYPES);
        let wiring = ["type", "channel", DEAD_LETTERS];
        let read = looked_up.and_then(|(class, build)| Some((class, self.read(plan, &wiring, build)?)));
        let Some(found) = channels.iter().find(|known| known.plan.name == channel) else {
            let flume = format!("Sink {} is not connected to a channel", plan.name);
            let key = format!("{}.sinks.{}.channel", self.plan.name, plan.name);
            self.findings
                .push(Finding::error("the sink's channel does not run").missing(key, plan.origin()).as_flume(flume));
            return None;
        };
        let dead_letters = self.dead_letters(plan, channel, channels);
        let (class, config) = read?;
        let mut fits = self.fits(plan, config.batch_size(), found);
        if let Some(dead_letters) = dead_letters? {
            fits &= self.fits(plan, config.batch_size(), dead_letters);
        }
        let dead_letters = dead_letters?.map(|found| found.plan.name.clone());
        fits.then(|| ResolvedSink { plan: plan.clone(), class, config, channel: channel.to_owned(), dead_letters })
    }

    /// The channel for what a sink can never deliver; `Some(None)` when none is named, `None` when it does not work.
    fn dead_letters<'c>(
        &mut self,
        plan: &ComponentPlan,
        channel: &str,
        channels: &'c [ResolvedChannel],
    ) -> Option<Option<&'c ResolvedChannel>> {
        let Some(property) = plan.properties.get(DEAD_LETTERS) else { return Some(None) };
        let name = property.value.trim();
        let others = || channels.iter().map(|known| known.plan.name.as_str()).filter(|other| *other != channel);
        let found = channels.iter().find(|known| known.plan.name == name && name != channel);
        if found.is_none() {
            let key = format!("{}.sinks.{}.{DEAD_LETTERS}", self.plan.name, plan.name);
            let finding =
                Finding::error("expected a channel that runs, other than the sink's own").nearest(name, others());
            self.findings.push(finding.at(key, &property.value, &property.origin));
        }
        found.map(Some)
    }

    /// Puts the sinks of a group together. A group of the default processor is its one sink.
    fn group(&mut self, group: &GroupPlan, agent: &mut ResolvedAgent) {
        let Some(found) = resolve_type(processor::TYPES, &group.component.type_name) else {
            return self.plain_group(group, &mut agent.sinks);
        };
        let mut sinks = Vec::new();
        for name in &group.sinks {
            let Some(at) = agent.sinks.iter().position(|sink| sink.plan.name == *name) else { continue };
            if agent.sinks[at].config.is_pulled() {
                let message = format!("the events of sink {name} are fetched by others; it runs on its own");
                self.about_group(group, "sinks", Finding::error(message));
            } else {
                let mut sink = agent.sinks.remove(at);
                sink.config.join_group();
                sinks.push(sink);
            }
        }
        let names: Vec<String> = sinks.iter().map(|sink| sink.plan.name.clone()).collect();
        let processor = self.read(&group.component, &["sinks", "processor.type"], |props| (found.build)(props, &names));
        match processor {
            // What keeps them from running has been said.
            _ if sinks.is_empty() => {}
            Some(processor) => {
                let plan = group.component.clone();
                agent.groups.push(ResolvedGroup { plan, class: found.class, processor, sinks });
            }
            None => {
                let message = format!("the sinks {} do not run", names.join(", "));
                self.about_group(group, "processor.type", Finding::error(message).as_flume(group_removed(group)));
            }
        }
    }

    /// A group without a processor that decides anything. Flume documents `default` for a missing type, which takes one
    /// sink, and then lets the sinks of the group rest without a word.
    fn plain_group(&mut self, group: &GroupPlan, sinks: &mut Vec<ResolvedSink>) {
        let type_name = group.component.type_name.as_str();
        let names = group.sinks.join(", ");
        let is_default = [processor::DEFAULT_ALIAS, processor::DEFAULT_CLASS]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(type_name));
        if (is_default || type_name.is_empty()) && group.sinks.len() == 1 {
            return;
        }
        let finding = if type_name.is_empty() {
            let expected = "a processor type, as the default one takes a single sink";
            Finding::error(format!("missing: expected {expected}; the sinks {names} run on their own"))
        } else if is_default {
            Finding::error(format!("the default processor takes a single sink; the sinks {names} run on their own"))
                .as_flume("DefaultSinkPolicy can only handle one sink, try using a policy that supports multiple sinks")
        } else {
            sinks.retain(|sink| !group.sinks.contains(&sink.plan.name));
            let known = processor::TYPES.iter().flat_map(|known| [known.aliases[0], known.class]);
            Finding::error(format!("unknown sink processor; the sinks {names} do not run"))
                .nearest(type_name, known.chain([processor::DEFAULT_ALIAS, processor::DEFAULT_CLASS]))
                .as_flume(group_removed(group))
        };
        self.about_group(group, "processor.type", finding);
    }

    fn about_group(&mut self, group: &GroupPlan, key: &str, finding: Finding) {
        let full = format!("{}.sinkgroups.{}.{key}", self.plan.name, group.component.name);
        self.findings.push(match group.component.properties.get(key) {
            Some(property) => finding.at(full, &property.value, &property.origin),
            None => finding.missing(full, group.component.origin()),
        });
    }

    /// What keeps sinks with transactions from delivering each event once.
    fn transactions(&mut self, agent: &mut ResolvedAgent) {
        let all: Vec<&ResolvedSink> = agent.all_sinks().collect();
        let mut twice = Vec::new();
        for (at, sink) in all.iter().enumerate() {
            let Some((key, id)) = sink.config.transactional_id() else { continue };
            let name = &sink.plan.name;
            let earlier = all[..at].iter().find(|other| other.config.transactional_id() == Some((key, id)));
            let sharing = all.iter().find(|other| other.channel == sink.channel && other.plan.name != *name);
            let group = agent.groups.iter().find(|group| group.sinks.iter().any(|one| one.plan.name == *name));
            let finding = if let Some(group) = group {
                let group = &group.plan.name;
                Finding::warning(format!("in sink group {group} an event may be delivered twice after a crash"))
            } else if let Some(earlier) = earlier {
                twice.push(name.clone());
                let other = &earlier.plan.name;
                Finding::error(format!(
                    "sink {other} has the same id, so that each would end the other again and again"
                ))
            } else if let Some(other) = sharing {
                let (other, channel) = (&other.plan.name, &sink.channel);
                Finding::warning(format!(
                    "sink {other} empties channel {channel}, too; an event may be delivered twice after a crash"
                ))
            } else if !agent.channels.iter().any(|one| one.plan.name == sink.channel && one.class == file::TYPE.class) {
                let channel = &sink.channel;
                Finding::warning(format!(
                    "channel {channel} is no file channel; after a crash an event may be missing or be delivered twice"
                ))
            } else {
                continue;
            };
            let full = format!("{}.sinks.{name}.{key}", self.plan.name);
            self.findings.push(match sink.plan.properties.get(key) {
                Some(property) => finding.at(full, &property.value, &property.origin),
                None => finding.missing(full, sink.plan.origin()),
            });
        }
        agent.sinks.retain(|sink| !twice.contains(&sink.plan.name));
    }

    /// Channels without a source, without a sink, or without either.
    fn connections(&mut self, agent: &mut ResolvedAgent) {
        let emptied: Vec<String> = agent.all_sinks().map(|sink| sink.channel.clone()).collect();
        let dead_letters: Vec<String> = agent.all_sinks().filter_map(|sink| sink.dead_letters.clone()).collect();
        let ResolvedAgent { channels, sources, .. } = agent;
        let agent = &self.plan.name;
        let mut findings = Vec::new();
        channels.retain(|channel| {
            let name = &channel.plan.name;
            let filled = dead_letters.contains(name) || sources.iter().any(|source| source.channels.contains(name));
            let emptied = emptied.contains(name);
            let key = format!("{agent}.channels.{name}");
            let finding = match (filled, emptied) {
                (true, true) => return true,
                (false, false) => {
                    Finding::warning("no source and no sink is connected to the channel; it does not run")
                        .as_flume(format!("Channel {name} has no components connected and has been removed."))
                }
                (false, true) => Finding::warning("no source fills the channel"),
                (true, false) if sources.iter().any(|source| source.requires(name)) => {
                    Finding::warning("no sink empties the channel; when it is full, its sources are refused")
                }
                (true, false) => Finding::warning("no sink empties the channel; when it is full, it gets nothing more"),
            };
            findings.push(finding.missing(key, channel.plan.origin()));
            filled || emptied
        });
        self.findings.append(&mut findings);
    }
}

fn group_removed(group: &GroupPlan) -> String {
    format!("SinkGroup {} has been removed due to an error during configuration", group.component.name)
}
