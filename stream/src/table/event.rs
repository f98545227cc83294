//! Windows by a time in the rows.
//!
//! The SQL of the table reads its relation with two more columns, `window_start` and `window_end`; a row that is in
//! several windows is there once for each. Windows begin at multiples of the slide since 1970. The *watermark* is the
//! latest time of all rows so far, less the delay: a window that ends before it is closed. A row counts as late when
//! all its windows were closed after the batch before, or when it has no time. A time far in the future closes all
//! windows for good: where clocks are not trusted, a view should leave such rows out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch, TimestampMillisecondArray,
};
use datafusion::arrow::compute::{cast, filter_record_batch, not};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;

use super::states::States;
use super::{Aggregation, Emit, EventTime, Keeper, RestoreError, Span, Turn};
use crate::batch::BatchInfo;
use crate::sql::{Query, Relation};
use crate::store::Saved;

/// The column that rows have in their windows for the beginning of the window.
pub const START: &str = "window_start";
/// And for its end.
pub const END: &str = "window_end";

/// Rows are put into their windows so many at a time.
const AT_ONCE: usize = 8192;

fn plan_error(text: String) -> DataFusionError {
    DataFusionError::Plan(text)
}

/// The rows of a batch that are in time, each in its windows.
#[derive(Debug)]
pub struct Windowed {
    schema: SchemaRef,
    span: Span,
    rows: Mutex<Rows>,
}

#[derive(Clone, Debug)]
struct Rows {
    /// Rows, and their times in milliseconds since 1970.
    rows: Vec<(RecordBatch, TimestampMillisecondArray)>,
    watermark: i64,
}

/// Times of this type; those that have no zone are taken as they are.
fn times(rows: &ArrayRef, data_type: &DataType) -> Result<TimestampMillisecondArray> {
    Ok(cast(rows, data_type)?.as_primitive::<TimestampMillisecondType>().clone())
}

impl Windowed {
    fn new(rows: &SchemaRef, time: &DataType, span: Span) -> Self {
        let window = [START, END].map(|name| Arc::new(Field::new(name, time.clone(), true)));
        let fields: Vec<_> = rows.fields().iter().cloned().chain(window).collect();
        let rows = Mutex::new(Rows { rows: Vec::new(), watermark: i64::MIN });
        Self { schema: Arc::new(Schema::new(fields)), span, rows }
    }

    fn set(&self, rows: Vec<(RecordBatch, TimestampMillisecondArray)>, watermark: i64) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = Rows { rows, watermark };
    }
}

/// The rows that are in the window that begins so many slides before the last one that they are in.
fn in_window(
    schema: &SchemaRef,
    span: Span,
    watermark: i64,
    (rows, times): &(RecordBatch, TimestampMillisecondArray),
    earlier: i64,
) -> Result<RecordBatch> {
    let starts = times.unary::<_, TimestampMillisecondType>(|time| {
        span.last_start(time).saturating_sub(earlier.saturating_mul(span.slide))
    });
    let ends = starts.unary::<_, TimestampMillisecondType>(|start| start.saturating_add(span.window));
    let is_in: BooleanArray =
        times.values().iter().zip(ends.values()).map(|(time, end)| Some(time < end && *end > watermark)).collect();
    let zoned = |column: TimestampMillisecondArray| column.with_data_type(times.data_type().clone());
    let mut columns = rows.columns().to_vec();
    columns.extend([Arc::new(zoned(starts)) as ArrayRef, Arc::new(zoned(ends))]);
    let rows = RecordBatch::try_new(Arc::clone(schema), columns)?;
    Ok(if is_in.true_count() == rows.num_rows() { rows } else { filter_record_batch(&rows, &is_in)? })
}

