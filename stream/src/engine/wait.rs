//! Waiting between tries, and how often that is spoken of.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// How long to wait before a source or a sink is tried again: at first, and at most.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// A warning that could come with every batch comes so often.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(10);

/// A warning that is said now and then.
#[derive(Default)]
pub struct Sometimes(Option<Instant>);

impl Sometimes {
    /// Whether to say it now.
    pub fn now(&mut self) -> bool {
        let due = self.0.is_none_or(|said| said.elapsed() >= BETWEEN_WARNINGS);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// Waiting between tries, longer and longer, with a word in the log now and then.
#[derive(Default)]
pub struct Wait {
    next: Option<Duration>,
    said: Sometimes,
    /// Whether the log has a word on what is wrong now.
    is_known: bool,
}

impl Wait {
    /// Whether the last try failed.
    pub fn failed(&self) -> bool {
        self.next.is_some()
    }

    /// A try has failed.
    pub fn complain(&mut self, what: &str) {
        self.next.get_or_insert(FIRST);
        if self.said.now() {
            error!("{what}; trying again");
            self.is_known = true;
        }
    }

    /// A try has worked: the next failure is a new one.
    pub fn over(&mut self, who: &str) {
        self.next = None;
        if std::mem::take(&mut self.is_known) {
            info!("{who}: it works again");
        }
    }

    /// Waits until the next try. Nothing when the job is stopped meanwhile.
    pub async fn pause(&mut self, stop: &CancellationToken) -> Option<()> {
        let next = self.next.unwrap_or(FIRST);
        self.next = Some((next * 2).min(LONGEST));
        stop.run_until_cancelled(sleep(next)).await
    }
}
