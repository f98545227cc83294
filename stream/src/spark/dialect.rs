//! DataFusion's SQL in Spark's words.
//!
//! What is known to give the same on Spark is let through, some of it under another name; everything else is refused, as
//! an answer that is a little different would not be noticed.

use std::ops::ControlFlow;

use datafusion::error::Result;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    ObjectName, Query, Select, SetExpr, Statement, TimezoneInfo, TrimWhereField, Value, ValueWithSpan, VisitMut as _,
    VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::sql::{Sql, words};

/// Aggregates that are the same there.
const AGGREGATES: &[&str] = &[
    "approx_distinct",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "last_value",
    "max",
    "mean",
    "median",
    "min",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
];

/// Functions of a row, and of windows over rows, that are the same there.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "abs", "acos", "array_contains", "array_distinct", "array_except", "array_intersect", "array_max", "array_min",
    "array_union", "ascii", "asin", "atan", "atan2", "bit_length", "btrim", "ceil", "char_length", "character_length",
    "chr", "coalesce", "concat_ws", "contains", "cos", "cume_dist", "current_timestamp", "date_part", "dense_rank",
    "exp", "flatten", "floor", "greatest", "initcap", "lag", "lead", "least", "left", "length", "levenshtein", "ln",
    "log10", "log2", "lower", "lpad", "make_date", "md5", "now", "ntile", "nullif", "nvl", "nvl2", "octet_length",
    "percent_rank", "pi", "power", "radians", "rank", "regexp_like", "repeat", "replace", "reverse", "right", "round",
    "row_number", "rpad", "sin", "split_part", "sqrt", "substr", "substring", "tan", "to_date", "to_timestamp",
    "translate", "trim", "upper",
];

/// Functions that Spark has under another name, with the same arguments.
const NAMES: &[(&str, &str)] = &[
    ("array_has", "array_contains"),
    ("array_length", "size"),
    ("array_to_string", "array_join"),
    ("approx_distinct", "approx_count_distinct"),
    ("cardinality", "size"),
    ("ends_with", "endswith"),
    ("make_array", "array"),
    ("pow", "power"),
    ("signum", "sign"),
    ("starts_with", "startswith"),
    ("strpos", "instr"),
    ("instr", "instr"),
    ("to_timestamp_micros", "timestamp_micros"),
    ("to_timestamp_millis", "timestamp_millis"),
    ("to_timestamp_seconds", "timestamp_seconds"),
    ("unnest", "explode"),
];

/// Functions that this program adds to SQL.
const OWN: &[&str] = &["browser", "operating_system", "device", "country"];

/// Where SQL is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the rows of a batch, whose time is the parameter `batch_time`.
    Batch,
    /// On a stream without end.
    Stream,
}

/// The column that a window is by in Spark.
pub const WINDOW: &str = "_window";

/// What a SELECT is made of that matters for a stream.
#[derive(Debug, Default)]
pub struct Shape {
    /// The first of what needs all rows of a batch: `GROUP BY`, `LIMIT`, ….
    pub whole: Option<&'static str>,
    /// Whether there is a distinct aggregate.
    pub is_distinct_aggregate: bool,
    /// Whether rows are put in order, or some left out for others.
    pub is_ordered: bool,
    /// Whether relations are joined.
    pub is_joined: bool,
    /// The relations that it reads, as often as it does.
    pub relations: Vec<String>,
}

fn parse(sql: &Sql, select: &str) -> Result<Parsed> {
    let state = sql.context().state();
    let dialect = state.config().options().sql_parser.dialect;
    state.sql_to_statement(select, &dialect)
}

/// Looks at a SELECT.
pub fn shape(sql: &Sql, select: &str) -> Shape {
    let mut shape = Shape::default();
    if let Ok(Parsed::Statement(mut statement)) = parse(sql, select) {
        let _all: ControlFlow<()> = statement.visit(&mut shape);
    }
    shape
}

impl VisitorMut for Shape {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
            self.is_ordered = true;
            self.whole.get_or_insert("ORDER BY or LIMIT");
        }
        if let SetExpr::SetOperation { set_quantifier, op, .. } = &*query.body
            && (op.to_string() != "UNION" || set_quantifier.to_string() != "ALL")
        {
            self.whole.get_or_insert("a UNION that is not UNION ALL");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if select.distinct.is_some() {
            self.whole.get_or_insert("DISTINCT");
        }
        if !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty()) {
            self.whole.get_or_insert("GROUP BY");
        }
        self.is_joined |= select.from.len() > 1 || select.from.iter().any(|from| !from.joins.is_empty());
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        self.relations.push(relation.to_string().replace('"', ""));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            let name = function.name.to_string().to_ascii_lowercase();
            if function.over.is_some() {
                self.whole.get_or_insert("OVER");
            } else if AGGREGATES.contains(&name.as_str()) {
                self.whole.get_or_insert("an aggregate");
            }
            if let FunctionArguments::List(list) = &function.args {
                self.is_distinct_aggregate |= list.duplicate_treatment.is_some_and(|how| how.to_string() == "DISTINCT");
            }
        }
        ControlFlow::Continue(())
    }
}

