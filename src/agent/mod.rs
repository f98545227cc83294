//! A running agent: components are built, wired, supervised, exchanged on reload and drained at the end.
//!
//! Start: channels, sinks, sources. Stop: sources, then the channels are drained through the sinks within a limit,
//! then sinks, then channels. A component that fails never takes another down.

mod group;
mod resolve;
mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use resolve::{ResolvedAgent, ResolvedChannel, ResolvedGroup, ResolvedSink, ResolvedSource, resolve};

use self::group::{GroupRunner, run_group};
use self::supervisor::{SinkRunner, run_sink, run_source};
use crate::channel::Channel;
use crate::config::ComponentPlan;
use crate::metrics::{Metrics, SinkCounters, SourceCounters};
use crate::sink::Outlet;
use crate::sink::processor::SinkProcessor;
use crate::source::ChannelProcessor;

/// How long sinks may take to finish the batch in hand once the limit of the drain is over.
const LAST_BATCH: Duration = Duration::from_millis(500);

/// A source, a sink or a group of sinks that runs.
struct Component {
    /// Its plan; of a group, those of its sinks too.
    plans: Vec<ComponentPlan>,
    /// Of a source, one for each of its channels; otherwise one for each sink.
    wires: Vec<Wire>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Component {
    /// Whether a configuration means just this component, wired to just these channels.
    fn is(&self, plans: &[ComponentPlan], wires: &[Wire]) -> bool {
        self.plans.len() == plans.len()
            && self.plans.iter().zip(plans).all(|(old, new)| old.same_as(new))
            && self.wires == wires
    }

    fn name(&self) -> &str {
        &self.plans[0].name
    }

    /// Whether a sink takes from the channel.
    fn empties(&self, channel: &Arc<dyn Channel>) -> bool {
        self.wires.iter().any(|wire| Arc::ptr_eq(&wire.channel, channel))
    }
}

/// A source or a sink, and what it is wired to.
struct Wire {
    name: String,
    channel: Arc<dyn Channel>,
    /// Where a sink puts what it can never deliver.
    dead_letters: Option<Arc<dyn Channel>>,
}

impl Wire {
    fn channels(&self) -> impl Iterator<Item = &Arc<dyn Channel>> {
        [&self.channel].into_iter().chain(&self.dead_letters)
    }

    fn leads_to(&self, channel: &Arc<dyn Channel>) -> bool {
        self.channels().any(|own| Arc::ptr_eq(own, channel))
    }
}

impl PartialEq for Wire {
    fn eq(&self, other: &Self) -> bool {
        let channels = |wire: &Self| -> Vec<_> { wire.channels().map(|c| Arc::as_ptr(c).cast::<()>()).collect() };
        self.name == other.name && channels(self) == channels(other)
    }
}

/// Sinks that run together: one on its own, or those of a group.
struct SinkUnit {
    group: Option<(ComponentPlan, Box<dyn SinkProcessor>)>,
    sinks: Vec<ResolvedSink>,
}

impl From<ResolvedSink> for SinkUnit {
    fn from(sink: ResolvedSink) -> Self {
        Self { group: None, sinks: vec![sink] }
    }
}

impl From<ResolvedGroup> for SinkUnit {
    fn from(group: ResolvedGroup) -> Self {
        Self { group: Some((group.plan, group.processor)), sinks: group.sinks }
    }
}

impl SinkUnit {
    fn plans(&self) -> Vec<ComponentPlan> {
        let group = self.group.iter().map(|(plan, _)| plan);
        group.chain(self.sinks.iter().map(|sink| &sink.plan)).cloned().collect()
    }
}

struct RunningChannel {
    plan: ComponentPlan,
    class: &'static str,
    channel: Arc<dyn Channel>,
}

/// An agent that runs.
pub struct Agent {
    name: String,
    metrics: Arc<Metrics>,
    channels: Vec<RunningChannel>,
    sources: Vec<Component>,
    sinks: Vec<Component>,
    events_lost: u64,
    drain_limit: Duration,
}

impl Agent {
    /// An agent without components; [`apply`](Self::apply) gives it some. Channels that end are drained, for so long
    /// at most.
    pub fn new(name: impl Into<String>, metrics: Arc<Metrics>, drain_limit: Duration) -> Self {
        Self {
            drain_limit,
            name: name.into(),
            metrics,
            channels: Vec::new(),
            sources: Vec::new(),
            sinks: Vec::new(),
            events_lost: 0,
        }
    }

