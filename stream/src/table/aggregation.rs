//! An aggregate that is split into steps, so that its states can be kept between batches.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _};

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
    group: PhysicalGroupBy,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    above: Above,
}

/// What stands above an aggregate.
#[derive(Clone, Copy, Debug)]
struct Above {
    is_row_by_row: bool,
    is_steady: bool,
}

/// So many states are turned into columns at a time.
pub const AT_ONCE: usize = 64 << 10;

fn plan_error(text: &str) -> DataFusionError {
    DataFusionError::Plan(text.to_owned())
}

impl Aggregation {
    /// Splits a planned SELECT.
    pub fn split(query: &Query) -> Result<Self> {
        let (mut aggregates, mut above) = (Vec::new(), Above { is_row_by_row: true, is_steady: true });
        find(query.plan(), true, &mut aggregates, &mut above);
        let nodes = aggregates.iter().filter_map(|plan| plan.downcast_ref::<AggregateExec>());
        if nodes.map(AggregateExec::group_expr).any(|group| group.has_grouping_set() || !group.is_single()) {
            return Err(plan_error("a table cannot keep GROUPING SETS, ROLLUP or CUBE: use one table for each set"));
        }
        let [whole] = aggregates.as_slice() else {
            return Err(plan_error(&format!(
                "a table keeps the states of one aggregate (GROUP BY or DISTINCT); this SELECT has {}: put {}",
                aggregates.len(),
                if aggregates.is_empty() { "it into a view" } else { "the others into views or tables of their own" },
            )));
        };
        let node = whole.downcast_ref::<AggregateExec>().expect("it was found as one");
        let group = node.group_expr();
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
        let step = |mode, group: PhysicalGroupBy, filters, input| -> Result<Arc<dyn ExecutionPlan>> {
            let step = AggregateExec::try_new(mode, group, aggregates.clone(), filters, input, Arc::clone(&of_rows))?;
            Ok(Arc::new(step))
        };
        let partial = step(AggregateMode::Partial, group.clone(), filters, input)?;
        let states = partial.schema();
        let (unmerged, merged) = (Relation::new(Arc::clone(&states)), Relation::new(Arc::clone(&states)));
        let merge = step(AggregateMode::PartialReduce, group.as_final(), none.clone(), unmerged.scan()?)?;
        let mut finals = step(AggregateMode::Final, group.as_final(), none, merged.scan()?)?;
        // Where rows come in order, the planner may rely on that above. States are in no order.
        if let Some(order) = whole.output_ordering() {
            finals = Arc::new(SortExec::new(order.clone(), finals));
        }
        let finish = Arc::clone(query.plan()).transform_down(|plan| {
            Ok(if Arc::ptr_eq(&plan, whole) {
                Transformed::complete(Arc::clone(&finals))
            } else {
                Transformed::no(plan)
            })
        })?;
        let fields = states.fields().iter().map(|field| {
            // Bytes of other types are not turned back into quite the same columns.
            let data_type = field.data_type();
            let is_plain = !matches!(data_type, DataType::Dictionary(..) | DataType::RunEndEncoded(..));
            let sort = is_plain
                .then(|| SortField::new(data_type.clone()))
                .filter(|field| RowConverter::supports_fields(std::slice::from_ref(field)));
            sort.ok_or_else(|| {
                plan_error(&format!("a table cannot keep `{}`, which is of type {data_type}", field.name()))
            })
        });
        let fields = fields.collect::<Result<Vec<SortField>>>()?;
        let (of_keys, of_values) = fields.split_at(group.num_group_exprs());
        let query = |plan| Query::new(plan, Arc::clone(query.context()));
        Ok(Self {
            partial: query(partial),
            unmerged,
            merge: query(merge),
            merged,
            finish: query(finish.data),
            keys: RowConverter::new(of_keys.to_vec())?,
            values: RowConverter::new(of_values.to_vec())?,
            group,
            aggregates,
            above,
        })
    }

    /// The columns of partial states: the keys first.
    pub fn state_schema(&self) -> &SchemaRef {
        self.merged.schema()
    }

    /// How many columns are the key.
    pub fn key_columns(&self) -> usize {
        self.group.num_group_exprs()
    }

    /// The column of the key that is this column of the rows.
    pub fn key_column(&self, name: &str) -> Option<usize> {
        self.group.expr().iter().position(|(key, _)| key.downcast_ref::<Column>().is_some_and(|key| key.name() == name))
    }