/// Rewrites a SELECT for Spark, or says what in it cannot be.
pub fn to_spark(sql: &Sql, select: &str, place: Place, zone: &str) -> Result<String, String> {
    let mut statement = parse(sql, select).map_err(|error| words(&error))?;
    if let Parsed::Statement(statement) = &mut statement {
        translate(statement, place, zone)?;
    }
    Ok(statement.to_string())
}

/// The same for a SELECT that groups rows by the windows that they are in: Spark closes the groups of its own window only,
/// so that it is one of the columns that rows are grouped by.
pub fn with_windows(sql: &Sql, select: &str, over: &str, zone: &str) -> Result<String, String> {
    let mut statement = parse(sql, select).map_err(|error| words(&error))?;
    if let Parsed::Statement(statement) = &mut statement {
        let Statement::Query(query) = &mut **statement else { return Err("it is no SELECT".to_owned()) };
        let simple = match &mut *query.body {
            SetExpr::Select(select)
                if select.from.len() == 1 && select.from[0].relation.to_string().split(' ').next() == Some(over) =>
            {
                match &mut select.group_by {
                    GroupByExpr::Expressions(by, _) if !by.is_empty() => Some(by),
                    _ => None,
                }
            }
            _ => None,
        };
        let by = simple.ok_or("with `time`, the SELECT must read `over` itself and have a GROUP BY")?;
        by.push(Expr::Identifier(Ident::new(WINDOW)));
        translate(statement, Place::Stream, zone)?;
    }
    Ok(statement.to_string())
}

fn translate(statement: &mut Statement, place: Place, zone: &str) -> Result<(), String> {
    match statement.visit(&mut Translation { place, zone }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(why) => Err(why),
    }
}

/// An expression of Spark's.
fn spark(text: &str) -> Expr {
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr());
    parsed.expect("what is written here is SQL")
}

struct Translation<'a> {
    place: Place,
    zone: &'a str,
}

impl VisitorMut for Translation<'_> {
    type Break = String;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        match self.expr(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => ControlFlow::Break(why),
        }
    }

    fn post_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<String> {
        // There a back-slash begins an escape, and of two quotation marks nothing is left.
        if let Value::SingleQuotedString(text) = &mut value.value {
            *text = text.replace('\\', "\\\\").replace('\'', "\\u0027");
        }
        ControlFlow::Continue(())
    }
}

impl Translation<'_> {
    fn expr(&self, expr: &mut Expr) -> Result<(), String> {
        match expr {
            Expr::Function(function) => match function.name.to_string().to_ascii_lowercase().as_str() {
                // Times without a zone are those of UTC.
                "batch_time" if self.place == Place::Batch => *expr = spark("cast(:batch_time as timestamp)"),
                "batch_time" => *expr = spark("cast(current_timestamp() as timestamp)"),
                "current_date" | "today" => {
                    let zone = self.zone;
                    *expr = spark(&format!("cast(from_utc_timestamp(current_timestamp(), '{zone}') as date)"));
                }
                // There nothing, once put together with something, is nothing.
                "concat" => {
                    function.name = named("concat_ws");
                    insert(function, 0, Value::SingleQuotedString(String::new()));
                }
                name @ ("ltrim" | "rtrim") if arguments(function).len() == 2 => {
                    let side = if name == "ltrim" { TrimWhereField::Leading } else { TrimWhereField::Trailing };
                    let mut given = arguments(function).iter().filter_map(plain);
                    if let (Some(of), Some(what)) = (given.next(), given.next()) {
                        *expr = trim(side, what, of);
                    }
                }
                name => rename(name, function)?,
            },
            Expr::Trim { expr: of, trim_characters: Some(what), .. } => {
                if let [what] = what.as_slice() {
                    *expr = trim(TrimWhereField::Both, what.clone(), (**of).clone());
                }
            }
            Expr::Cast { data_type, .. } => cast_to(data_type)?,
            Expr::BinaryOp { left, op, right } => match op {
                BinaryOperator::Divide if !is_fraction(left) && !is_fraction(right) => {
                    return Err(format!(
                        "`{left} / {right}`: there integers divided are a fraction; with a side that is cast to double \
                         it is one everywhere"
                    ));
                }
                BinaryOperator::PGRegexMatch => *op = BinaryOperator::Regexp,
                BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo
                | BinaryOperator::StringConcat
                | BinaryOperator::Gt
                | BinaryOperator::Lt
                | BinaryOperator::GtEq
                | BinaryOperator::LtEq
                | BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::And
                | BinaryOperator::Or => {}
                op => return Err(format!("the operator `{op}`")),
            },
            Expr::AtTimeZone { .. } => return Err("AT TIME ZONE".to_owned()),
            Expr::SimilarTo { .. } => return Err("SIMILAR TO".to_owned()),
            Expr::Array(_) => return Err("an array in brackets; make_array(…) is the same".to_owned()),
            Expr::CompoundFieldAccess { .. } => return Err("a part in brackets".to_owned()),
            _ => {}
        }
        Ok(())
    }
}

