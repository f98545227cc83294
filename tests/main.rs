//! Integration tests: the built program, spoken to as its users and their programs speak to it.
//!
//! Every test starts agents of its own on ports that the system chooses, waits for conditions with a deadline, and
//! prints the agent's whole log when it fails.

mod support;

mod avro;
mod avro_client;
mod avro_peers;
mod avro_sink;
mod cli;
mod config;
mod examples;
mod exec;
mod file_channel;
mod file_roll;
mod generators;
mod kafka;
mod lifecycle;
mod logging;
mod metrics;
mod netcat;
mod packaging;
mod real_flume;
mod spark;
mod spark_peers;
mod thrift;
