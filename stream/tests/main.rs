//! Scenarios: jobs as processes, as users run them, with the real systems around them.

mod examples;
mod flume_pull;
mod flume_push;
mod folder;
mod job_file;
mod rate;
mod support;
mod word_count;