    /// Makes the agent what a configuration says. What is the same already is not touched; a channel that keeps its
    /// name and type keeps its events.
    ///
    /// What is new starts before a channel that goes is drained; `now` cuts that drain short.
    pub async fn apply(&mut self, new: ResolvedAgent, now: &CancellationToken) {
        let ResolvedAgent { channels, sources, sinks, groups, .. } = new;
        if !channels.is_empty() {
            info!("Creating channels");
        }
        let mut next_channels: Vec<RunningChannel> = Vec::new();
        let mut fresh = Vec::new();
        for resolved in channels {
            let name = resolved.plan.name.clone();
            let kept = self.channels.iter().position(|old| {
                old.plan.name == name && (old.plan.same_as(&resolved.plan) || resolved.config.apply(&*old.channel))
            });
            let channel = match kept {
                Some(position) => self.channels.swap_remove(position).channel,
                None => {
                    info!("Creating instance of channel {name} type {}", resolved.plan.type_name);
                    let channel = resolved.config.build(&name, &self.metrics);
                    info!("Created channel {name}");
                    fresh.push(Arc::clone(&channel));
                    channel
                }
            };
            next_channels.push(RunningChannel { plan: resolved.plan, class: resolved.class, channel });
        }
        let by_name = |name: &str| next_channels.iter().find(|c| c.plan.name == name).map(|c| Arc::clone(&c.channel));

        let mut next_sources = Vec::new();
        let mut new_sources = Vec::new();
        for resolved in sources {
            let wire = |channel| Wire { name: resolved.plan.name.clone(), channel, dead_letters: None };
            let wires: Vec<_> = resolved.channels.iter().filter_map(|name| by_name(name)).map(wire).collect();
            match self.sources.iter().position(|old| old.is(std::slice::from_ref(&resolved.plan), &wires)) {
                Some(position) => next_sources.push(self.sources.swap_remove(position)),
                None => {
                    info!("Creating instance of source {}, type {}", resolved.plan.name, resolved.plan.type_name);
                    new_sources.push((resolved, wires));
                }
            }
        }
        let mut next_sinks = Vec::new();
        let mut new_sinks = Vec::new();
        let units = sinks.into_iter().map(SinkUnit::from).chain(groups.into_iter().map(SinkUnit::from));
        for unit in units {
            let plans = unit.plans();
            let wire = |sink: &ResolvedSink| {
                let dead_letters = sink.dead_letters.as_deref().and_then(by_name);
                Some(Wire { name: sink.plan.name.clone(), channel: by_name(&sink.channel)?, dead_letters })
            };
            let wires: Vec<_> = unit.sinks.iter().filter_map(wire).collect();
            match self.sinks.iter().position(|old| old.is(&plans, &wires)) {
                Some(position) => next_sinks.push(self.sinks.swap_remove(position)),
                None => {
                    for sink in &unit.sinks {
                        info!("Creating instance of sink: {}, type: {}", sink.plan.name, sink.plan.type_name);
                    }
                    new_sinks.push((unit, plans, wires));
                }
            }
        }
        for running in &next_channels {
            let name = &running.plan.name;
            let old_sources = next_sources.iter().flat_map(|source: &Component| &source.wires);
            let old_sinks = next_sinks.iter().flat_map(|sink: &Component| &sink.wires);
            let sources = old_sources.chain(new_sources.iter().flat_map(|(_, wires)| wires));
            let sinks = old_sinks.chain(new_sinks.iter().flat_map(|(_, _, wires)| wires));
            let wires = sources.chain(sinks).filter(|wire| wire.leads_to(&running.channel));
            let names: Vec<&str> = wires.map(|wire| wire.name.as_str()).collect();
            info!("Channel {name} connected to [{}]", names.join(", "));
        }

        // Whatever is left in the old lists has no place in the new configuration.
        let deadline = Instant::now() + self.drain_limit;
        stop_all("Source", std::mem::take(&mut self.sources), deadline, now).await;
        let gone = std::mem::take(&mut self.channels);
        let (draining, replaced): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sinks)
            .into_iter()
            .partition(|sink| gone.iter().any(|running| sink.empties(&running.channel)));
        stop_all("Sink", replaced, deadline, now).await;

