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
pub struct Backoff {
    step: Duration,
    limit: Duration,
    attempts: u32,
}

impl Backoff {
    /// Between attempts to start a component. Flume tries every three seconds.
    pub fn to_start() -> Self {
        Self { step: Duration::from_secs(1), limit: Duration::from_secs(3), attempts: 0 }
    }

    /// Between attempts to deliver: Flume's steps of its sink runner.
    pub fn to_deliver() -> Self {
        Self { step: Duration::from_secs(1), limit: Duration::from_secs(5), attempts: 0 }
    }

    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    pub fn next(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        (self.step * self.attempts).min(self.limit)
    }
}

/// An error with all its causes on one line.
pub fn chain(error: &dyn Error) -> String {
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
    out.say_what_is_left();
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
                None => sink.tick().await.map(|()| false).map_err(|error| chain(&error)),
                Some(Ok(take)) => deliver(&self.outlet, sink, take, usize::MAX, stop).await,
                Some(Err(error)) => Err(error.to_string()),
            };
            // A channel that always has something must not keep the thread from everybody else.
            tokio::task::consume_budget().await;
            match outcome {
                Ok(false) => backoff.reset(),
                Ok(true) => {
                    stop.run_until_cancelled(sleep(backoff.next())).await;
                }
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

    /// Makes and starts a sink that is given its batches.
    pub async fn open(&self) -> Result<Box<dyn Sink>, SinkError> {
        match self.config.build(&self.name, Arc::clone(self.outlet.counters())) {
            BuiltSink::Push(mut sink) => {
                sink.start().await?;
                self.outlet.counters().started();
                Ok(sink)
            }
            BuiltSink::Pull(_) => Err(SinkError::new("its events are fetched by others")),
        }
    }
}

/// Delivers what has been taken, and commits; where the sink has room for more batches, also what follows while
/// there is something, but no more than `most` at once. Returns whether the sink pauses now.
pub async fn deliver(
    outlet: &Outlet,
    sink: &mut dyn Sink,
    first: Take,
    most: usize,
    stop: &CancellationToken,
) -> Result<bool, String> {
    let mut delivery = Delivery { outlet, sink, under_way: VecDeque::new(), back: Vec::new(), outcome: Ok(false) };
    let mut next = Some(first);
    loop {
        if let Some(take) = next.take() {
            delivery.begin(take).await;
        } else if delivery.under_way.is_empty() {
            break;
        } else {
            delivery.end().await;
        }
        if delivery.has_room(most) && !stop.is_cancelled() {
            next = outlet.take(delivery.sink.batch_size()).now_or_never().and_then(Result::ok);
        }
        tokio::task::consume_budget().await;
    }
    std::mem::replace(&mut delivery.outcome, Ok(false))
}

/// Batches on their way through a sink. Those that have not been committed when it is dropped, perhaps because it is cut
/// off, go back to the channel.
struct Delivery<'a> {
    outlet: &'a Outlet,
    sink: &'a mut dyn Sink,
    /// The oldest first, each with what came of its beginning.
    under_way: VecDeque<(Take, Result<(), SinkError>)>,
    /// What goes back to the channel, the oldest first.
    back: Vec<Take>,
    /// Whether the sink pauses, or the first failure.
    outcome: Result<bool, String>,
}

impl Delivery<'_> {
    /// Whether one more may follow: not behind one that goes back, nor into a pause.
    fn has_room(&self, most: usize) -> bool {
        let depth = self.sink.depth().min(most);
        let all_begun = self.under_way.back().is_none_or(|(_, begun)| begun.is_ok());
        let goes_on = all_begun && self.back.is_empty() && self.outcome == Ok(false);
        goes_on && depth > 1 && self.under_way.len() < depth
    }

    async fn begin(&mut self, take: Take) {
        let begun = self.sink.begin(take.batch(), take.numbers()).await;
        self.under_way.push_back((take, begun));
    }

    /// Ends the delivery of the oldest batch and commits it, or keeps it to go back.
    async fn end(&mut self) {
        let Some((take, begun)) = self.under_way.front_mut() else { return };
        let ended = match std::mem::replace(begun, Ok(())) {
            Ok(()) => self.sink.end(take.batch()).await,
            failed => failed,
        };
        let Some((take, _)) = self.under_way.pop_front() else { return };
        let outcome = match ended {
            Ok(()) => self.commit(take).await,
            Err(error) => {
                self.back.push(take);
                self.failed(&error)
            }
        };
        match (&mut self.outcome, outcome) {
            (Ok(pauses), Ok(pause)) => *pauses |= pause,
            (Ok(_), failure) => self.outcome = failure,
            (Err(_), _) => {}
        }
    }

    async fn commit(&mut self, take: Take) -> Result<bool, String> {
        let delivered = self.sink.delivered();
        let committed = self.outlet.commit_as(take, self.sink.batch_size(), &delivered).await;
        committed.map(|()| delivered.pause).map_err(|error| error.to_string())
    }

    fn failed(&self, error: &SinkError) -> Result<bool, String> {
        if let Some(pause) = error.pause() {
            return Ok(pause);
        }
        self.outlet.counters().event_write_fail.add(1);
        Err(chain(error))
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        // The newest goes first, so that they are at the head of the channel in their order.
        self.under_way.drain(..).rev().for_each(drop);
        self.back.drain(..).rev().for_each(drop);
    }
}

