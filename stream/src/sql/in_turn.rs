//! Unions whose inputs are read one after the other.
//!
//! DataFusion would read them side by side: an aggregate over a union were then two, with the rows between them in no
//! order. Batches are small, and a table keeps the states of one aggregate.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, Partitioning, PlanProperties,
};
use futures_util::{StreamExt as _, TryStreamExt as _};

/// Has the inputs of unions read in turn. It must come before rules that look at how rows are divided.
#[derive(Debug)]
pub struct UnionsInTurn;

impl PhysicalOptimizerRule for UnionsInTurn {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let in_turn = plan.transform_up(|plan| {
            let is_union = plan.downcast_ref::<UnionExec>().is_some();
            Ok(if is_union { Transformed::yes(InTurn::of(plan)) } else { Transformed::no(plan) })
        });
        in_turn.data()
    }

    fn name(&self) -> &str {
        "unions_in_turn"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The partitions of a plan, one after the other.
#[derive(Debug)]
struct InTurn {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl InTurn {
    fn of(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        let properties = PlanProperties::new(
            // Each has its order, but all together have none.
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Arc::new(Self { input, properties: Arc::new(properties) })
    }
}

impl DisplayAs for InTurn {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ExecutionPlan for InTurn {
    fn name(&self) -> &str {
        "InTurn"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Self::of(children.swap_remove(0)))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = Arc::clone(&self.input);
        let partitions = 0..input.output_partitioning().partition_count();
        let streams =
            futures_util::stream::iter(partitions).map(move |number| input.execute(number, Arc::clone(&context)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), streams.try_flatten())))
    }
}
