//! The avro sink: sends events by Avro RPC, to avro sources of other agents and to Spark's push receiver.
//!
//! A batch is one `appendBatch`, and only the answer `OK` lets it leave the channel.
//!
//! Keys: those of all [RPC sinks](super::rpc), and of compression.

use super::rpc::RpcConfig;
use super::{SinkBuilder, SinkConfig};
use crate::config::{ComponentType, Props};
use crate::rpc::avro::Avro;

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["avro"],
    class: "org.apache.flume.sink.AvroSink",
    build: |props| Some(Box::new(config(props)?)),
};

fn config(props: &mut Props<'_>) -> Option<impl SinkConfig + use<>> {
    let rpc = RpcConfig::from_props(props, Avro).for_avro(props);
    props.finish(rpc)
}
