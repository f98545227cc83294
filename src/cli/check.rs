//! `check`: what is wrong with a configuration, and what would run.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{ConfigArgs, JavaArgs, fail, read_texts, say};
use crate::agent::{ResolvedAgent, ResolvedGroup, resolve};
use crate::config::{Configuration, Finding, Globals, Location, Severity, load, nearest};

/// Options of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this agent; without it, all
    #[arg(short, long)]
    name: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Exit with 1 for warnings too
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Dot,
    Json,
}

/// Looks up and reads everything in the agents of a configuration, all or one. Findings end up in the
/// configuration's, those of other agents included, as Flume validates these too.
pub fn resolve_agents(
    configuration: &mut Configuration,
    locations: &[Location],
    name: Option<&str>,
    globals: &Globals,
) -> Vec<ResolvedAgent> {
    let mut agents = Vec::new();
    for (agent, plan) in &configuration.agents {
        if name.is_none_or(|name| name == agent) {
            agents.push(resolve(plan, globals, &mut configuration.findings));
        }
    }
    if let Some(name) = name
        && !configuration.agents.contains_key(name)
        && !configuration.mentioned.iter().any(|known| known == name)
    {
        let known = configuration.mentioned.join(", ");
        let known = if known.is_empty() { "no agent".to_owned() } else { known };
        let finding = Finding::error(format!("there is no agent {name} in the configuration; it has {known}"));
        let near = nearest(name, configuration.mentioned.iter().map(String::as_str))
            .map(|near| format!("did you mean \"{near}\"?"));
        let finding = Finding { help: near, ..finding };
        configuration.findings.push(finding.as_flume(format!("No configuration found for this host:{name}")));
    }
    if configuration.mentioned.is_empty() && name.is_none() {
        configuration.findings.push(Finding::error("there is no agent in the configuration"));
    }
    let files: Vec<String> = locations.iter().map(Location::name).collect();
    configuration.sort_findings(&files);
    agents
}

/// Checks and prints. The exit status is 0 without errors, 1 with some, 2 when there is nothing to read.
pub fn run(args: &CheckArgs, java: JavaArgs) -> ExitCode {
    let locations = match args.config.locations() {
        Ok(locations) if locations.is_empty() => {
            eprintln!("flume-rs: expected --conf-file FILE or --conf-uri URI");
            return ExitCode::from(2);
        }
        Ok(locations) => locations,
        Err(error) => return fail(&error),
    };
    let mut configuration = match read_texts(&locations) {
        Ok(texts) => load(&texts, &java.lookups()),
        Err(error) => return fail(&error),
    };
    let agents = resolve_agents(&mut configuration, &locations, args.name.as_deref(), &java.globals());
    let findings = &configuration.findings;
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let printed = match args.format {
        Format::Text => {
            let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
            let graphs: String = agents.iter().map(text).collect();
            format!("{}{graphs}{}, {}\n", text_of(findings), plural(errors, "error"), plural(warnings, "warning"))
        }
        Format::Dot => {
            eprint!("{}", text_of(findings));
            dot(&agents)
        }
        Format::Json => {
            let agents: Vec<Value> = agents.iter().map(graph).collect();
            format!("{:#}\n", json!({ "findings": findings, "agents": agents }))
        }
    };
    let said = say(&printed);
    if said != ExitCode::SUCCESS {
        return said;
    }
    if errors > 0 || (args.strict && warnings > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn text_of(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        writeln!(text, "{finding}").ok();
        if let Some(help) = &finding.help {
            writeln!(text, "    help: {help}").ok();
        }
        if let Some(flume) = &finding.flume {
            writeln!(text, "    Flume says: {flume}").ok();
        }
    }
    text
}

fn text(agent: &ResolvedAgent) -> String {
    let mut text = format!("agent {}\n", agent.name);
    let rows = || {
        let sources = agent.sources.iter().map(|s| ("source", &s.plan, format!("-> {}", s.channels.join(" "))));
        let channels = agent.channels.iter().map(|c| ("channel", &c.plan, String::new()));
        let sinks = agent.all_sinks().map(|s| ("sink", &s.plan, format!("<- {}", s.channel)));
        let groups = agent.groups.iter().map(|g| ("group", &g.plan, format!("of {}", sink_names(g).join(" "))));
        sources.chain(channels).chain(sinks).chain(groups)
    };
    let width = rows().map(|(_, plan, _)| plan.name.chars().count()).max().unwrap_or(0);
    let types = rows().map(|(_, plan, _)| plan.type_name.chars().count()).max().unwrap_or(0);
    for (kind, plan, wiring) in rows() {
        let line = format!("  {kind:<7} {:<width$}  {:<types$}  {wiring}", plan.name, plan.type_name);
        writeln!(text, "{}", line.trim_end()).ok();
    }
    text
}

fn sink_names(group: &ResolvedGroup) -> Vec<&str> {
    group.sinks.iter().map(|sink| sink.plan.name.as_str()).collect()
}

fn graph(agent: &ResolvedAgent) -> Value {
    json!({
        "name": agent.name,
        "sources": agent.sources.iter().map(|s| json!({ "name": s.plan.name, "type": s.plan.type_name, "class": s.class, "channels": s.channels })).collect::<Vec<_>>(),
        "channels": agent.channels.iter().map(|c| json!({ "name": c.plan.name, "type": c.plan.type_name, "class": c.class })).collect::<Vec<_>>(),
        "sinks": agent.all_sinks().map(|s| json!({ "name": s.plan.name, "type": s.plan.type_name, "class": s.class, "channel": s.channel })).collect::<Vec<_>>(),
        "sinkgroups": agent.groups.iter().map(|g| json!({ "name": g.plan.name, "type": g.plan.type_name, "class": g.class, "sinks": sink_names(g) })).collect::<Vec<_>>(),
    })
}

fn dot(agents: &[ResolvedAgent]) -> String {
    let mut text = "digraph flume {\n  rankdir=LR;\n".to_owned();
    for (number, agent) in agents.iter().enumerate() {
        writeln!(text, "  subgraph cluster_{number} {{\n    label={};", quoted(&agent.name)).ok();
        let id = |kind: &str, name: &str| quoted(&format!("{}/{kind}/{name}", agent.name));
        let mut node = |kind: &str, name: &str, type_name: &str, shape: &str| {
            let label = quoted(&format!("{name}\n{type_name}"));
            writeln!(text, "    {} [label={label}, shape={shape}];", id(kind, name)).ok();
        };
        for source in &agent.sources {
            node("source", &source.plan.name, &source.plan.type_name, "box");
        }
        for channel in &agent.channels {
            node("channel", &channel.plan.name, &channel.plan.type_name, "cylinder");
        }
        for sink in agent.all_sinks() {
            node("sink", &sink.plan.name, &sink.plan.type_name, "box");
        }
        for source in &agent.sources {
            for channel in &source.channels {
                writeln!(text, "    {} -> {};", id("source", &source.plan.name), id("channel", channel)).ok();
            }
        }
        for sink in agent.all_sinks() {
            writeln!(text, "    {} -> {};", id("channel", &sink.channel), id("sink", &sink.plan.name)).ok();
        }
        for (place, group) in agent.groups.iter().enumerate() {
            let label = quoted(&format!("{}\n{}", group.plan.name, group.plan.type_name));
            let sinks: Vec<String> = sink_names(group).into_iter().map(|name| id("sink", name)).collect();
            writeln!(text, "    subgraph cluster_{number}_{place} {{ label={label}; {}; }}", sinks.join("; ")).ok();
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
