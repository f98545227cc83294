//! No format: all columns are the source's own.

use datafusion::arrow::datatypes::Field;
use serde::de::IgnoredAny;

use super::{Format, Parsed, Records};
use crate::job::{JobError, Keys};

#[derive(Debug)]
struct Nothing;

/// For a type of source whose records have no bytes. A format that is given all the same is a mistake.
pub fn none(keys: &mut Keys<'_>, kind: &str) -> Result<Box<dyn Format>, JobError> {
    for key in ["format", "columns"] {
        if keys.take::<IgnoredAny>(key)?.is_some() {
            return Err(keys.error(format!("`{key}`: a source of type {kind} has columns of its own, and no format")));
        }
    }
    Ok(Box::new(Nothing))
}

impl Format for Nothing {
    fn fields(&self) -> Vec<Field> {
        Vec::new()
    }

    fn spark(&self) -> Result<serde_json::Value, String> {
        Ok(serde_json::json!({ "kind": "none", "columns": [] }))
    }

    fn parse(&self, _: &mut Records) -> Parsed {
        Parsed::default()
    }
}
