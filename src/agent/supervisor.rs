//! Keeps one component running: starts it, and starts it anew with back-off when it fails.

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::channel::Take;
use crate::metrics::CounterGroup as _;
use crate::sink::{BuiltSink, Outlet, Sink, SinkConfig, SinkError};
use crate::source::{ChannelProcessor, SourceConfig};

/// Waits between attempts: one step longer each time, up to a limit.
struct Backoff {
    step: Duration,
    limit: Duration,
    attempts: u32,
}

impl Backoff {
    /// Between attempts to start a component. Flume tries every three seconds.
    fn to_start() -> Self {
        Self { step: Duration::from_secs(1), limit: Duration::from_secs(3), attempts: 0 }
    }

    /// Between attempts to deliver: Flume's steps of its sink runner.
    fn to_deliver() -> Self {
        Self { step: Duration::from_secs(1), limit: Duration::from_secs(5), attempts: 0 }
    }

    fn reset(&mut self) {
        self.attempts = 0;
    }

    fn next(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        (self.step * self.attempts).min(self.limit)
    }
}

/// An error with all its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Runs a source until it is told to stop.
pub async fn run_source(
    name: String,
    class: &'static str,
    config: Box<dyn SourceConfig>,
    out: ChannelProcessor,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::to_start();
    while !stop.is_cancelled() {
        let mut source = config.build(&name);
        let out = out.clone();
        let run_stop = stop.clone();
        let attempt = contained(async move {
            match run_stop.run_until_cancelled(source.start()).await {
                None => return Ok(()),
                Some(started) => started.map_err(|error| (false, error))?,
            }
            out.counters().started();
            source.run(&out, &run_stop).await.map_err(|error| (true, error))
        });
        let component = format!("EventDrivenSourceRunner: {{ source:{class}{{name:{name},state:IDLE}} }}");
        match attempt.await {
            Ok(Ok(())) => {
                // Whether it is told to stop or has no more to do.
                stop.cancelled().await;
            }
            Ok(Err((was_running, error))) => {
                if was_running {
                    backoff.reset();
                }
                error!("Unable to start {component} - Exception follows. {}", chain(&error));
            }
            Err(panic) => error!("{component} failed: {panic}; it is started anew"),
        }
        let wait = backoff.next();
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            break;
        }
    }
    if out.counters().start_time() != 0 {
        out.counters().stopped();
    }
}

/// What it takes to run a sink.
pub struct SinkRunner {
    pub name: String,
    pub class: &'static str,
    pub config: Box<dyn SinkConfig>,
    pub outlet: Outlet,
}

/// Runs a sink until it is told to stop.
pub async fn run_sink(runner: SinkRunner, stop: CancellationToken) {
    let mut backoff = Backoff::to_start();
    while !stop.is_cancelled() {
        match contained(runner.start_and_run(&stop)).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => error!(
                "Unable to start SinkRunner: {{ policy:org.apache.flume.sink.DefaultSinkProcessor, sink:{}{{name:{}}} }} - Exception follows. {}",
                runner.class,
                runner.name,
                chain(&error)
            ),
            Err(panic) => error!("sink {} failed: {panic}; it is started anew", runner.name),
        }
        let wait = backoff.next();
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            break;
        }
    }
}

impl SinkRunner {
    async fn start_and_run(&self, stop: &CancellationToken) -> Result<(), SinkError> {
        let counters = self.outlet.counters();
        match self.config.build(&self.name, Arc::clone(counters)) {
            BuiltSink::Push(mut sink) => {
                match stop.run_until_cancelled(sink.start()).await {
                    None => return Ok(()),
                    Some(started) => started?,
                }
                counters.started();
                self.run(&mut *sink, stop).await;
                sink.stop().await;
            }
            BuiltSink::Pull(mut sink) => {
                match stop.run_until_cancelled(sink.start()).await {
                    None => return Ok(()),
                    Some(started) => started?,
                }
                counters.started();
                sink.run(&self.outlet, stop).await?;
            }
        }
        counters.stopped();
        Ok(())
    }

