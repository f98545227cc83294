//! The Thrift sink: sends batches to a Thrift source, this one's or Flume's.
//!
//! A batch is one `appendBatch`, and only the answer `OK` lets it leave the channel.
//!
//! Keys: those of all [RPC sinks](super::rpc), `protocol` (compact, or binary). `kerberos = true` is refused;
//! `maxConnections` has nothing to do, as a sink has one connection, as in Flume.

use super::rpc::RpcConfig;
use super::{SinkBuilder, SinkConfig};
use crate::config::{ComponentType, Props};
use crate::rpc::thrift::Protocol;

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["thrift"],
    class: "org.apache.flume.sink.ThriftSink",
    build: |props| Some(Box::new(config(props)?)),
};

fn config(props: &mut Props<'_>) -> Option<impl SinkConfig + use<>> {
    let protocol = props.lenient(
        "protocol",
        Protocol::Compact.to_string(),
        |name| Protocol::named(name).is_some(),
        "binary or compact",
        "'binary' or 'compact' are the only valid Thrift protocol types to choose from. Defaulting to 'compact'.",
    );
    let spoken = Protocol::named(&protocol).unwrap_or(Protocol::Compact);
    if spoken == Protocol::Binary && protocol != spoken.to_string() {
        props.warning("protocol", "is binary; Flume knows it in small letters alone, and takes this for compact");
    }
    let rpc = RpcConfig::from_props(props, spoken);
    props.or("maxConnections", 1i32);
    if props.or("kerberos", false) {
        props.error("kerberos", "false, as Kerberos is not in this version", "");
    }
    for key in ["client-principal", "client-keytab", "server-principal"] {
        props.text(key);
    }
    props.finish(rpc)
}
