//! Scenarios: jobs as processes, as users run them, with the real systems around them.

mod access_log;
mod demo;
mod examples;
mod flume_pull;
mod flume_push;
mod folder;
mod generate;
mod job_file;
mod kafka;
mod page;
mod rate;
mod state;
mod support;
mod windows;
mod word_count;
