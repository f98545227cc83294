//! HBase, by its REST gateway (`hbase rest start`).
//!
//! | key | default | what |
//! |---|---|---|
//! | `url` | | the gateway: `http://localhost:8080` |
//! | `table` | | the table; it must be there |
//! | `row` | | the column that is the row key |
//! | `family` | | the column family |
//! | `columns` | all but `row` | the columns that are written, each as a qualifier of its name |
//!
//! Whole numbers are written as 8 bytes, big-endian, as HBase's counters are and `Bytes.toLong` reads them; everything else
//! is text. A value that is missing is not written. The values are absolute, so a batch that is written twice does no harm;
//! it also means that the table is the job's: what others count into the same cells is lost.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::arrow::error::ArrowError;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::server::{ANSWER, CONNECT, Reach, Server};
use super::{JobContext, Sink, SinkConfig, SinkError, check_column, check_columns, rows};
use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};

/// The most rows of a request.
const MAX_ROWS: usize = 1_000;
/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
const JSON: &str = "application/json";

/// A gateway.
#[derive(Clone)]
struct Gateway {
    /// As in a URL: an IPv6 address has its brackets.
    host: String,
    port: u16,
    /// What stands before the table in a path.
    path: String,
}

impl Reach for Gateway {
    fn parse(url: &str) -> Result<(String, Self), String> {
        let expected = || "it is no gateway: expected http://host:8080".to_owned();
        let uri: Uri = url.parse().map_err(|_| expected())?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("a gateway is not asked with a user and a password: expected http://host:8080".to_owned());
        }
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(expected)?.to_owned();
        let port = uri.port_u16().unwrap_or(8080);
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok((format!("hbase {host}:{port}{path}"), Self { host, port, path }))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HBaseConfig {
    url: Server<Gateway>,
    #[serde(deserialize_with = "table_name")]
    table: String,
    row: String,
    family: String,
    columns: Option<Vec<String>>,
}

/// A table's name, of the characters that HBase allows.
fn table_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_right) {
        let why =
            format!("`{name}` is no table's name: expected letters, digits, `_`, `-`, `.`, with a namespace `ns:name`");
        return Err(serde::de::Error::custom(why));
    }
    Ok(name)
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError> {
    Ok(Box::new(keys.read::<HBaseConfig>()?))
}

impl SinkConfig for HBaseConfig {
    fn check(&self, schema: &SchemaRef) -> Result<(), String> {
        check_column("row", &self.row, schema)?;
        check_columns("columns", self.columns.as_deref().unwrap_or_default(), schema)?;
        if schema.fields().len() < 2 {
            return Err(format!("there is no column besides `{}`, the row key", self.row));
        }
        Ok(())
    }

    fn owns(&self, _: &str, _: &JobContext, schema: &SchemaRef) -> Vec<String> {
        let Self { url, table, row, family, columns } = self;
        let all = schema.fields().iter().map(|field| field.name());
        let written = all.filter(|name| columns.as_ref().map_or(*name != row, |columns| columns.contains(name)));
        written.map(|name| format!("column {family}:{name} of {}, table {table}", url.place)).collect()
    }

    fn build(&self, _: &str, _: &JobContext) -> Box<dyn Sink> {
        Box::new(HBase { config: self.clone(), connection: None })
    }
}

struct HBase {
    config: HBaseConfig,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// Rows as the gateway reads them; all names and values are base64.
#[derive(Serialize)]
struct Puts {
    #[serde(rename = "Row")]
    rows: Vec<Put>,
}

#[derive(Serialize)]
struct Put {
    key: String,
    #[serde(rename = "Cell")]
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Cell {
    column: String,
    #[serde(rename = "$")]
    value: String,
}

/// What the gateway says of a table.
#[derive(Deserialize)]
struct Described {
    #[serde(rename = "ColumnSchema", default)]
    families: Vec<Family>,
}

#[derive(Deserialize)]
struct Family {
    name: String,
}

impl HBase {
    fn error(&self, why: &str) -> SinkError {
        SinkError::new(format!("{}, table {}: {why}", self.config.url.place, self.config.table))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let Gateway { host, port, .. } = &self.config.url.reach;
        let stream = timeout(CONNECT, TcpStream::connect((host.trim_matches(['[', ']']), *port))).await;
        let stream = stream.map_err(|_| "no connection within 10 s".to_owned())?.map_err(|error| error.to_string())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // Its errors are those of the requests.
        tokio::spawn(async { connection.await.ok() });
        Ok(sender)
    }

    /// Sends a request and gives the answer's status and body. The connection is kept.
    async fn ask(&mut self, method: Method, path: &str, body: String) -> Result<(StatusCode, Bytes), String> {
        let mut sender = match self.connection.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let Gateway { host, port, path: before } = &self.config.url.reach;
        let request = Request::builder()
            .method(method)
            .uri(format!("{before}/{}/{path}", self.config.table))
            .header(HOST, format!("{host}:{port}"))
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, JSON)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let exchange = async {
            sender.ready().await.map_err(|error| error.to_string())?;
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        let answer = timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err("no answer within 30 s".to_owned()));
        if answer.is_ok() {
            self.connection = Some(sender);
        }
        answer
    }

