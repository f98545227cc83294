//! Why a channel refuses.

use thiserror::Error;

/// A channel's refusal. The texts are Flume's where it has such a case, because netcat clients read them.
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
    /// No room for so many events in a file channel within the keep-alive.
    #[error(
        "The channel has reached it's capacity. This might be the result of a sink on the channel having too low of batch size, a downstream system running slower than normal, or that the channel capacity is just too low. [channel={channel}]"
    )]
    FileFull {
        /// Its name.
        channel: String,
    },
    /// The batch has more events than a transaction of a file channel may.
    #[error(
        "Put queue for FileBackedTransaction of capacity {capacity} full, consider committing more frequently, increasing capacity or increasing thread count. [channel={channel}]"
    )]
    FileTransactionTooLarge {
        /// The transaction capacity.
        capacity: usize,
        /// The channel's name.
        channel: String,
    },
    /// The batch has more bytes than one record of a file channel may.
    #[error("{bytes} bytes are too many for one transaction [channel={channel}]")]
    RecordTooLarge {
        /// The bytes of all bodies.
        bytes: usize,
        /// The channel's name.
        channel: String,
    },
    /// No room for so many events in the memory of a channel that has no overflow.
    #[error(
        "Spillable Memory Channel's memory capacity has been reached and overflow is disabled. Consider increasing memoryCapacity."
    )]
    MemoryFull {
        /// Whether the batch is larger than the memory will ever have room for.
        never: bool,
    },
    /// No room for so many body bytes in the memory of a channel that has no overflow.
    #[error(
        "Spillable Memory Channel's memory capacity has been reached.  {free} bytes are free and overflow is disabled. Consider increasing byteCapacity or capacity."
    )]
    MemoryBytesFull {
        /// The bytes that are free.
        free: usize,
        /// Whether the batch is larger than the memory will ever have room for.
        never: bool,
    },
    /// The disk did not take the batch.
    #[error("Put failed due to IO error [channel={channel}]: {cause}")]
    PutFailed {
        /// The channel's name.
        channel: String,
        /// What the disk said.
        cause: String,
    },
    /// Kafka did not take the batch.
    #[error("Commit failed as send to Kafka failed [channel={channel}]: {cause}")]
    SendFailed {
        /// The channel's name.
        channel: String,
        /// What the client said.
        cause: String,
        /// Whether Kafka will never take an event of it.
        never: bool,
    },
    /// The channel could not be opened yet.
    #[error("Channel closed [channel={channel}]. Due to {why}")]
    Closed {
        /// Its name.
        channel: String,
        /// What is in the way.
        why: String,
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
        matches!(
            self,
            Self::Full
                | Self::BytesFull { never: false, .. }
                | Self::FileFull { .. }
                | Self::MemoryFull { never: false }
                | Self::MemoryBytesFull { never: false, .. }
                | Self::PutFailed { .. }
                | Self::SendFailed { never: false, .. }
                | Self::Closed { .. }
        )
    }
}
