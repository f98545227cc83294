//! Wire protocols of remote procedure calls, without sockets and agents.

pub mod thrift;
