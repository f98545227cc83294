//! Why a channel refuses.

use thiserror::Error;

/// A channel's refusal. The texts of the first four are Flume's, because netcat clients read them.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ChannelError {
    /// No room for so many events within the keep-alive.
    #[error(
        "Space for commit to queue couldn't be acquired. Sinks are likely not keeping up with sources, or the buffer size is too tight"
    )]
    Full,
    /// No room for so many body bytes within the keep-alive.
    #[error(
        "Cannot commit transaction. Byte capacity allocated to store event body {capacity:?}reached. Please increase heap space/byte capacity allocated to the channel as the sinks may not be keeping up with the sources"
    )]
    BytesFull {
        /// The usable bytes.
        capacity: f64,
        /// Whether the batch is larger than the channel will ever have room for.
        never: bool,
    },
    /// The batch has more events than a transaction may.
    #[error(
        "Put queue for MemoryTransaction of capacity {capacity} full, consider committing more frequently, increasing capacity or increasing thread count"
    )]
    TransactionTooLarge {
        /// The transaction capacity.
        capacity: usize,
    },
    /// The channel has been stopped.
    #[error("channel {channel} is stopped")]
    Stopped {
        /// Its name.
        channel: String,
    },
}

impl ChannelError {
    /// Whether the same batch may succeed later with nobody's help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full | Self::BytesFull { never: false, .. })
    }
}
