//! An aggregate that is split into steps, so that its states can be kept between batches.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::sql::{Query, Relation};

/// A SELECT's aggregate, split into steps.
#[derive(Debug)]
pub struct Aggregation {
    /// Rows to partial states.
    partial: Query,
    /// Several partial states of a key to one.
    unmerged: Arc<Relation>,
    merge: Query,
    /// Partial states to results, and what stands above the aggregate.
    merged: Arc<Relation>,
    finish: Query,
    /// Keys, the first columns of partial states, as bytes.
    keys: RowConverter,
    /// The other columns, as bytes.
    values: RowConverter,
    key_columns: usize,
    is_row_by_row: bool,
}

fn plan_error(text: &str) -> DataFusionError {
    DataFusionError::Plan(text.to_owned())
}

impl Aggregation {
    /// Splits a planned SELECT.
    pub fn split(query: &Query) -> Result<Self> {
        let (mut aggregates, mut is_row_by_row) = (Vec::new(), true);
        find(query.plan(), true, &mut aggregates, &mut is_row_by_row);
        let [whole] = aggregates.as_slice() else {
            return Err(plan_error(&format!(
                "a table keeps the states of one aggregate (GROUP BY or DISTINCT); this SELECT has {}: put {}",
                aggregates.len(),
                if aggregates.is_empty() { "it into a view" } else { "the others into views or tables of their own" },
            )));
        };
        let node = whole.downcast_ref::<AggregateExec>().expect("it was found as one");
        let group = node.group_expr();
        if group.has_grouping_set() || !group.is_single() {
            return Err(plan_error("a table cannot keep GROUPING SETS, ROLLUP or CUBE: use one table for each set"));
        }
        // The planner has one step where there is one partition, and two where it is sure of more.
        let (input, group, filters) = match node.mode() {
            AggregateMode::Single | AggregateMode::SinglePartitioned => {
                (Arc::clone(node.input()), group.clone(), node.filter_expr().to_vec())
            }
            other => return Err(plan_error(&format!("an aggregate in {other:?} mode cannot be split"))),
        };
        let aggregates = node.aggr_expr().to_vec();
        let none = vec![None; aggregates.len()];
        let of_rows = input.schema();
        let step = |mode, group, filters, input| -> Result<Arc<dyn ExecutionPlan>> {
            let step = AggregateExec::try_new(mode, group, aggregates.clone(), filters, input, Arc::clone(&of_rows))?;
            Ok(Arc::new(step))
        };
        let partial = step(AggregateMode::Partial, group.clone(), filters, input)?;
        let states = partial.schema();
        let (unmerged, merged) = (Relation::new(Arc::clone(&states)), Relation::new(Arc::clone(&states)));
        let merge = step(AggregateMode::PartialReduce, group.as_final(), none.clone(), unmerged.scan()?)?;
        let finals = step(AggregateMode::Final, group.as_final(), none, merged.scan()?)?;
        let finish = Arc::clone(query.plan()).transform_down(|plan| {
            Ok(if Arc::ptr_eq(&plan, whole) {
                Transformed::complete(Arc::clone(&finals))
            } else {
                Transformed::no(plan)
            })
        })?;
        let key_columns = group.num_group_exprs();
        let fields: Vec<SortField> =
            states.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let (of_keys, of_values) = fields.split_at(key_columns);
        let query = |plan| Query::new(plan, Arc::clone(query.context()));
        Ok(Self {
            partial: query(partial),
            unmerged,
            merge: query(merge),
            merged,
            finish: query(finish.data),
            keys: RowConverter::new(of_keys.to_vec())?,
            values: RowConverter::new(of_values.to_vec())?,
            key_columns,
            is_row_by_row,
        })
    }

    /// The columns of partial states: the keys first.
    pub fn state_schema(&self) -> &SchemaRef {
        self.merged.schema()
    }

    /// How many columns are the key.
    pub fn key_columns(&self) -> usize {
        self.key_columns
    }

    /// Whether each result depends on its own key's state alone, so that the changed ones can be worked out by
    /// themselves; not so with ORDER BY, LIMIT or a further aggregate.
    pub fn is_row_by_row(&self) -> bool {
        self.is_row_by_row
    }

    /// The columns of results.
    pub fn schema(&self) -> SchemaRef {
        self.finish.schema()
    }

    /// The partial states of the rows that the relations hold.
    pub async fn partial(&self) -> Result<Vec<RecordBatch>> {
        self.partial.run().await
    }

    /// One partial state for each key.
    pub async fn merge(&self, states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.unmerged.set(states);
        let merged = self.merge.run().await;
        self.unmerged.set(Vec::new());
        merged
    }

    /// Results of partial states, one for each key.
    pub async fn results(&self, states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.merged.set(states);
        let results = self.finish.run().await;
        self.merged.set(Vec::new());
        results
    }

    /// Partial states as bytes: keys, and what belongs to them.
    pub fn to_bytes(&self, states: &RecordBatch) -> Result<(Rows, Rows)> {
        let (keys, values) = states.columns().split_at(self.key_columns);
        Ok((to_rows(&self.keys, keys, states)?, to_rows(&self.values, values, states)?))
    }

    /// Partial states from what [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes<'a>(&self, states: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<RecordBatch> {
        let (keys, values) = (self.keys.parser(), self.values.parser());
        let (keys, values): (Vec<_>, Vec<_>) =
            states.map(|(key, value)| (keys.parse(key), values.parse(value))).unzip();
        let count = keys.len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.state_schema().fields().len());
        if self.key_columns > 0 {
            columns.extend(self.keys.convert_rows(keys)?);
        }
        if columns.len() < self.state_schema().fields().len() {
            columns.extend(self.values.convert_rows(values)?);
        }
        let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(self.state_schema()), columns, &options)?)
    }
}

/// Rows of columns; of none, as many empty ones as there are states.
fn to_rows(converter: &RowConverter, columns: &[ArrayRef], states: &RecordBatch) -> Result<Rows> {
    if !columns.is_empty() {
        return Ok(converter.convert_columns(columns)?);
    }
    let mut rows = converter.empty_rows(states.num_rows(), 0);
    let empty = converter.parser();
    (0..states.num_rows()).for_each(|_| rows.push(empty.parse(&[])));
    Ok(rows)
}

/// Finds the aggregates of a plan, and whether only projections and filters stand above the first.
fn find(plan: &Arc<dyn ExecutionPlan>, above: bool, found: &mut Vec<Arc<dyn ExecutionPlan>>, is_row_by_row: &mut bool) {
    let is_aggregate = plan.downcast_ref::<AggregateExec>().is_some();
    if is_aggregate {
        found.push(Arc::clone(plan));
    } else if above && plan.downcast_ref::<ProjectionExec>().is_none() && plan.downcast_ref::<FilterExec>().is_none() {
        *is_row_by_row = false;
    }
    for child in plan.children() {
        find(child, above && !is_aggregate, found, is_row_by_row);
    }
}