    async fn run(&self, sink: &mut dyn Sink, stop: &CancellationToken) {
        let mut backoff = Backoff::to_deliver();
        loop {
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = due(sink.next_tick()) => None,
                taken = self.outlet.take(sink.batch_size()) => Some(taken),
            };
            let outcome = match taken {
                None => sink.tick().await.map_err(|error| chain(&error)),
                Some(Ok(take)) => self.deliver(sink, take, stop).await,
                Some(Err(error)) => Err(error.to_string()),
            };
            // A channel that always has something must not keep the thread from everybody else.
            tokio::task::consume_budget().await;
            match outcome {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    let wait = backoff.next();
                    error!(
                        "Unable to deliver event. Exception follows. Sink {}: {error}; tried again in {} ms",
                        self.name,
                        wait.as_millis()
                    );
                    stop.run_until_cancelled(sleep(wait)).await;
                }
            }
        }
    }

    /// Delivers a take and, as far as the sink can have more under way, those that follow while there are any.
    async fn deliver(&self, sink: &mut dyn Sink, first: Take, stop: &CancellationToken) -> Result<(), String> {
        let mut next = Some(first);
        let mut begun = VecDeque::new();
        let mut failed = Vec::new();
        let mut not_begun = None;
        let mut problem = None;
        while let Some(take) = next.take().map(Ok).or_else(|| begun.pop_front().map(Err)) {
            let outcome = match take {
                Ok(take) => match sink.begin(take.batch(), take.numbers()).await {
                    Ok(()) => {
                        begun.push_back(take);
                        Ok(())
                    }
                    Err(error) => {
                        not_begun = Some(take);
                        Err(self.failed(&error))
                    }
                },
                Err(take) => match sink.end(take.batch()).await {
                    Ok(()) => self.commit(take, sink).await,
                    Err(error) => {
                        failed.push(take);
                        Err(self.failed(&error))
                    }
                },
            };
            problem = problem.or(outcome.err());
            let more = sink.depth() > 1 && begun.len() < sink.depth();
            if more && problem.is_none() && !stop.is_cancelled() {
                next = self.outlet.take(sink.batch_size()).now_or_never().and_then(Result::ok);
            }
            tokio::task::consume_budget().await;
        }
        // The newest goes first, so that they are at the head of the channel in their order.
        drop(not_begun);
        failed.into_iter().rev().for_each(drop);
        problem.map_or(Ok(()), Err)
    }

    async fn commit(&self, take: Take, sink: &mut dyn Sink) -> Result<(), String> {
        let refused = sink.refused();
        self.outlet.commit_but(take, sink.batch_size(), &refused).await.map_err(|error| error.to_string())
    }

    fn failed(&self, error: &SinkError) -> String {
        self.outlet.counters().event_write_fail.add(1);
        chain(error)
    }
}

/// Waits for a moment; without one, for ever.
async fn due(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Runs a future to its end or to its panic, of which it gives the text: a panic ends this attempt and nothing else.
async fn contained<T>(attempt: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(attempt).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_limit_and_resets() {
        let mut backoff = Backoff::to_deliver();
        let waits: Vec<u64> = (0..7).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(waits, [1, 2, 3, 4, 5, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.next().as_secs(), 1);
    }

    #[tokio::test]
    async fn a_panic_is_contained_and_told() {
        let attempt = contained(async {
            tokio::task::yield_now().await;
            if true {
                panic!("slipped");
            }
        });
        assert_eq!(attempt.await, Err("slipped".to_owned()));
        assert_eq!(contained(async { 1 }).await, Ok(1));
    }

    #[test]
    fn causes_are_told_once_each() {
        let error = SinkError::io("could not write x", std::io::Error::other("no space"));
        assert_eq!(chain(&error), "could not write x: no space");
    }
}