impl PartitionStream for Windowed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows are put into their windows as they are read: there may be many windows.
    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let Rows { rows, watermark } = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (schema, span) = (Arc::clone(&self.schema), self.span);
        let slices = rows.into_iter().flat_map(|(rows, times)| {
            (0..rows.num_rows()).step_by(AT_ONCE).map(move |start| {
                let length = AT_ONCE.min(rows.num_rows() - start);
                (rows.slice(start, length), times.slice(start, length))
            })
        });
        let of_schema = Arc::clone(&schema);
        let windows = slices.flat_map(move |slice| {
            let schema = Arc::clone(&of_schema);
            (0..span.overlap()).map(move |earlier| in_window(&schema, span, watermark, &slice, earlier))
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, futures_util::stream::iter(windows)))
    }
}

/// The relation that the windows are over.
#[derive(Debug)]
pub struct Over {
    rows: Query,
    time: usize,
    /// The type of times in milliseconds, with the zone of the column.
    of_time: DataType,
    /// Its rows in their windows, for the SQL of the table.
    pub windowed: Arc<Windowed>,
    /// Its rows that are late.
    pub late: Arc<Relation>,
}

impl Over {
    /// A relation by the query that gives its rows.
    pub fn new(rows: Query, keys: &EventTime) -> Result<Self> {
        let schema = rows.schema();
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let Ok(time) = schema.index_of(&keys.time) else {
            let near = crate::job::keys::did_you_mean(&keys.time, known.iter().copied());
            let known = known.join(", ");
            return Err(plan_error(format!(
                "`time`: `{}` has no column `{}` among {known}{near}",
                keys.over, keys.time
            )));
        };
        let of_time = match schema.field(time).data_type() {
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
            DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Millisecond, None),
            other => {
                let message = format!("`time`: `{}` is of type {other}, not a timestamp or a date", keys.time);
                return Err(plan_error(message));
            }
        };
        if let Some(name) = known.iter().find(|name| [START, END].contains(name)) {
            return Err(plan_error(format!("`over`: `{}` has a column `{name}` already", keys.over)));
        }
        let windowed = Arc::new(Windowed::new(&schema, &of_time, keys.span));
        Ok(Self { rows, time, of_time, windowed, late: Relation::new(schema) })
    }
}

/// Windows that are open, and those that were closed last.
pub struct EventWindows {
    over: Over,
    span: Span,
    delay: i64,
    emit: Emit,
    /// The column of the states that tells the window, and how much later the window ends.
    column: usize,
    until_end: i64,
    /// States by the end of their window.
    open: BTreeMap<i64, States>,
    /// With [`Emit::Final`], the states of the windows that were closed last.
    closed: Vec<RecordBatch>,
    removed: Vec<i64>,
    /// The latest time of the batch.
    latest: Option<i64>,
    watermark: i64,
}

impl EventWindows {
    /// No windows yet. The SQL must group by windows.
    pub fn new(over: Over, keys: &EventTime, parts: &Aggregation) -> Result<Self> {
        let end = parts.key_column(END).map(|column| (column, 0));
        let found = end.or_else(|| parts.key_column(START).map(|column| (column, keys.span.window)));
        let Some((column, until_end)) = found else {
            return Err(plan_error(format!(
                "a table with `time` keeps states until their window is closed: GROUP BY must have {START} or {END}"
            )));
        };
        Ok(Self {
            over,
            span: keys.span,
            delay: keys.delay,
            emit: keys.emit,
            column,
            until_end,
            open: BTreeMap::new(),
            closed: Vec::new(),
            removed: Vec::new(),
            latest: None,
            watermark: i64::MIN,
        })
    }

    /// When the window of each state ends.
    fn ends(&self, states: &RecordBatch) -> Vec<i64> {
        let windows = states.column(self.column).as_primitive::<TimestampMillisecondType>();
        // One without a window, as an outer join makes it, is closed with the first.
        windows.iter().map(|window| window.map_or(i64::MIN, |window| window.saturating_add(self.until_end))).collect()
    }

    /// Windows that the watermark has closed.
    fn close(&mut self) -> BTreeMap<i64, States> {
        let open = self.open.split_off(&self.watermark.saturating_add(1));
        let closed = std::mem::replace(&mut self.open, open);
        self.removed.extend(closed.keys());
        closed
    }

