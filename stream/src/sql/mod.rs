//! SQL over batches: relations whose rows change from batch to batch, and queries that are planned once and run on
//! each.

pub mod functions;
mod in_turn;
pub mod plan;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::SchemaError;
use datafusion::common::tree_node::TreeNode as _;
use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder, TaskContext};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::parser::ParserError;

pub use plan::{Plan, Step};

use crate::job::keys::did_you_mean;
use in_turn::UnionsInTurn;

/// Rows that SQL reads, and that something else puts there for each batch.
#[derive(Debug)]
pub struct Relation {
    schema: SchemaRef,
    rows: RwLock<Vec<RecordBatch>>,
}

impl Relation {
    /// A relation without rows.
    pub fn new(schema: SchemaRef) -> Arc<Self> {
        Arc::new(Self { schema, rows: RwLock::default() })
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Replaces its rows.
    pub fn set(&self, rows: Vec<RecordBatch>) {
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    /// Its rows.
    pub fn rows(&self) -> Vec<RecordBatch> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A plan that gives its rows.
    pub fn scan(self: &Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let partition = Arc::new(Partition(Arc::clone(self)));
        let scan = StreamingTableExec::try_new(Arc::clone(&self.schema), vec![partition], None, None, false, None)?;
        Ok(Arc::new(scan))
    }
}

/// The engine works on so many rows at a time: few enough for the processor's cache, and for little memory.
const PIECE: usize = 8192;

fn pieces(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let count = rows.num_rows();
    (0..count).step_by(PIECE).map(move |start| rows.slice(start, PIECE.min(count - start)))
}

#[derive(Debug)]
struct Partition(Arc<Relation>);

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let pieces = self.0.rows().iter().flat_map(pieces).collect();
        let stream = MemoryStream::try_new(pieces, Arc::clone(&self.0.schema), None);
        Box::pin(stream.expect("without a projection nothing can be wrong"))
    }
}

/// A plan that can be run again and again.
#[derive(Clone, Debug)]
pub struct Query {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
}

impl Query {
    /// A query by a physical plan.
    pub fn new(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Self {
        Self { plan, context }
    }

    /// A query as a frame says.
    pub async fn of(frame: DataFrame) -> Result<Self> {
        let context = frame.task_ctx();
        Ok(Self::new(frame.create_physical_plan().await?, Arc::new(context)))
    }

    /// The columns of its rows.
    pub fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// Whether it puts rows together.
    pub fn aggregates(&self) -> bool {
        let is_aggregate = |plan: &Arc<dyn ExecutionPlan>| Ok(plan.downcast_ref::<AggregateExec>().is_some());
        self.plan.exists(is_aggregate).is_ok_and(|found| found)
    }

    /// How it is done.
    pub fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }

    /// Where it runs.
    pub fn context(&self) -> &Arc<TaskContext> {
        &self.context
    }

    /// Runs it on what the relations hold now.
    pub async fn run(&self) -> Result<Vec<RecordBatch>> {
        let mut rows = collect(reset_plan_states(Arc::clone(&self.plan))?, Arc::clone(&self.context)).await?;
        rows.retain(|rows| rows.num_rows() > 0);
        Ok(rows)
    }
}

/// Names that SQL knows, and the planner.
#[derive(Clone)]
pub struct Sql {
    context: SessionContext,
    clock: Arc<AtomicI64>,
}

/// An optimisation that plans a distinct count as two aggregates, which cannot be carried from batch to batch.
const TWO_STEP_DISTINCT: &str = "single_distinct_aggregation_to_group_by";

impl Sql {
    /// A planner that knows the functions of this crate as well. Times are shown in the zone.
    pub fn new(time_zone: &jiff::tz::TimeZone) -> Result<Self> {
        let mut config = SessionConfig::new().with_target_partitions(1);
        let options = config.options_mut();
        options.optimizer.enable_dynamic_filter_pushdown = false;
        // For the lines of mistakes.
        options.sql_parser.collect_spans = true;
        // Partial states of a batch are one for each key, however many keys there are: no ratio is above this one.
        options.execution.skip_partial_aggregation_probe_ratio_threshold = 2.0;
        if let Some(name) = time_zone.iana_name() {
            options.execution.time_zone = Some(name.to_owned());
        }
        let state = SessionStateBuilder::new_with_default_features().with_config(config).build();
        let rules = state.optimizers().iter().filter(|rule| rule.name() != TWO_STEP_DISTINCT).cloned().collect();
        let mut physical = state.physical_optimizers().to_vec();
        physical.insert(0, Arc::new(UnionsInTurn));
        let state = SessionStateBuilder::new_from_existing(state).with_optimizer_rules(rules);
        let state = state.with_physical_optimizer_rules(physical).build();
        let (context, clock) = (SessionContext::new_with_state(state), Arc::default());
        functions::register(&context, &clock, time_zone);
        Ok(Self { context, clock })
    }

    /// What DataFusion knows.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Sets what `batch_time()` gives, in milliseconds since 1970.
    pub fn set_batch_time(&self, time: i64) {
        self.clock.store(time, Ordering::Relaxed);
    }

    /// Makes a relation known by its name.
    pub fn register(&self, name: &str, schema: SchemaRef) -> Result<Arc<Relation>> {
        let relation = Relation::new(schema);
        self.register_again(name, &relation)?;
        Ok(relation)
    }

