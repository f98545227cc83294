//! Memory for requests that are coming in, shared by all connections of a server.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Memory is counted in pieces of so many bytes, of which every connection has the first for itself.
const PIECE_BYTES: usize = 64 << 10;
/// So many of the largest requests may come in at once, or more of smaller ones.
const LARGEST_REQUESTS: usize = 4;

/// How much memory the requests of a server's connections may take together. Whoever needs more than there is waits.
#[derive(Debug)]
pub struct Memory {
    pieces: Semaphore,
    /// Whoever has this needs no more pieces, so that of many requests of which each has a part one comes to its end.
    reserve: Semaphore,
}

impl Memory {
    /// For requests of at most so many bytes.
    pub fn for_requests(bytes: usize) -> Self {
        let pieces = bytes.saturating_mul(LARGEST_REQUESTS - 1).div_ceil(PIECE_BYTES);
        Self { pieces: Semaphore::new(pieces.min(Semaphore::MAX_PERMITS)), reserve: Semaphore::new(1) }
    }

    /// A connection's share, which is nothing yet.
    pub fn share(&self) -> Share<'_> {
        Share { memory: self, pieces: None, reserve: None }
    }
}

/// What one connection holds.
#[derive(Debug)]
pub struct Share<'a> {
    memory: &'a Memory,
    pieces: Option<SemaphorePermit<'a>>,
    reserve: Option<SemaphorePermit<'a>>,
}

impl Share<'_> {
    /// Waits until it is enough for so many bytes; what it has beyond that goes back at once.
    pub async fn fit(&mut self, bytes: usize) {
        let wanted = bytes / PIECE_BYTES;
        if wanted == 0 {
            self.reserve = None;
        }
        let held = self.pieces.as_ref().map_or(0, SemaphorePermit::num_permits);
        if wanted <= held {
            drop(self.pieces.as_mut().and_then(|pieces| pieces.split(held - wanted)));
            return;
        }
        if self.reserve.is_some() {
            return;
        }
        // Nobody closes a semaphore here.
        tokio::select! {
            biased;
            Ok(more) = self.memory.pieces.acquire_many((wanted - held) as u32) => match &mut self.pieces {
                Some(pieces) => pieces.merge(more),
                none => *none = Some(more),
            },
            Ok(reserve) = self.memory.reserve.acquire() => self.reserve = Some(reserve),
            else => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const REQUEST: usize = 1 << 20;

    #[test]
    fn small_requests_wait_for_nobody() {
        let memory = Memory::for_requests(REQUEST);
        let mut large: Vec<_> = (0..LARGEST_REQUESTS).map(|_| memory.share()).collect();
        for share in &mut large {
            share.fit(REQUEST).now_or_never().expect("there is room for so many");
        }
        assert!(memory.share().fit(REQUEST).now_or_never().is_none(), "and for no more");
        memory.share().fit(PIECE_BYTES - 1).now_or_never().expect("a small one has its own");
        large[0].fit(0).now_or_never().expect("nothing is wanted");
        memory.share().fit(REQUEST).now_or_never().expect("what is given back can be had again");
    }

    #[test]
    fn one_of_those_that_have_a_part_each_comes_to_its_end() {
        let memory = Memory::for_requests(REQUEST);
        let mut shares: Vec<_> = (0..2 * LARGEST_REQUESTS).map(|_| memory.share()).collect();
        let ended = |share: &mut Share<'_>| {
            (0..=REQUEST).step_by(PIECE_BYTES).all(|bytes| share.fit(bytes).now_or_never().is_some())
        };
        // Each gets half, which leaves nothing.
        for share in &mut shares {
            share.fit(REQUEST / 2).now_or_never();
        }
        let mut open = shares.len();
        while open > 0 {
            let before = open;
            shares.retain_mut(|share| !ended(share));
            open = shares.len();
            assert!(open < before, "{open} of them wait for each other");
        }
    }
}
