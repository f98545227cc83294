//! Scenarios: jobs as processes, as users run them, with the real systems around them.

mod access_log;
mod batch_sql;
mod databases;
mod demo;
mod examples;
mod flume_pull;
mod flume_push;
mod folder;
mod generate;
mod hbase;
mod job_file;
mod kafka;
mod own_sources;
mod page;
mod programs;
mod project;
mod rate;
mod redis;
mod restart;
mod spark;
mod state;
mod support;
mod text_files;
mod windows;
mod word_count;
