//! Room that is counted: taken out, waited for, given back, and made more or less while it is in use.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// So many free places. Those who wait for some are served in their order.
pub struct Room {
    free: Semaphore,
    /// Places that are to go once they come back, after the room was made smaller.
    excess: AtomicUsize,
}

impl Room {
    /// All of it free.
    pub fn new(places: usize) -> Self {
        Self { free: Semaphore::new(places), excess: AtomicUsize::new(0) }
    }

    /// How much is free at this moment.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Takes places if they are free.
    pub fn try_take(&self, places: u32) -> bool {
        self.free.try_acquire_many(places).map(|permit| permit.forget()).is_ok()
    }

    /// Waits for places and takes them.
    pub async fn take(&self, places: u32) {
        if let Ok(permit) = self.free.acquire_many(places).await {
            permit.forget();
        }
    }

    /// Takes places that are in use already, whether they are free or not.
    pub fn occupy(&self, places: usize) {
        let missing = places - self.free.forget_permits(places);
        self.excess.fetch_add(missing, Ordering::AcqRel);
    }

    /// Gives places back, less those that are to go.
    pub fn give_back(&self, places: usize) {
        if self.excess.load(Ordering::Relaxed) == 0 {
            self.free.add_permits(places);
            return;
        }
        let less = |excess: usize| Some(excess.saturating_sub(places));
        let excess = self.excess.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).unwrap_or(0);
        self.free.add_permits(places - excess.min(places));
    }

    /// Changes the size; what is in use now leaves a smaller room as it comes back.
    pub fn resize(&self, old: usize, new: usize) {
        if new >= old {
            self.give_back(new - old);
        } else {
            self.occupy(old - new);
        }
    }
}

/// Waits, but no longer than a limit if there is one; `None` when it is over.
pub async fn within<T>(limit: Option<Duration>, wait: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, wait).await.ok(),
        None => Some(wait.await),
    }
}