fn is_fraction(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { data_type, .. } => {
            matches!(data_type, DataType::Double(_) | DataType::DoublePrecision | DataType::Float(_) | DataType::Real)
        }
        Expr::Value(value) => matches!(&value.value, Value::Number(digits, _) if digits.contains(['.', 'e', 'E'])),
        Expr::Nested(inner) => is_fraction(inner),
        _ => false,
    }
}

fn cast_to(data_type: &mut DataType) -> Result<(), String> {
    *data_type = match data_type {
        DataType::Text | DataType::Varchar(_) | DataType::String(_) => DataType::String(None),
        DataType::DoublePrecision => DataType::Double(datafusion::sql::sqlparser::ast::ExactNumberInfo::None),
        DataType::Int(_)
        | DataType::Integer(_)
        | DataType::BigInt(_)
        | DataType::SmallInt(_)
        | DataType::TinyInt(_)
        | DataType::Double(_)
        | DataType::Float(_)
        | DataType::Real
        | DataType::Boolean
        | DataType::Date
        | DataType::Decimal(_)
        | DataType::Numeric(_)
        | DataType::Timestamp(None, TimezoneInfo::None) => return Ok(()),
        other => return Err(format!("the type {other}")),
    };
    Ok(())
}

fn named(name: &str) -> ObjectName {
    ObjectName::from(vec![Ident::new(name)])
}

fn arguments(function: &mut Function) -> &mut [FunctionArg] {
    match &mut function.args {
        FunctionArguments::List(list) => &mut list.args,
        _ => &mut [],
    }
}

/// The expression that is given.
fn plain(argument: &FunctionArg) -> Option<Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    }
}

fn trim(side: TrimWhereField, what: Expr, of: Expr) -> Expr {
    Expr::Trim { trim_where: Some(side), trim_what: Some(Box::new(what)), expr: Box::new(of), trim_characters: None }
}

fn insert(function: &mut Function, at: usize, value: Value) {
    if let FunctionArguments::List(list) = &mut function.args {
        let value = FunctionArgExpr::Expr(Expr::Value(value.into()));
        list.args.insert(at.min(list.args.len()), FunctionArg::Unnamed(value));
    }
}

