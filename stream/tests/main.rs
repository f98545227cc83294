//! Scenarios: jobs as processes, as users run them, with the real systems around them.

mod demo;
mod generate;
mod job_file;
mod kafka;
mod page;
mod support;
mod word_count;
