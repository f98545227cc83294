//! Functions that SQL has besides DataFusion's.
//!
//! | function | gives |
//! |---|---|
//! | `batch_time()` | the time of the batch, a timestamp |

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;

/// Makes them known. The clock is the time of the batch, in milliseconds since 1970.
pub fn register(context: &SessionContext, clock: &Arc<AtomicI64>) {
    let clock = Arc::clone(clock);
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
    let batch_time = move |_: &[ColumnarValue]| {
        let time = Some(clock.load(Ordering::Relaxed));
        Ok(ColumnarValue::Scalar(ScalarValue::TimestampMillisecond(time, None)))
    };
    // Volatile: a query is planned once, and must not take the time of its planning for good.
    context.register_udf(create_udf("batch_time", vec![], timestamp, Volatility::Volatile, Arc::new(batch_time)));
}