        self.channels = next_channels;
        self.sources = next_sources;
        self.sinks = next_sinks;
        for channel in fresh {
            info!("Starting Channel {}", channel.name());
            if let Err(error) = channel.start().await {
                error!("Failed to start the channel {}: {error}", channel.name());
            }
        }
        for (unit, plans, wires) in new_sinks {
            info!("Starting Sink {}", plans[0].name);
            self.start_sinks(unit, plans, wires);
        }
        for (resolved, wires) in new_sources {
            info!("Starting Source {}", resolved.plan.name);
            self.start_source(resolved, wires);
        }
        drain(&gone, &draining, deadline, now).await;
        stop_all("Sink", draining, deadline, now).await;
        for gone in gone {
            self.stop_channel(&gone).await;
        }
    }

    fn start_source(&mut self, resolved: ResolvedSource, wires: Vec<Wire>) {
        let ResolvedSource { plan, class, config, chain, selector, .. } = resolved;
        let counters = self.metrics.register(Arc::new(SourceCounters::new(&plan.name)));
        let ledger = Arc::clone(&self.metrics.ledger);
        let channels = wires.iter().map(|wire| Arc::clone(&wire.channel)).collect();
        let out = ChannelProcessor::new(&plan.name, chain, selector, channels, counters, ledger);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run_source(plan.name.clone(), class, config, out, stop.clone()));
        self.sources.push(Component { plans: vec![plan], wires, stop, task });
    }

    fn start_sinks(&mut self, unit: SinkUnit, plans: Vec<ComponentPlan>, wires: Vec<Wire>) {
        let SinkUnit { group, sinks } = unit;
        let blocks = sinks.iter().any(|sink| sink.config.blocks());
        let runner = |(sink, wire): (ResolvedSink, &Wire)| {
            let ResolvedSink { plan, class, config, .. } = sink;
            let counters = self.metrics.register(Arc::new(SinkCounters::new(&plan.name)));
            let outlet = Outlet::new(Arc::clone(&wire.channel), counters, Arc::clone(&self.metrics.ledger))
                .with_dead_letters(wire.dead_letters.clone());
            SinkRunner { name: plan.name, class, config, outlet }
        };
        let sinks: Vec<SinkRunner> = sinks.into_iter().zip(&wires).map(runner).collect();
        let stop = CancellationToken::new();
        let told = stop.clone();
        let run = async move {
            match group {
                Some((plan, processor)) => run_group(GroupRunner { name: plan.name, processor, sinks }, told).await,
                None => {
                    // It is one.
                    for sink in sinks {
                        run_sink(sink, told.clone()).await;
                    }
                }
            }
        };
        let task = if blocks {
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || runtime.block_on(run))
        } else {
            tokio::spawn(run)
        };
        self.sinks.push(Component { plans, wires, stop, task });
    }

    async fn stop_channel(&mut self, running: &RunningChannel) {
        let RunningChannel { plan, class, channel } = running;
        info!("Stopping Channel {}", plan.name);
        info!("Stopping component: {class}{{name: {}}}", plan.name);
        channel.save().await;
        let left = channel.in_memory();
        if left > 0 {
            let _entry = self.metrics.ledger.entry();
            channel.counters().size.sub(left);
            channel.counters().lost.add(left);
            self.events_lost += left;
            warn!("Channel {} is gone with {left} events that no sink has delivered", plan.name);
        }
        channel.stop().await;
    }

    /// Stops sources, drains the channels through the sinks within the limit, stops the rest. `now` cuts the drain
    /// short. Returns how many accepted events were lost with channels that do not outlive the process.
    pub async fn stop(mut self, now: &CancellationToken) -> u64 {
        info!("Shutting down configuration: agent {}", self.name);
        let deadline = Instant::now() + self.drain_limit;
        stop_all("Source", std::mem::take(&mut self.sources), deadline, now).await;
        let (channels, sinks) = (std::mem::take(&mut self.channels), std::mem::take(&mut self.sinks));
        drain(&channels, &sinks, deadline, now).await;
        stop_all("Sink", sinks, deadline.max(Instant::now() + LAST_BATCH), now).await;
        for running in &channels {
            self.stop_channel(running).await;
        }
        let samples = self.metrics.sample();
        let sum = |kind: &str, attribute: &str| -> u64 {
            let values = samples.iter().filter(|sample| sample.kind == kind).flat_map(|sample| &sample.attributes);
            values.filter(|(name, _)| *name == attribute).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
        };
        // What a sink can never deliver, and had no other place.
        let dropped = sum("SINK", "EventRefusedCount");
        let summary = format!(
            "Agent {} stopped: {} events accepted, {} refused, {} delivered, {} lost{}",
            self.name,
            sum("SOURCE", "EventAcceptedCount"),
            sum("SOURCE", "EventRefusedCount"),
            sum("SINK", "EventDrainSuccessCount"),
            self.events_lost,
            if dropped == 0 { String::new() } else { format!(", {dropped} dropped") }
        );
        match (self.events_lost, dropped) {
            (0, 0) => info!("{summary}"),
            (0, _) => warn!("{summary}"),
            _ => error!("{summary}"),
        }
        self.events_lost
    }
}

