//! A running agent: components are built, wired, supervised, exchanged on reload and drained at the end.
//!
//! Start: channels, sinks, sources. Stop: sources, then the channels are drained through the sinks within a limit,
//! then sinks, then channels. A component that fails never takes another down.

mod resolve;
mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use resolve::{ResolvedAgent, ResolvedChannel, ResolvedSink, ResolvedSource, resolve};

use crate::channel::Channel;
use crate::config::ComponentPlan;
use crate::metrics::{Metrics, SinkCounters, SourceCounters};
use crate::sink::Outlet;
use crate::source::ChannelProcessor;

/// How long sinks may take to finish the batch in hand once the limit of the drain is over.
const LAST_BATCH: Duration = Duration::from_millis(500);

/// A source or sink that runs.
struct Component {
    plan: ComponentPlan,
    channels: Vec<Arc<dyn Channel>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Component {
    /// Whether a configuration means just this component, wired to just these channels.
    fn is(&self, plan: &ComponentPlan, channels: &[Arc<dyn Channel>]) -> bool {
        self.plan.same_as(plan)
            && self.channels.len() == channels.len()
            && self.channels.iter().zip(channels).all(|(old, new)| Arc::ptr_eq(old, new))
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
        let ResolvedAgent { channels, sources, sinks, .. } = new;
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
            let wired: Vec<_> = resolved.channels.iter().filter_map(|name| by_name(name)).collect();
            match self.sources.iter().position(|old| old.is(&resolved.plan, &wired)) {
                Some(position) => next_sources.push(self.sources.swap_remove(position)),
                None => {
                    info!("Creating instance of source {}, type {}", resolved.plan.name, resolved.plan.type_name);
                    new_sources.push((resolved, wired));
                }
            }
        }
        let mut next_sinks = Vec::new();
        let mut new_sinks = Vec::new();
        for resolved in sinks {
            let Some(channel) = by_name(&resolved.channel) else { continue };
            // Its own channel comes first.
            let dead_letters = resolved.dead_letters.as_deref().and_then(by_name);
            let wired: Vec<_> = std::iter::once(channel).chain(dead_letters).collect();
            match self.sinks.iter().position(|old| old.is(&resolved.plan, &wired)) {
                Some(position) => next_sinks.push(self.sinks.swap_remove(position)),
                None => {
                    info!("Creating instance of sink: {}, type: {}", resolved.plan.name, resolved.plan.type_name);
                    new_sinks.push((resolved, wired));
                }
            }
        }
        for running in &next_channels {
            let name = &running.plan.name;
            let feeds = |wired: &[Arc<dyn Channel>]| wired.iter().any(|channel| Arc::ptr_eq(channel, &running.channel));
            let sources = next_sources.iter().filter(|s| feeds(&s.channels)).map(|s: &Component| s.plan.name.as_str());
            let new = new_sources.iter().filter(|(_, wired)| feeds(wired)).map(|(s, _)| s.plan.name.as_str());
            let sinks = next_sinks.iter().filter(|s| feeds(&s.channels)).map(|s: &Component| s.plan.name.as_str());
            let more = new_sinks.iter().filter(|(_, wired)| feeds(wired)).map(|(s, _)| s.plan.name.as_str());
            let names: Vec<&str> = sources.chain(new).chain(sinks).chain(more).collect();
            info!("Channel {name} connected to [{}]", names.join(", "));
        }

        // Whatever is left in the old lists has no place in the new configuration.
        let deadline = Instant::now() + self.drain_limit;
        stop_all("Source", std::mem::take(&mut self.sources), deadline, now).await;
        let gone = std::mem::take(&mut self.channels);
        let empties = |sink: &Component, running: &RunningChannel| Arc::ptr_eq(&sink.channels[0], &running.channel);
        let (draining, replaced): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sinks)
            .into_iter()
            .partition(|sink| gone.iter().any(|channel| empties(sink, channel)));
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
        for (resolved, wired) in new_sinks {
            info!("Starting Sink {}", resolved.plan.name);
            self.start_sink(resolved, wired);
        }
        for (resolved, wired) in new_sources {
            info!("Starting Source {}", resolved.plan.name);
            self.start_source(resolved, wired);
        }
        drain(&gone, &draining, deadline, now).await;
        stop_all("Sink", draining, deadline, now).await;
        for gone in gone {
            self.stop_channel(&gone).await;
        }
    }

    fn start_source(&mut self, resolved: ResolvedSource, wired: Vec<Arc<dyn Channel>>) {
        let ResolvedSource { plan, class, config, chain, selector, .. } = resolved;
        let counters = self.metrics.register(Arc::new(SourceCounters::new(&plan.name)));
        let ledger = Arc::clone(&self.metrics.ledger);
        let out = ChannelProcessor::new(&plan.name, chain, selector, wired.clone(), counters, ledger);
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervisor::run_source(plan.name.clone(), class, config, out, stop.clone()));
        self.sources.push(Component { plan, channels: wired, stop, task });
    }

    fn start_sink(&mut self, resolved: ResolvedSink, wired: Vec<Arc<dyn Channel>>) {
        let ResolvedSink { plan, class, config, .. } = resolved;
        let blocks = config.blocks();
        let counters = self.metrics.register(Arc::new(SinkCounters::new(&plan.name)));
        let stop = CancellationToken::new();
        let runner = supervisor::SinkRunner {
            name: plan.name.clone(),
            class,
            config,
            outlet: Outlet::new(Arc::clone(&wired[0]), counters, Arc::clone(&self.metrics.ledger))
                .with_dead_letters(wired.get(1).cloned()),
        };
        let run = supervisor::run_sink(runner, stop.clone());
        let task = if blocks {
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || runtime.block_on(run))
        } else {
            tokio::spawn(run)
        };
        self.sinks.push(Component { plan, channels: wired, stop, task });
    }

    async fn stop_channel(&mut self, running: &RunningChannel) {
        let RunningChannel { plan, class, channel } = running;
        info!("Stopping Channel {}", plan.name);
        info!("Stopping component: {class}{{name: {}}}", plan.name);
        let left = channel.counters().size.get();
        if left > 0 && !channel.is_durable() {
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
        let summary = format!(
            "Agent {} stopped: {} events accepted, {} refused, {} delivered, {} lost",
            self.name,
            sum("SOURCE", "EventAcceptedCount"),
            sum("SOURCE", "EventRefusedCount"),
            sum("SINK", "EventDrainSuccessCount"),
            self.events_lost
        );
        if self.events_lost == 0 {
            info!("{summary}");
        } else {
            error!("{summary}");
        }
        self.events_lost
    }
}

/// Waits until the channels whose events would be lost are empty, as far as a sink empties them.
async fn drain(channels: &[RunningChannel], sinks: &[Component], deadline: Instant, now: &CancellationToken) {
    let emptied = |running: &&RunningChannel| {
        let channel = &running.channel;
        !channel.is_durable() && sinks.iter().any(|sink| Arc::ptr_eq(&sink.channels[0], channel))
    };
    let emptied: Vec<_> = channels.iter().filter(emptied).map(|running| &running.channel).collect();
    let drained = timeout_at(deadline, async {
        for channel in &emptied {
            channel.drained().await;
        }
        // The last dead letters of one channel may have gone to another that was empty already.
        for channel in &emptied {
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
    for Component { plan, stop, task, .. } in components {
        info!("Stopping {kind} {}", plan.name);
        stop.cancel();
        running.push((plan.name, task));
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
