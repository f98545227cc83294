//! Functions that SQL has besides DataFusion's.
//!
//! | function | gives |
//! |---|---|
//! | `batch_time()` | the time of the batch, a timestamp in UTC |
//! | `now()`, `current_timestamp`, `current_date`, `today()` | as DataFusion's, but anew for each batch |
//! | `browser(user_agent)` | the browser or crawler: `Chrome`, `Firefox`, `Googlebot`; null when it is unknown |
//! | `operating_system(user_agent)` | `Windows 10`, `Linux`, `iPhone`; null when it is unknown |
//! | `device(user_agent)` | `pc`, `smartphone`, `mobilephone`, `appliance`, `crawler` or `misc`; null when it is unknown |
//! | `country(address)` | the country of an IP address, as `DE`; null when it is unknown. The job's `country-database` says it, a file in MaxMind's format |

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, StringViewArray, StringViewBuilder};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use maxminddb::{Reader, path};
use woothee::parser::{Parser, WootheeResult};

/// Makes those known that need nothing else. The clock is the time of the batch, in milliseconds since 1970; the zone says
/// which day it is.
pub fn register(context: &SessionContext, clock: &Arc<AtomicI64>, time_zone: &jiff::tz::TimeZone) {
    let clock = Arc::clone(clock);
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
    let batch_time = move |_: &[ColumnarValue]| {
        let time = Some(clock.load(Ordering::Relaxed));
        Ok(ColumnarValue::Scalar(ScalarValue::TimestampMillisecond(time, None)))
    };
    // Volatile: a query is planned once, and must not take the time of its planning for good.
    context.register_udf(create_udf("batch_time", vec![], timestamp, Volatility::Volatile, Arc::new(batch_time)));
    // DataFusion's are worked out when a query is planned, which is once.
    let now = || jiff::Timestamp::now();
    let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
    let zone = time_zone.clone();
    let of_now = [
        ("now", "current_timestamp", instant, {
            let value = move || {
                ScalarValue::TimestampNanosecond(i64::try_from(now().as_nanosecond()).ok(), Some("+00:00".into()))
            };
            Arc::new(value) as Arc<dyn Fn() -> ScalarValue + Send + Sync>
        }),
        ("current_date", "today", DataType::Date32, {
            let first = jiff::civil::date(1970, 1, 1);
            let days = move || now().to_zoned(zone.clone()).date().since(first).map(|span| span.get_days());
            Arc::new(move || ScalarValue::Date32(days().ok()))
        }),
    ];
    for (name, alias, gives, value) in of_now {
        let call = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value()));
        let function = create_udf(name, vec![], gives, Volatility::Volatile, Arc::new(call));
        context.register_udf(function.with_aliases([alias]));
    }
    of_text(context, "browser", |text, out| of_agent(text, out, |agent| agent.name));
    of_text(context, "operating_system", |text, out| of_agent(text, out, |agent| agent.os));
    of_text(context, "device", |text, out| of_agent(text, out, |agent| agent.category));
}

/// Makes `country` known. The error says what is wrong with the database, of which the function then knows nothing.
pub fn register_country(context: &SessionContext, database: &Path) -> Result<(), String> {
    let failed = |error| format!("the country database {} cannot be read: {error}", database.display());
    let (reader, outcome) = match Reader::open_readfile(database) {
        Ok(reader) => (Some(reader), Ok(())),
        Err(error) => (None, Err(failed(error))),
    };
    let code = move |address: &str, out: &mut StringViewBuilder| {
        out.append_option(reader.as_ref().and_then(|reader| country(reader, address)));
    };
    of_text(context, "country", code);
    outcome
}

/// The code of an address's country: of one of the layouts that such databases have.
fn country<'a>(reader: &'a Reader<Vec<u8>>, address: &str) -> Option<&'a str> {
    let address: IpAddr = address.trim().parse().ok()?;
    let found = reader.lookup(address).ok()?;
    let code = |path: &[_]| found.decode_path::<&str>(path).ok().flatten();
    code(&path!["country", "iso_code"]).or_else(|| code(&path!["country_code"]))
}

fn of_agent<'a>(text: &'a str, out: &mut StringViewBuilder, part: impl Fn(&WootheeResult<'a>) -> &'a str) {
    out.append_option(Parser::new().parse(text).as_ref().map(part).filter(|word| *word != "UNKNOWN"));
}

/// Makes a function of one text known that gives a text or null.
fn of_text(context: &SessionContext, name: &str, call: impl Fn(&str, &mut StringViewBuilder) + Send + Sync + 'static) {
    let each = move |arguments: &[ColumnarValue]| {
        let arguments = ColumnarValue::values_to_arrays(arguments)?;
        let texts: &StringViewArray = arguments[0].as_string_view();
        let mut out = StringViewBuilder::with_capacity(texts.len());
        for text in texts {
            match text {
                Some(text) => call(text, &mut out),
                None => out.append_null(),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish()) as ArrayRef))
    };
    let (given, gives) = (vec![DataType::Utf8View], DataType::Utf8View);
    context.register_udf(create_udf(name, given, gives, Volatility::Immutable, Arc::new(each)));
}

#[cfg(test)]
mod tests {
    use crate::sql::Sql;

    #[tokio::test]
    async fn now_is_not_the_time_of_planning() {
        let sql = Sql::new(&jiff::tz::TimeZone::UTC).expect("there is a planner");
        let query =
            sql.plan("select now() as n, current_timestamp as c, current_date as d").await.expect("it is right");
        let run = async || format!("{:?}", query.run().await.expect("it runs")[0].column(0));
        assert_ne!(run().await, run().await);
    }

    #[tokio::test]
    async fn user_agents_are_told_apart() {
        let sql = Sql::new(&jiff::tz::TimeZone::UTC).expect("there is a planner");
        let agents = [
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "nothing that anybody knows",
        ];
        let values: Vec<String> = agents.iter().map(|agent| format!("('{agent}')")).collect();
        let query =
            format!("select browser(a), operating_system(a), device(a) from (values {}) as t(a)", values.join(", "));
        let rows = sql.plan(&query).await.expect("it is right").run().await.expect("it runs");
        let text = datafusion::arrow::util::pretty::pretty_format_batches(&rows).expect("it can be shown").to_string();
        assert!(text.contains("| Chrome ") && text.contains("| Windows 10 ") && text.contains("| pc "), "{text}");
        assert!(text.contains("| Googlebot ") && text.contains("| crawler "), "{text}");
    }
}
