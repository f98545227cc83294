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
        let starts = join_all(self.sinks.iter().map(open));
        let Some(started) = stop.run_until_cancelled(starts).await else { return };
        let mut running = Running::new();
        for (runner, started) in self.sinks.iter().zip(started) {
            let started = started.inspect_err(|error| error!("Unable to start sink {}: {error}", runner.name));
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
                        Ok(true) => {
                            self.processor.backed_off(number);
                            stop.run_until_cancelled(sleep(backoff.next())).await;
                            Ok(())
                        }
                        Ok(false) => {
                            self.processor.delivered(number);
                            backoff.reset();
                            Ok(())
                        }
                        Err(error) => self.failed(number, &error),
                    }
                }
                Ok(Step::Tick) => self.tick(running).await,
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
                match open(&self.sinks[*number]).await {
                    Ok(sink) => running[*number] = Some(sink),
                    Err(error) => return self.failed(*number, &error).map(|()| Step::Ask),
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

    /// Lets the sinks do what they do by the clock.
    async fn tick(&mut self, running: &mut Running) -> Result<(), String> {
        let now = Instant::now();
        for (number, place) in running.iter_mut().enumerate() {
            let Some(sink) = place.as_mut().filter(|sink| sink.next_tick().is_some_and(|at| at <= now)) else {
                continue;
            };
            match contained(sink.tick()).await {
                Ok(ticked) => ticked.map_err(|error| chain(&error))?,
                Err(panic) => {
                    *place = None;
                    self.failed(number, &panic)?;
                }
            }
        }
        Ok(())
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
    let Some(sink) = &mut running[number] else { return Err("not started".to_owned()) };
    match contained(deliver(outlet, &mut **sink, take, 1, stop)).await {
        Ok(outcome) => outcome,
        Err(panic) => {
            // It is made anew when it is tried again.
            running[number] = None;
            Err(panic)
        }
    }
}

/// Makes and starts a sink.
async fn open(runner: &SinkRunner) -> Result<Box<dyn Sink>, String> {
    contained(runner.open()).await.and_then(|opened| opened.map_err(|error| chain(&error)))
}

/// Waits for one of them, and for ever when there is none.
async fn first_of<T>(futures: Vec<impl Future<Output = T> + Unpin>) -> T {
    match futures.is_empty() {
        true => pending().await,
        false => select_all(futures).await.0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use async_trait::async_trait;
    use tokio::time::timeout;

    use super::*;
    use crate::channel::Channel;
    use crate::channel::memory::{MemoryChannel, MemoryConfig};
    use crate::event::{Batch, Event};
    use crate::metrics::{Metrics, SinkCounters};
    use crate::sink::{BuiltSink, SinkConfig, SinkError};

    /// What a sink of the tests does with a batch.
    #[derive(Clone, Copy)]
    enum Does {
        Deliver,
        RollBack { pause: bool },
        Panic,
    }

    #[async_trait]
    impl Sink for Does {
        fn batch_size(&self) -> usize {
            10
        }

        async fn start(&mut self) -> Result<(), SinkError> {
            Ok(())
        }

        async fn deliver(&mut self, _batch: &Batch) -> Result<(), SinkError> {
            match *self {
                Self::Deliver => Ok(()),
                Self::RollBack { pause } => Err(SinkError::rolled_back("as it is told to", pause)),
                Self::Panic => panic!("slipped"),
            }
        }
    }

    impl SinkConfig for Does {
        fn batch_size(&self) -> Option<usize> {
            None
        }

        fn build(&self, _name: &str, _counters: Arc<SinkCounters>) -> BuiltSink {
            BuiltSink::Push(Box::new(*self))
        }
    }

    /// A processor that goes to the next sink each time that it hears something, and remembers what.
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl Heard {
        fn hear(&mut self, what: String) {
            self.0.lock().expect("nobody panics with it").push(what);
        }
    }

    impl SinkProcessor for Heard {
        fn candidates(&mut self, _now: Instant) -> Vec<usize> {
            vec![self.0.lock().expect("nobody panics with it").len()]
        }

        fn next_change(&self, _now: Instant) -> Option<Instant> {
            None
        }

        fn delivered(&mut self, sink: usize) {
            self.hear(format!("{sink} delivered"));
        }

        fn backed_off(&mut self, sink: usize) {
            self.hear(format!("{sink} backed off"));
        }

        fn failed(&mut self, sink: usize, error: &str, _now: Instant) -> bool {
            self.hear(format!("{sink} failed: {error}"));
            true
        }

        fn all_failed(&self) -> &'static str {
            "all failed"
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_of_its_sink_and_a_roll_back_none() {
        let channel: Arc<dyn Channel> =
            Arc::new(MemoryChannel::new("c1", MemoryConfig::default(), &Metrics::default()));
        let batch = Batch::from_iter([Event::new("x")]);
        channel.try_reserve(&batch).expect("room").commit(batch);
        let does = [Does::Panic, Does::RollBack { pause: true }, Does::RollBack { pause: false }, Does::Deliver];
        let runner = |(number, does): (usize, Does)| SinkRunner {
            name: format!("k{number}"),
            class: "a sink",
            config: Box::new(does),
            outlet: Outlet::new(Arc::clone(&channel), Arc::new(SinkCounters::new("k")), Arc::default()),
        };
        // The last one has nothing left to deliver.
        let sinks = does.into_iter().chain([Does::Deliver]).enumerate().map(runner).collect();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let group = GroupRunner { name: "g1".to_owned(), processor: Box::new(Heard(Arc::clone(&heard))), sinks };
        let stop = CancellationToken::new();
        let running = tokio::spawn(run_group(group, stop.clone()));
        let drained = timeout(Duration::from_secs(60), channel.drained()).await;
        drained.expect("the last one delivers");
        stop.cancel();
        running.await.expect("it stops");
        let heard = heard.lock().expect("nobody panics with it").clone();
        assert_eq!(heard, ["0 failed: slipped", "1 backed off", "2 delivered", "3 delivered"]);
    }
}