/// Waits until the channels whose events would be lost are empty, as far as a sink empties them.
async fn drain(channels: &[RunningChannel], sinks: &[Component], deadline: Instant, now: &CancellationToken) {
    let emptied =
        channels.iter().map(|running| &running.channel).filter(|channel| sinks.iter().any(|s| s.empties(channel)));
    let emptied: Vec<_> = emptied.collect();
    let drained = timeout_at(deadline, async {
        // The last dead letters of one may come to another that was empty already.
        while let Some(channel) = emptied.iter().find(|channel| channel.in_memory() > 0) {
            channel.drained().await;
        }
    });
    match now.run_until_cancelled(drained).await {
        Some(Ok(())) => {}
        Some(Err(_)) => warn!("the channels could not be drained in time"),
        None => warn!("the drain is cut short"),
    }
}

/// Tells all to stop and waits for them; what has not ended by then, or when `now` comes, is cut off.
async fn stop_all(kind: &str, components: Vec<Component>, deadline: Instant, now: &CancellationToken) {
    let mut running = Vec::new();
    for component in components {
        let name = component.name().to_owned();
        info!("Stopping {kind} {name}");
        component.stop.cancel();
        running.push((name, component.task));
    }
    for (name, task) in &mut running {
        let why = match now.run_until_cancelled(timeout_at(deadline, &mut *task)).await {
            Some(Ok(_)) => None,
            Some(Err(_)) => Some("did not end in time and"),
            None if task.is_finished() => None,
            None => Some("was given no time and"),
        };
        if let Some(why) = why {
            warn!("{kind} {name} {why} is cut off");
            task.abort();
            // Once it is gone, nothing of it is accepted or printed any more.
            timeout(LAST_BATCH, task).await.ok();
        }
    }
}
