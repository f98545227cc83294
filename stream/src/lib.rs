//! The companion streaming job: what agents deliver becomes answers.
//!
//! A [job] is a TOML file that names [sources](source) of rows, views and [tables](table) in SQL, and
//! [sinks](sink). The [engine] cuts what the sources have into batches, gives each to the SQL, keeps the tables' state,
//! and writes results: state, positions of the sources and embedded results in one transaction of the
//! [store], so that a crash at any moment changes no count.
//!
//! SQL is DataFusion's. A batch is Arrow's [`RecordBatch`](datafusion::arrow::array::RecordBatch).

pub mod batch;
pub mod cli;
pub mod demo;
pub mod engine;
pub mod format;
pub mod generate;
pub mod job;
mod kafka;
pub mod page;
pub mod progress;
pub mod sink;
pub mod source;
pub mod spark;
pub mod sql;
pub mod store;
pub mod table;