/// Waits for a moment; without one, for ever.
pub async fn due(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Runs a future to its end or to its panic, of which it gives the text: a panic ends this attempt and nothing else.
pub async fn contained<T>(attempt: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(attempt).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::channel::memory::{MemoryChannel, MemoryConfig};
    use crate::channel::{Channel, Numbers};
    use crate::event::{Batch, Event};
    use crate::metrics::{Metrics, SinkCounters};
    use crate::sink::Delivered;

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

    /// Has three batches under way, of which one with such a body does not come through.
    #[derive(Default)]
    struct Picky {
        fails_to_begin: &'static [u8],
        fails_to_end: &'static [u8],
        never_ends: &'static [u8],
        goes_back: &'static [u8],
        pauses: bool,
    }

    #[async_trait]
    impl Sink for Picky {
        fn batch_size(&self) -> usize {
            1
        }

        async fn start(&mut self) -> Result<(), SinkError> {
            Ok(())
        }

        fn depth(&self) -> usize {
            3
        }

        async fn begin(&mut self, batch: &Batch, _numbers: Option<Numbers>) -> Result<(), SinkError> {
            match batch.get(0).body() == self.fails_to_begin {
                true => Err(SinkError::new("not begun")),
                false => Ok(()),
            }
        }

        async fn end(&mut self, batch: &Batch) -> Result<(), SinkError> {
            match batch.get(0).body() {
                body if body == self.fails_to_end => Err(SinkError::new("not ended")),
                body if body == self.never_ends => std::future::pending().await,
                body if body == self.goes_back => Err(SinkError::rolled_back("back", true)),
                _ => Ok(()),
            }
        }

        async fn deliver(&mut self, _batch: &Batch) -> Result<(), SinkError> {
            Ok(())
        }

        fn delivered(&mut self) -> Delivered {
            Delivered { pause: self.pauses, ..Delivered::default() }
        }
    }

    /// What comes of a delivery of a, b, c, d, e, and what is left in the channel.
    async fn delivered(mut sink: Picky, depth: usize) -> (Result<bool, String>, String) {
        let channel: Arc<dyn Channel> =
            Arc::new(MemoryChannel::new("c1", MemoryConfig::default(), &Metrics::default()));
        let batch: Batch = ["a", "b", "c", "d", "e"].into_iter().map(Event::new).collect();
        channel.try_reserve(&batch).expect("room").commit(batch);
        let outlet = Outlet::new(Arc::clone(&channel), Arc::new(SinkCounters::new("k1")), Arc::default());
        let first = outlet.take(1).await.expect("events");
        let outcome = deliver(&outlet, &mut sink, first, depth, &CancellationToken::new()).now_or_never();
        let outcome = outcome.unwrap_or_else(|| Err("cut off".to_owned()));
        let mut left = String::new();
        while channel.counters().size.get() > 0 {
            let take = channel.take(1).await.expect("events");
            left.push_str(&String::from_utf8_lossy(take.batch().get(0).body()));
            take.commit();
        }
        (outcome, left)
    }

    #[tokio::test]
    async fn of_several_batches_under_way_those_that_fail_go_back_in_their_order() {
        assert_eq!(delivered(Picky::default(), 3).await, (Ok(false), String::new()));
        assert_eq!(delivered(Picky::default(), 1).await, (Ok(false), "bcde".to_owned()));
        let failed = Picky { fails_to_end: b"a", fails_to_begin: b"c", ..Picky::default() };
        assert_eq!(delivered(failed, 3).await, (Err("not ended".to_owned()), "acde".to_owned()));
        let stuck = Picky { fails_to_end: b"a", never_ends: b"b", ..Picky::default() };
        assert_eq!(delivered(stuck, 3).await, (Err("cut off".to_owned()), "abcde".to_owned()));
    }

    #[tokio::test]
    async fn nothing_more_is_taken_into_a_pause() {
        let pausing = Picky { pauses: true, ..Picky::default() };
        assert_eq!(delivered(pausing, 3).await, (Ok(true), "de".to_owned()));
        let rolled_back = Picky { goes_back: b"b", ..Picky::default() };
        assert_eq!(delivered(rolled_back, 3).await, (Ok(true), "be".to_owned()));
    }

    #[test]
    fn causes_are_told_once_each() {
        let error = SinkError::io("could not write x", std::io::Error::other("no space"));
        assert_eq!(chain(&error), "could not write x: no space");
    }
}
