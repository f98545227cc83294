//! The Thrift sink: sends batches to a Thrift source, this one's or Flume's.
//!
//! A batch is one `appendBatch`, and only the answer OK lets it leave the channel.
//!
//! Keys: those of all [RPC sinks](super::rpc), `protocol` (compact, or binary). `kerberos = true` is refused;
//! `maxConnections` has nothing to do, as a sink has one connection, as in Flume.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;

use super::rpc::{RpcConfig, RpcConnection, RpcProtocol, RpcSink};
use super::{BuiltSink, SinkBuilder, SinkConfig};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::metrics::SinkCounters;
use crate::net::Stream;
use crate::rpc::thrift::{Client, Protocol};

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["thrift"],
    class: "org.apache.flume.sink.ThriftSink",
    build: |props| Some(Box::new(ThriftConfig::from_props(props)?)),
};

struct ThriftConfig {
    rpc: Arc<RpcConfig>,
    protocol: Protocol,
}

impl ThriftConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let rpc = Arc::new(RpcConfig::from_props(props));
        let protocol = props.lenient(
            "protocol",
            Protocol::Compact.to_string(),
            |name| Protocol::named(name).is_some(),
            "binary or compact",
            "'binary' or 'compact' are the only valid Thrift protocol types to choose from. Defaulting to 'compact'.",
        );
        props.or("maxConnections", 1i32);
        if props.or("kerberos", false) {
            props.error("kerberos", "false, as Kerberos is not in this version", "");
        }
        for key in ["client-principal", "client-keytab", "server-principal"] {
            props.text(key);
        }
        props.finish(Self { rpc, protocol: Protocol::named(&protocol).unwrap_or(Protocol::Compact) })
    }
}

impl SinkConfig for ThriftConfig {
    fn batch_size(&self) -> Option<usize> {
        Some(self.rpc.batch_size)
    }

    fn build(&self, name: &str, counters: Arc<SinkCounters>) -> BuiltSink {
        BuiltSink::Push(Box::new(RpcSink::new(name, Arc::clone(&self.rpc), self.protocol, counters)))
    }
}

impl RpcProtocol for Protocol {
    fn open(&self, stream: Box<dyn Stream>) -> Box<dyn RpcConnection> {
        Box::new(Client::new(stream, *self))
    }
}

#[async_trait]
impl RpcConnection for Client<Box<dyn Stream>> {
    async fn append_batch(&mut self, batch: &Batch) -> io::Result<()> {
        Self::append_batch(self, batch).await.map_err(io::Error::other)
    }

    fn is_usable(&mut self) -> bool {
        Self::is_usable(self)
    }

    async fn close(&mut self) -> io::Result<()> {
        Self::close(self).await
    }
}