    fn states(windows: &BTreeMap<i64, States>, parts: &Aggregation) -> Result<Vec<RecordBatch>> {
        parts.from_bytes(windows.values().flat_map(States::iter))
    }
}

#[async_trait]
impl Keeper for EventWindows {
    async fn prepare(&mut self) -> Result<u64> {
        let (mut timely, mut late) = (Vec::new(), Vec::new());
        self.latest = None;
        for rows in self.over.rows.run().await? {
            let times = times(rows.column(self.over.time), &self.over.of_time)?;
            self.latest = self.latest.max(datafusion::arrow::compute::max(&times));
            let is_timely = |time: i64| self.span.last_start(time).saturating_add(self.span.window) > self.watermark;
            let is_timely: BooleanArray = times.iter().map(|time| Some(time.is_some_and(is_timely))).collect();
            if is_timely.true_count() == rows.num_rows() {
                timely.push((rows, times));
                continue;
            }
            late.push(filter_record_batch(&rows, &not(&is_timely)?)?);
            let times = datafusion::arrow::compute::filter(&times, &is_timely)?;
            timely.push((filter_record_batch(&rows, &is_timely)?, times.as_primitive().clone()));
        }
        let count = late.iter().map(|rows| rows.num_rows() as u64).sum();
        self.over.windowed.set(timely, self.watermark);
        self.over.late.set(late);
        Ok(count)
    }

    async fn absorb(&mut self, batch: &BatchInfo, parts: &Aggregation, new: Vec<RecordBatch>) -> Result<Turn> {
        // Those that were closed after the last batch were shown for the last time.
        let is_same = self.close().is_empty() && new.is_empty();
        let kept = |new: &RecordBatch| {
            let keys = parts.key_bytes(new)?;
            let kept = keys.iter().zip(self.ends(new)).filter_map(|(key, end)| self.open.get(&end)?.get(key.data()));
            Ok(kept.map(|(key, value, _)| (key, value)).collect())
        };
        let merged = parts.merge_with(new, kept).await?;
        for states in &merged {
            let (keys, values) = parts.to_bytes(states)?;
            for ((key, value), end) in keys.iter().zip(values.iter()).zip(self.ends(states)) {
                let window = self.open.entry(end).or_insert_with(|| States::new(end));
                window.set(key.data(), value.data(), batch.time);
            }
        }
        if let Some(latest) = self.latest {
            self.watermark = self.watermark.max(latest.saturating_sub(self.delay));
        }
        Ok(match self.emit {
            Emit::Update if is_same => Turn::Same,
            Emit::Update => Turn::Changed(merged),
            Emit::Final => {
                let closed = self.close();
                if closed.is_empty() {
                    Turn::Silent
                } else {
                    self.closed = Self::states(&closed, parts)?;
                    Turn::Whole(self.closed.clone())
                }
            }
        })
    }

    fn all(&self, parts: &Aggregation) -> Result<Vec<RecordBatch>> {
        match self.emit {
            Emit::Update => Self::states(&self.open, parts),
            Emit::Final => Ok(self.closed.clone()),
        }
    }

    fn save(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()> {
        self.removed.drain(..).try_for_each(|end| saved.remove(end))?;
        self.open.values_mut().try_for_each(|states| states.save(saved))?;
        saved.note(self.watermark)
    }

    fn restore(&mut self, _: &Aggregation, saved: &mut Saved<'_>) -> Result<(), RestoreError> {
        self.watermark = saved.noted()?.unwrap_or(i64::MIN);
        saved.each(|end, chunk, bytes| -> Result<(), RestoreError> {
            Ok(self.open.entry(end).or_insert_with(|| States::new(end)).load(chunk, bytes)?)
        })?;
        self.open.values_mut().for_each(States::loaded);
        Ok(())
    }

    fn keys(&self) -> usize {
        self.open.values().map(States::len).sum()
    }
}
