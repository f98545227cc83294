//! DataFusion's SQL in Spark's words.

use std::ops::ControlFlow;

use datafusion::error::Result;
use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Value, VisitMut as _,
    VisitorMut,
};

use crate::sql::Sql;

/// Functions that Spark has under another name, with the same arguments.
const NAMES: &[(&str, &str)] = &[
    ("unnest", "explode"),
    ("strpos", "instr"),
    ("array_length", "size"),
    ("cardinality", "size"),
    ("string_agg", "listagg"),
    ("array_to_string", "array_join"),
    ("batch_time", "current_timestamp"),
    ("character_length", "char_length"),
    ("bool_and", "every"),
    ("approx_distinct", "approx_count_distinct"),
];

/// Rewrites a SELECT for Spark.
pub fn to_spark(sql: &Sql, select: &str) -> Result<String> {
    let state = sql.context().state();
    let dialect = state.config().options().sql_parser.dialect;
    let mut statement = state.sql_to_statement(select, &dialect)?;
    if let datafusion::sql::parser::Statement::Statement(statement) = &mut statement {
        let _all: ControlFlow<()> = statement.visit(&mut Names);
    }
    Ok(statement.to_string())
}

struct Names;

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => rename(function),
            Expr::Cast { data_type, .. } => {
                if matches!(data_type, DataType::Text | DataType::Varchar(_)) {
                    *data_type = DataType::String(None);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn rename(function: &mut Function) {
    let name = function.name.to_string().to_ascii_lowercase();
    if name == "string_to_array" {
        // Spark splits at a pattern, and -1 keeps what is empty at the end.
        if let FunctionArguments::List(list) = &mut function.args {
            if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))) = list.args.get_mut(1)
                && let Value::SingleQuotedString(text) = &mut value.value
            {
                *text = quoted(text);
            }
            let all = Expr::Value(Value::Number("-1".to_owned(), false).into());
            list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(all)));
        }
        function.name = ObjectName::from(vec![Ident::new("split")]);
    } else if let Some((_, theirs)) = NAMES.iter().find(|(ours, _)| *ours == name) {
        function.name = ObjectName::from(vec![Ident::new(*theirs)]);
    }
}

/// A pattern that matches this text and nothing else. The back-slash is doubled, as Spark reads escapes in strings.
fn quoted(text: &str) -> String {
    text.chars().map(|c| if c.is_alphanumeric() || c == ' ' { c.to_string() } else { format!("\\\\{c}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_types_have_sparks_names() {
        let sql = Sql::new(&jiff::tz::TimeZone::UTC).expect("there is a planner");
        let spark = |select| to_spark(&sql, select).expect("it is SQL");
        assert_eq!(
            spark("select unnest(string_to_array(value, '|')) as word from lines"),
            "SELECT explode(split(value, '\\\\|', -1)) AS word FROM lines"
        );
        assert_eq!(spark("select cast(a as varchar) from t"), "SELECT CAST(a AS STRING) FROM t");
        assert_eq!(
            spark("select count(*) from (select strpos(a, 'x') from t)"),
            "SELECT count(*) FROM (SELECT instr(a, 'x') FROM t)"
        );
    }
}
