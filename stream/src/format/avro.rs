//! Flume's events in Avro, as Flume's Kafka sink and channel write them with `useFlumeEventFormat`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringViewBuilder};
use datafusion::arrow::datatypes::{DataType, Field};
use flume_rs::rpc::avro::events::read_event;

use super::{ColumnSpec, Format, Parsed, Records, Reject};
use crate::job::{JobError, Keys};

#[derive(Debug)]
struct Avro {
    headers: Vec<ColumnSpec>,
}

pub fn read(_: &Keys<'_>, columns: Vec<ColumnSpec>) -> Result<Box<dyn Format>, JobError> {
    Ok(Box::new(Avro { headers: columns }))
}

impl Format for Avro {
    fn fields(&self) -> Vec<Field> {
        let body = Field::new("body", DataType::Utf8View, true);
        std::iter::once(body).chain(self.headers.iter().map(ColumnSpec::field)).collect()
    }

    fn spark(&self) -> Result<serde_json::Value, String> {
        Err("`format`: Spark reads no Flume events in Avro by itself".to_owned())
    }

    fn parse(&self, records: &mut Records) -> Parsed {
        let mut bodies = StringViewBuilder::with_capacity(records.len());
        let mut headers: Vec<StringViewBuilder> = self.headers.iter().map(|_| StringViewBuilder::new()).collect();
        let (mut rejects, mut accepted) = (Vec::new(), Vec::new());
        for (index, record) in records.iter().enumerate() {
            let event = read_event(record).map_err(|error| error.to_string()).and_then(|(found, body)| {
                let body = std::str::from_utf8(&record[body]).map_err(|_| "its body is no UTF-8 text".to_owned())?;
                Ok((found, body))
            });
            match event {
                Ok((found, body)) => {
                    accepted.push((index, record));
                    bodies.append_value(body);
                    for (column, builder) in self.headers.iter().zip(&mut headers) {
                        builder.append_option(found.get(&column.name));
                    }
                }
                Err(reason) => rejects.push(Reject { index, record: record.to_vec(), reason }),
            }
        }
        let mut wrong: Vec<Option<String>> = vec![None; accepted.len()];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(bodies.finish())];
        for (column, mut builder) in self.headers.iter().zip(headers) {
            let (values, rows) = column.convert(builder.finish());
            for row in rows {
                wrong[row].get_or_insert_with(|| format!("the header {} is no {}", column.name, column.data_type));
            }
            columns.push(values);
        }
        Parsed { columns, rejects }.without(accepted.into_iter(), wrong)
    }
}