fn text(argument: Option<&mut FunctionArg>) -> Option<&mut String> {
    match argument? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &mut value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn rename(name: &str, function: &mut Function) -> Result<(), String> {
    match (name, arguments(function).len()) {
        ("string_to_array", 2) => {
            let separator = text(arguments(function).get_mut(1));
            let separator = separator.ok_or("string_to_array with a separator that is no text")?;
            // Spark splits at a pattern, and -1 keeps what is empty at the end.
            *separator = quoted(separator);
            insert(function, 2, Value::Number("-1".to_owned(), false));
            function.name = named("split");
        }
        ("to_char" | "date_format", 2) => {
            let format =
                text(arguments(function).get_mut(1)).ok_or_else(|| format!("{name} with a format that is no text"))?;
            *format = date_format(format).ok_or_else(|| format!("{name} with the format '{format}'"))?;
            function.name = named("date_format");
        }
        ("date_trunc", 2) => {
            let unit = text(arguments(function).first_mut()).map(|unit| unit.to_ascii_lowercase());
            let known = ["year", "quarter", "month", "week", "day", "hour", "minute", "second"];
            if !unit.is_some_and(|unit| known.contains(&unit.as_str())) {
                return Err(
                    "date_trunc to another unit than year, quarter, month, week, day, hour, minute, second".into()
                );
            }
        }
        ("ltrim" | "rtrim", 1) => {}
        ("log", 1) => function.name = named("log10"),
        ("to_date" | "to_timestamp", count @ 2..) | ("regexp_like", count @ 3..) => {
            return Err(format!("the function {name} with {count} arguments"));
        }
        _ => {
            if let Some((_, theirs)) = NAMES.iter().find(|(ours, _)| *ours == name) {
                function.name = named(theirs);
            } else if OWN.contains(&name) {
                return Err(format!("the function {name}, which is this program's own"));
            } else if !FUNCTIONS.contains(&name) && !AGGREGATES.contains(&name) {
                return Err(format!("the function {name}, which is not known to give the same there"));
            }
        }
    }
    Ok(())
}

/// A pattern that matches this text and nothing else.
fn quoted(text: &str) -> String {
    text.chars().map(|c| if c.is_alphanumeric() || c == ' ' { c.to_string() } else { format!("\\{c}") }).collect()
}

/// A format of times in Java's letters.
fn date_format(format: &str) -> Option<String> {
    let (mut java, mut letters) = (String::new(), format.chars());
    while let Some(letter) = letters.next() {
        if letter == '%' {
            java.push_str(match letters.next()? {
                'Y' => "yyyy",
                'm' => "MM",
                'd' => "dd",
                'H' => "HH",
                'M' => "mm",
                'S' => "ss",
                'F' => "yyyy-MM-dd",
                'T' => "HH:mm:ss",
                'j' => "DDD",
                _ => return None,
            });
        } else if letter.is_ascii_alphabetic() || "'[]{}#".contains(letter) {
            return None;
        } else {
            java.push(letter);
        }
    }
    Some(java)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(select: &str) -> Result<String, String> {
        to_spark(&Sql::new(&jiff::tz::TimeZone::UTC).expect("there is a planner"), select, Place::Batch, "Asia/Tokyo")
    }

    #[test]
    fn functions_and_types_have_sparks_names() {
        let expected = [
            (
                "select unnest(string_to_array(value, '|')) as word from lines",
                "SELECT explode(split(value, '\\\\|', -1)) AS word FROM lines",
            ),
            ("select cast(a as varchar), a::text from t", "SELECT CAST(a AS STRING), a::STRING FROM t"),
            (
                "select count(*) from (select strpos(a, 'x') from t)",
                "SELECT count(*) FROM (SELECT instr(a, 'x') FROM t)",
            ),
            (
                "select concat(a, b), ltrim(a, '\\') from t",
                "SELECT concat_ws('', a, b), TRIM(LEADING '\\\\' FROM a) FROM t",
            ),
            ("select to_char(a, '%Y%m%d %H:%M') from t", "SELECT date_format(a, 'yyyyMMdd HH:mm') FROM t"),
            ("select a / 2.0 from t where a ~ 'x'", "SELECT a / 2.0 FROM t WHERE a REGEXP 'x'"),
            ("select 'it''s' from t", "SELECT 'it\\u0027s' FROM t"),
            ("select batch_time() from t", "SELECT CAST(:batch_time AS TIMESTAMP) FROM t"),
        ];
        for (ours, theirs) in expected {
            assert_eq!(translated(ours).as_deref(), Ok(theirs), "{ours}");
        }
    }

    #[test]
    fn what_would_be_different_is_refused() {
        let refused = [
            ("select a / b from t", "`a / b`"),
            ("select browser(a) from t", "the function browser, which is this program's own"),
            ("select date_bin(interval '1 minute', a) from t", "the function date_bin"),
            ("select to_char(a, '%A') from t", "to_char with the format '%A'"),
            ("select arrow_cast(a, 'Int8') from t", "arrow_cast"),
            ("select a -> 'b' from t", "the operator"),
            ("select cast(a as bytea) from t", "the type BYTEA"),
        ];
        for (select, why) in refused {
            let found = translated(select).expect_err(select);
            assert!(found.contains(why), "{select}: {found}");
        }
    }

    #[test]
    fn windows_are_grouped_by_as_well() {
        let sql = Sql::new(&jiff::tz::TimeZone::UTC).expect("there is a planner");
        let windowed = |select| with_windows(&sql, select, "clicks", "UTC");
        assert_eq!(
            windowed("select window_end, count(*) as n from clicks group by window_end").as_deref(),
            Ok("SELECT window_end, count(*) AS n FROM clicks GROUP BY window_end, _window")
        );
        assert!(windowed("select count(*) from (select * from clicks) group by window_end").is_err());
    }
}
