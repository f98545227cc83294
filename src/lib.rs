//! flume-rs runs Apache Flume configurations: sources, channels and sinks, transactionally, in one small binary.
//!
//! The way of an event: a [`source`] builds a [`Batch`](event::Batch) and hands it to its
//! [`ChannelProcessor`](source::ChannelProcessor), which runs [interceptors](interceptor) and a [`selector`] and
//! commits to [channels](channel); a [`sink`] takes it from there. The [`agent`] builds all of them from what
//! [`config`] reads, and keeps them running.

pub mod agent;
mod blocking;
pub mod channel;
mod charset;
pub mod cli;
pub mod config;
pub mod dry_run;
mod escape;
pub mod event;
pub mod fs;
pub mod interceptor;
mod java;
pub mod java_regex;
pub mod kafka;
pub mod logging;
pub mod metrics;
pub mod net;
mod read_buffer;
pub mod rpc;
pub mod selector;
pub mod serializer;
pub mod sink;
pub mod source;
pub mod tls;