    /// Makes a relation known by a further name.
    pub fn register_again(&self, name: &str, relation: &Arc<Relation>) -> Result<()> {
        let partition = Arc::new(Partition(Arc::clone(relation)));
        let table = StreamingTable::try_new(Arc::clone(relation.schema()), vec![partition])?;
        self.context.register_table(name, Arc::new(table))?;
        Ok(())
    }

    /// A SELECT as DataFusion has it. Nothing else is allowed: planning a statement would carry it out.
    pub async fn frame(&self, sql: &str) -> Result<DataFrame> {
        let only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        self.context.sql_with_options(sql, only).await
    }

    /// Makes a view known: SQL that reads it is planned together with it.
    pub async fn register_view(&self, name: &str, sql: &str) -> Result<()> {
        let view = self.frame(sql).await?.into_view();
        self.context.register_table(name, view)?;
        Ok(())
    }

    /// Plans a SELECT.
    pub async fn plan(&self, sql: &str) -> Result<Query> {
        Query::of(self.frame(sql).await?).await
    }

    /// Plans a SELECT in which a name stands for other rows than elsewhere.
    pub async fn plan_with(&self, sql: &str, name: &str, rows: Arc<dyn PartitionStream>) -> Result<Query> {
        let other = StreamingTable::try_new(Arc::clone(rows.schema()), vec![rows])?;
        let usual = self.context.deregister_table(name)?;
        self.context.register_table(name, Arc::new(other))?;
        let query = self.plan(sql).await;
        self.context.deregister_table(name)?;
        if let Some(usual) = usual {
            self.context.register_table(name, usual)?;
        }
        query
    }

    /// What the engine has against a SELECT, in the words of a job file, and the line of the SELECT, from 1, where that is
    /// known. What is said of a relation that is not there is for `unknown` to say.
    pub fn explain(
        &self,
        sql: &str,
        error: &DataFusionError,
        unknown: impl Fn(&str) -> String,
    ) -> (Option<usize>, String) {
        let line = error.diagnostic().and_then(|found| found.span).and_then(|span| span.start.line.try_into().ok());
        if let DataFusionError::SQL(error, _) = error.find_root()
            && let ParserError::ParserError(text) | ParserError::TokenizerError(text) = &**error
        {
            let (what, place) = text.rsplit_once(" at Line: ").unwrap_or((text, ""));
            return (place.split(',').next().and_then(|line| line.parse().ok()).or(line), what.to_owned());
        }
        let line = line.or_else(|| match error.find_root() {
            // Where a column stands that is nowhere else, its name does.
            DataFusionError::SchemaError(error, _) => match &**error {
                SchemaError::FieldNotFound { field, .. } => line_of(sql, &field.name),
                _ => None,
            },
            _ => None,
        });
        let text = words(error);
        if let Some(name) = between(&text, "table 'datafusion.public.", "' not found") {
            return (line, unknown(name));
        }
        if let Some(name) = between(&text, "Invalid function '", "'") {
            let state = self.context.state();
            let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
            let functions = functions.chain(state.window_functions().keys());
            let near = did_you_mean(name, functions.map(String::as_str));
            return (line, format!("there is no function `{name}`{near}"));
        }
        (line, text.strip_prefix("Error during planning: ").map_or(text.clone(), str::to_owned))
    }

    /// The names of the relations that a SELECT reads.
    pub fn references(&self, sql: &str) -> Result<Vec<String>> {
        let state = self.context.state();
        let dialect = state.config().options().sql_parser.dialect;
        let statement = state.sql_to_statement(sql, &dialect)?;
        let tables = state.resolve_table_references(&statement)?;
        Ok(tables.into_iter().map(|table| table.table().to_owned()).collect())
    }
}

/// The engine's message without its kind, on one line.
pub fn words(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let first = text.split('\n').map(str::trim).filter(|line| !line.is_empty());
    first.collect::<Vec<_>>().join(" ")
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

/// The first line, from 1, that has this word.
fn line_of(sql: &str, word: &str) -> Option<usize> {
    let has = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|other| other == word);
    sql.lines().position(has).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray as _, Int64Array};
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn rows(values: &[i64]) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values.to_vec())) as _)]).expect("one column")
    }

    #[tokio::test]
    async fn a_query_is_planned_once_and_sees_the_rows_of_each_batch() {
        let sql = Sql::new(&jiff::tz::TimeZone::UTC).expect("there is a planner");
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let (left, right) = (sql.register("a", Arc::clone(&schema)), sql.register("b", schema));
        let (left, right) = (left.expect("it is new"), right.expect("it is new"));
        let query = sql.plan("select count(*) as c from a join b on a.n = b.n").await.expect("it is right");
        for (ours, theirs, expected) in [(vec![1, 2, 3], vec![2, 3, 4], 2), (vec![], vec![1], 0), (vec![7], vec![7], 1)]
        {
            left.set(vec![rows(&ours)]);
            right.set(vec![rows(&theirs)]);
            let found = query.run().await.expect("it runs");
            assert_eq!(found[0].column(0).as_primitive::<Int64Type>().value(0), expected);
        }
        let mut names = sql.references("with c as (select * from a) select * from c, b").expect("it is SQL");
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }
}
