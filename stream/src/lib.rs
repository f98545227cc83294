//! The companion streaming job.