    /// Says clearly what is missing before anything is written.
    async fn look(&mut self) -> Result<(), String> {
        let (status, body) = self.ask(Method::GET, "schema", String::new()).await?;
        let HBaseConfig { table, family, .. } = &self.config;
        if status == StatusCode::NOT_FOUND {
            return Err(format!("the table is not there; in HBase's shell: create '{table}', '{family}'"));
        }
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        let described: Described =
            serde_json::from_slice(&body).map_err(|error| format!("the gateway describes it as no table: {error}"))?;
        if described.families.iter().any(|known| known.name == *family) {
            return Ok(());
        }
        let known: Vec<&str> = described.families.iter().map(|known| known.name.as_str()).collect();
        let known = known.join(", ");
        Err(format!("it has no family {family}, but {known}; in HBase's shell: alter '{table}', '{family}'"))
    }
}

fn refused(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = text.split_whitespace().take(40).collect();
    format!("the gateway says {status}: {}", words.join(" "))
}

impl HBaseConfig {
    fn writes(&self, column: &String) -> bool {
        self.columns.as_ref().map_or(*column != self.row, |columns| columns.contains(column))
    }

    /// Rows as puts, in requests of bounded size.
    fn puts(&self, rows: &RecordBatch) -> Result<Vec<Puts>, String> {
        let text = |error: ArrowError| error.to_string();
        let Some(keys) = rows.column_by_name(&self.row) else { return Err(format!("there is no column {}", self.row)) };
        let keys = rows::texts(keys).map_err(text)?;
        let mut columns = Vec::new();
        for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
            if self.writes(field.name()) {
                let name = STANDARD.encode(format!("{}:{}", self.family, field.name()));
                columns.push((name, values(column).map_err(text)?));
            }
        }
        let mut puts = Vec::new();
        for row in 0..rows.num_rows() {
            let key = keys.is_valid(row).then(|| keys.value(row)).filter(|key| !key.is_empty());
            let Some(key) = key else { return Err(format!("a row has no `{}`, which is the row key", self.row)) };
            let cells = columns.iter_mut().filter_map(|(name, values)| {
                Some(Cell { column: name.clone(), value: STANDARD.encode(values[row].take()?) })
            });
            let cells: Vec<Cell> = cells.collect();
            if !cells.is_empty() {
                puts.push(Put { key: STANDARD.encode(key), cells });
            }
        }
        let mut requests = Vec::new();
        while !puts.is_empty() {
            let rest = puts.split_off(puts.len().min(MAX_ROWS));
            requests.push(Puts { rows: std::mem::replace(&mut puts, rest) });
        }
        Ok(requests)
    }
}

/// A column's values as HBase keeps them.
fn values(column: &ArrayRef) -> Result<Vec<Option<Vec<u8>>>, ArrowError> {
    let kind = column.data_type();
    Ok(if kind.is_integer() {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let numbers = cast_with_options(column, &DataType::Int64, &strict)?;
        numbers.as_primitive::<Int64Type>().iter().map(|v| v.map(|number| number.to_be_bytes().to_vec())).collect()
    } else if rows::is_binary(kind) {
        cast(column, &DataType::Binary)?.as_binary::<i32>().iter().map(|v| v.map(<[u8]>::to_vec)).collect()
    } else {
        rows::texts(column)?.iter().map(|v| v.map(|text| text.as_bytes().to_vec())).collect()
    })
}

#[async_trait]
impl Sink for HBase {
    async fn open(&mut self, _: &SchemaRef) -> Result<(), SinkError> {
        let looked = self.look().await;
        looked.map_err(|why| self.error(&why))
    }

    async fn write(&mut self, _: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        for rows in rows {
            for puts in self.config.puts(rows).map_err(|why| self.error(&why))? {
                let body = serde_json::to_string(&puts).map_err(|error| self.error(&error.to_string()))?;
                // The path must name a row; those of the body count.
                let answer = self.ask(Method::PUT, "rows", body).await;
                let (status, body) = answer.map_err(|why| self.error(&why))?;
                if !status.is_success() {
                    return Err(self.error(&refused(status, &body)));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int32Array, StringArray};

    use super::*;

    fn config() -> HBaseConfig {
        let (place, reach) = Gateway::parse("http://localhost:8080/").expect("it is one");
        let url = Server { place, reach };
        HBaseConfig { url, table: "clicks".to_owned(), row: "id".to_owned(), family: "info".to_owned(), columns: None }
    }

    #[test]
    fn a_password_is_not_shown() {
        for url in ["https://me:secret@db.example", "http://me:secret@db.example", "http://me:secret@[x"] {
            assert!(Gateway::parse(url).is_err_and(|why| !why.contains("secret")), "{url}");
        }
        let (place, _) = Gateway::parse("http://[::1]:8085").expect("it is one");
        assert_eq!(place, "hbase [::1]:8085");
    }

    #[test]
    fn whole_numbers_are_eight_bytes() {
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["20200530_1", "20200530_2"]));
        let counts: ArrayRef = Arc::new(Int32Array::from(vec![Some(10), None]));
        let names: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
        let rows = RecordBatch::try_from_iter([("id", ids), ("click_count", counts), ("name", names)]);
        let puts = config().puts(&rows.expect("they are as long")).expect("they can be written");
        let expected = "{\"Row\":[{\"key\":\"MjAyMDA1MzBfMQ==\",\"Cell\":[\
                        {\"column\":\"aW5mbzpjbGlja19jb3VudA==\",\"$\":\"AAAAAAAAAAo=\"},\
                        {\"column\":\"aW5mbzpuYW1l\",\"$\":\"eA==\"}]},\
                        {\"key\":\"MjAyMDA1MzBfMg==\",\"Cell\":[{\"column\":\"aW5mbzpuYW1l\",\"$\":\"eQ==\"}]}]}";
        assert_eq!(serde_json::to_string(&puts[0]).expect("it is JSON"), expected);
    }

    #[test]
    fn a_row_must_have_a_key() {
        let ids: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
        let rows = RecordBatch::try_from_iter([("id", ids)]).expect("one column");
        assert!(config().puts(&rows).is_err_and(|why| why.contains("`id`")));
    }
}
