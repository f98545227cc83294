//! Integration tests: the built program, spoken to as its users and their programs speak to it.
//!
//! Every test starts agents of its own on ports that the system chooses, waits for conditions with a deadline, and
//! prints the agent's whole log when it fails.

mod support;

mod avro;
mod avro_client;
mod avro_peers;
mod avro_sink;
mod channel_command;
mod cli;
mod config;
mod dry_run;
mod examples;
mod exec;
mod file_channel;
mod file_roll;
mod files_peers;
mod generators;
mod http;
mod http_sink;
mod interceptors;
mod kafka;
mod kafka_exactly_once;
mod kafka_faults;
mod lifecycle;
mod logging;
mod metrics;
mod netcat;
mod netcat_udp;
mod packaging;
mod real_flume;
mod routing_peers;
mod selectors;
mod sink_groups;
mod spark;
mod spark_peers;
mod spillable_channel;
mod spooldir;
mod syslog;
mod taildir;
mod takeover;
mod thrift;
