//! Scenarios: jobs as processes, as users run them, with the real systems around them.

mod batch_sql;
mod databases;
mod hbase;
mod job_file;
mod redis;
mod support;
mod text_files;
mod word_count;