    /// An aggregate whose states cannot be subtracted, if there is one: exact numbers can, that are sums.
    pub fn not_subtractable(&self) -> Result<Option<&str>> {
        for aggregate in &self.aggregates {
            let is_sum = matches!(aggregate.fun().name(), "count" | "sum" | "avg");
            let is_exact = |data_type: &DataType| {
                matches!(data_type, DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..))
            };
            if !is_sum || !aggregate.state_fields()?.iter().all(|field| is_exact(field.data_type())) {
                return Ok(Some(aggregate.human_display().unwrap_or(aggregate.name())));
            }
        }
        Ok(None)
    }

    /// Whether each result depends on its own key's state alone, so that the changed ones can be worked out by
    /// themselves; not so with ORDER BY, LIMIT or a further aggregate.
    pub fn is_row_by_row(&self) -> bool {
        self.above.is_row_by_row
    }

    /// Whether the same states always have the same results; not so with the time of the batch or a join.
    pub fn is_steady(&self) -> bool {
        self.above.is_steady
    }

    /// The columns of results.
    pub fn schema(&self) -> SchemaRef {
        self.finish.schema()
    }

    /// The partial states of the rows that the relations hold, one for each key.
    pub async fn partial(&self) -> Result<Vec<RecordBatch>> {
        self.partial.run().await
    }

    /// One partial state for each key, of states in the order of their rows.
    pub async fn merge(&self, states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.unmerged.set(states);
        let merged = self.merge.run().await;
        self.unmerged.set(Vec::new());
        merged
    }

    /// A batch's partial states merged with those that are kept for their keys.
    pub async fn merge_with<'k>(
        &self,
        new: Vec<RecordBatch>,
        kept: impl Fn(&RecordBatch) -> Result<Vec<(&'k [u8], &'k [u8])>> + Send,
    ) -> Result<Vec<RecordBatch>> {
        let mut states = Vec::new();
        for new in &new {
            states.extend(self.from_bytes(kept(new)?.into_iter())?);
        }
        if states.is_empty() {
            return Ok(new);
        }
        states.extend(new);
        self.merge(states).await
    }

    /// Results of partial states, of which there may be several for a key.
    pub async fn results(&self, states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.merged.set(states);
        let results = self.finish.run().await;
        self.merged.set(Vec::new());
        results
    }

    /// The keys of partial states as bytes.
    pub fn key_bytes(&self, states: &RecordBatch) -> Result<Rows> {
        to_rows(&self.keys, &states.columns()[..self.key_columns()], states)
    }

    /// Partial states as bytes: keys, and what belongs to them.
    pub fn to_bytes(&self, states: &RecordBatch) -> Result<(Rows, Rows)> {
        let values = to_rows(&self.values, &states.columns()[self.key_columns()..], states)?;
        Ok((self.key_bytes(states)?, values))
    }

    /// Partial states from what [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes<'a>(&self, mut states: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Vec<RecordBatch>> {
        let parser = self.values.parser();
        let mut batches = Vec::new();
        loop {
            let (keys, values): (Vec<_>, Vec<_>) =
                states.by_ref().take(AT_ONCE).map(|(key, value)| (key, parser.parse(value))).unzip();
            if keys.is_empty() {
                return Ok(batches);
            }
            let columns = if self.key_columns() < self.state_schema().fields().len() {
                self.values.convert_rows(values)?
            } else {
                Vec::new()
            };
            batches.push(self.with_keys(&keys, columns)?);
        }
    }

    /// Partial states from the bytes of keys and the other columns.
    pub fn with_keys(&self, keys: &[&[u8]], values: Vec<ArrayRef>) -> Result<RecordBatch> {
        let parser = self.keys.parser();
        let mut columns = match self.key_columns() {
            0 => Vec::new(),
            _ => self.keys.convert_rows(keys.iter().map(|key| parser.parse(key)))?,
        };
        columns.extend(values);
        let options = RecordBatchOptions::new().with_row_count(Some(keys.len()));
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

/// Finds the aggregates of a plan, and what stands above the first.
fn find(plan: &Arc<dyn ExecutionPlan>, is_above: bool, found: &mut Vec<Arc<dyn ExecutionPlan>>, above: &mut Above) {
    let is_aggregate = plan.downcast_ref::<AggregateExec>().is_some();
    if is_aggregate {
        found.push(Arc::clone(plan));
    } else if is_above {
        let (is_row_by_row, is_steady) = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            (true, !projection.expr().iter().any(|column| is_volatile(&column.expr)))
        } else if let Some(filter) = plan.downcast_ref::<FilterExec>() {
            (true, !is_volatile(filter.predicate()))
        } else {
            let is_order = plan.downcast_ref::<SortExec>().is_some();
            let is_limit =
                plan.downcast_ref::<GlobalLimitExec>().is_some() || plan.downcast_ref::<LocalLimitExec>().is_some();
            (false, is_order || is_limit)
        };
        above.is_row_by_row &= is_row_by_row;
        above.is_steady &= is_steady;
    }
    for child in plan.children() {
        find(child, is_above && !is_aggregate, found, above);
    }
}
