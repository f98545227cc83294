//! Scenarios: jobs as processes, as users run them, with the real systems around them.

mod job_file;
mod state;
mod support;
mod windows;
mod word_count;
