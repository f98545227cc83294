//! Runs the sinks of a group: one at a time delivers, and the group's processor says which.

use std::future::{Future, pending};

use futures_util::future::{join_all, select_all};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::supervisor::{Backoff, SinkRunner, chain, contained, deliver, due};
use crate::channel::Take;
use crate::sink::processor::SinkProcessor;
use crate::sink::{Outlet, Sink};

/// What it takes to run a group.
pub struct GroupRunner {
    pub name: String,
    pub processor: Box<dyn SinkProcessor>,
    pub sinks: Vec<SinkRunner>,
}

/// The group's sinks as they run; none where one could not be started.
type Running = Vec<Option<Box<dyn Sink>>>;

/// What is to be done next.
enum Step {
    Deliver(usize, Take),
    Tick,
    /// To ask the processor again.
    Ask,
}

/// Runs a group until it is told to stop.
pub async fn run_group(mut group: GroupRunner, stop: CancellationToken) {
    let mut backoff = Backoff::to_start();
    while !stop.is_cancelled() {
        match contained(group.start_and_run(&stop)).await {
            Ok(()) => break,
            Err(panic) => error!("sink group {} failed: {panic}; it is started anew", group.name),
        }
        let wait = backoff.next();
        stop.run_until_cancelled(sleep(wait)).await;
    }
}

impl GroupRunner {
    async fn start_and_run(&mut self, stop: &CancellationToken) {
        let starts = join_all(self.sinks.iter().map(SinkRunner::open));
        let Some(started) = stop.run_until_cancelled(starts).await else { return };
        let mut running = Running::new();
        for (runner, started) in self.sinks.iter().zip(started) {
            let started = started.inspect_err(|error| error!("Unable to start sink {}: {}", runner.name, chain(error)));
            running.push(started.ok());
        }
        self.run(&mut running, stop).await;
        for (runner, sink) in self.sinks.iter().zip(running) {
            if let Some(mut sink) = sink {
                sink.stop().await;
                runner.outlet.counters().stopped();
            }
        }
    }

    async fn run(&mut self, running: &mut Running, stop: &CancellationToken) {
        let mut backoff = Backoff::to_deliver();
        loop {
            let Some(step) = stop.run_until_cancelled(self.next(running)).await else { return };
            let outcome = match step {
                Ok(Step::Deliver(number, take)) => {
                    match deliver_to(running, number, &self.sinks[number].outlet, take, stop).await {
                        Ok(pause) => {
                            self.processor.delivered(number);
                            if pause {
                                stop.run_until_cancelled(sleep(backoff.next())).await;
                            } else {
                                backoff.reset();
                            }
                            Ok(())
                        }
                        Err(error) => self.failed(number, &error),
                    }
                }
                Ok(Step::Tick) => tick(running).await,
                Ok(Step::Ask) => Ok(()),
                Err(error) => Err(error),
            };
            tokio::task::consume_budget().await;
            if let Err(error) = outcome {
                let wait = backoff.next();
                error!(
                    "Unable to deliver event. Exception follows. Sink group {}: {error}; tried again in {} ms",
                    self.name,
                    wait.as_millis()
                );
                stop.run_until_cancelled(sleep(wait)).await;
            }
        }
    }

    /// Waits until there is something to do. Cut off, it has done nothing.
    async fn next(&mut self, running: &mut Running) -> Result<Step, String> {
        let now = Instant::now();
        let mut first_of_channel: Vec<usize> = Vec::new();
        for number in self.processor.candidates(now) {
            let outlet = |number: usize| &self.sinks[number].outlet;
            if !first_of_channel.iter().any(|other| outlet(*other).shares_channel(outlet(number))) {
                first_of_channel.push(number);
            }
        }
        for number in &first_of_channel {
            if running[*number].is_none() {
                match self.sinks[*number].open().await {
                    Ok(sink) => running[*number] = Some(sink),
                    Err(error) => return self.failed(*number, &chain(&error)).map(|()| Step::Ask),
                }
            }
        }
        let takes = first_of_channel.iter().filter_map(|number| {
            let (outlet, max) = (&self.sinks[*number].outlet, running[*number].as_ref()?.batch_size());
            Some(Box::pin(async move { (*number, outlet.take(max).await) }))
        });
        let takes = takes.collect();
        let tick = running.iter().flatten().filter_map(|sink| sink.next_tick()).min();
        let (number, taken) = tokio::select! {
            biased;
            () = due(tick) => return Ok(Step::Tick),
            () = due(self.processor.next_change(now)) => return Ok(Step::Ask),
            taken = first_of(takes) => taken,
        };
        match taken {
            Ok(take) => Ok(Step::Deliver(number, take)),
            Err(error) => self.failed(number, &error.to_string()).map(|()| Step::Ask),
        }
    }

    /// Notes a failure; an error when no other sink is to be tried.
    fn failed(&mut self, number: usize, error: &str) -> Result<(), String> {
        match self.processor.failed(number, error, Instant::now()) {
            true => Ok(()),
            false => Err(self.processor.all_failed().to_owned()),
        }
    }
}

/// One batch at a time, as the next one may be for another sink.
async fn deliver_to(
    running: &mut Running,
    number: usize,
    outlet: &Outlet,
    take: Take,
    stop: &CancellationToken,
) -> Result<bool, String> {
    match &mut running[number] {
        Some(sink) => deliver(outlet, &mut **sink, take, 1, stop).await,
        None => Err("not started".to_owned()),
    }
}

/// Waits for one of them, and for ever when there is none.
async fn first_of<T>(futures: Vec<impl Future<Output = T> + Unpin>) -> T {
    match futures.is_empty() {
        true => pending().await,
        false => select_all(futures).await.0,
    }
}

/// Lets the sinks do what they do by the clock.
async fn tick(running: &mut Running) -> Result<(), String> {
    let now = Instant::now();
    for sink in running.iter_mut().flatten() {
        if sink.next_tick().is_some_and(|at| at <= now) {
            sink.tick().await.map_err(|error| chain(&error))?;
        }
    }
    Ok(())
}
