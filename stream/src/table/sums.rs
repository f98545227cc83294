//! States that are sums of exact numbers: what a window has can be kept by adding what comes and subtracting what goes.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, Decimal128Builder, Int64Builder, RecordBatch, UInt64Builder,
};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type};
use datafusion::error::{DataFusionError, Result};

use super::aggregation::{AT_ONCE, Aggregation};

/// One number of a key's state. Numbers wrap around as those of the SQL engine do.
#[derive(Clone, Copy, Default)]
struct Number {
    sum: i128,
    /// How many of the states that were added have one: with none, there is none.
    count: i64,
}

/// A key's state.
struct Sum {
    /// How many states were added.
    count: i64,
    numbers: Box<[Number]>,
}

/// Sums by key.
#[derive(Default)]
pub struct Sums(HashMap<Box<[u8]>, Sum>);

impl Sums {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds partial states.
    pub fn add(&mut self, parts: &Aggregation, states: &RecordBatch) -> Result<()> {
        self.change(parts, states, 1)
    }

    /// Takes away partial states that were added before. A key without any is gone.
    pub fn subtract(&mut self, parts: &Aggregation, states: &RecordBatch) -> Result<()> {
        self.change(parts, states, -1)
    }

    fn change(&mut self, parts: &Aggregation, states: &RecordBatch, sign: i64) -> Result<()> {
        let keys = parts.key_bytes(states)?;
        let columns: Vec<Vec<Option<i128>>> =
            states.columns()[parts.key_columns()..].iter().map(numbers).collect::<Result<_>>()?;
        for (row, key) in keys.iter().enumerate() {
            let sum = match self.0.get_mut(key.data()) {
                Some(sum) => sum,
                None => {
                    let numbers = vec![Number::default(); columns.len()].into();
                    self.0.entry(key.data().into()).or_insert(Sum { count: 0, numbers })
                }
            };
            sum.count += sign;
            for (number, column) in sum.numbers.iter_mut().zip(&columns) {
                if let Some(value) = column[row] {
                    number.sum = number.sum.wrapping_add(value.wrapping_mul(i128::from(sign)));
                    number.count += sign;
                }
            }
            if sum.count == 0 {
                self.0.remove(key.data());
            }
        }
        Ok(())
    }

    /// All sums as partial states.
    pub fn states(&self, parts: &Aggregation) -> Result<Vec<RecordBatch>> {
        let types: Vec<&DataType> =
            parts.state_schema().fields()[parts.key_columns()..].iter().map(|field| field.data_type()).collect();
        let mut batches = Vec::new();
        let mut sums = self.0.iter();
        loop {
            let (keys, sums): (Vec<&[u8]>, Vec<&Sum>) =
                sums.by_ref().take(AT_ONCE).map(|(key, sum)| (&**key, sum)).unzip();
            if keys.is_empty() {
                return Ok(batches);
            }
            let columns = types.iter().enumerate().map(|(index, data_type)| {
                let numbers = sums.iter().map(|sum| sum.numbers[index]);
                column(data_type, numbers.map(|number| (number.count > 0).then_some(number.sum)))
            });
            batches.push(parts.with_keys(&keys, columns.collect::<Result<_>>()?)?);
        }
    }
}

fn unexpected(data_type: &DataType) -> DataFusionError {
    DataFusionError::Internal(format!("sums of {data_type} are not kept"))
}

fn numbers(column: &ArrayRef) -> Result<Vec<Option<i128>>> {
    Ok(match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().iter().map(|value| value.map(i128::from)).collect(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().iter().map(|value| value.map(i128::from)).collect(),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().iter().collect(),
        other => return Err(unexpected(other)),
    })
}

fn column(data_type: &DataType, numbers: impl Iterator<Item = Option<i128>>) -> Result<ArrayRef> {
    Ok(match data_type {
        DataType::Int64 => {
            let mut column = Int64Builder::new();
            numbers.for_each(|number| column.append_option(number.map(|number| number as i64)));
            Arc::new(column.finish())
        }
        DataType::UInt64 => {
            let mut column = UInt64Builder::new();
            numbers.for_each(|number| column.append_option(number.map(|number| number as u64)));
            Arc::new(column.finish())
        }
        DataType::Decimal128(..) => {
            let mut column = Decimal128Builder::new().with_data_type(data_type.clone());
            numbers.for_each(|number| column.append_option(number));
            Arc::new(column.finish())
        }
        other => return Err(unexpected(other)),
    })
}
