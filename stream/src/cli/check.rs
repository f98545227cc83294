//! `flume-rs-stream check`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::run::EngineKind;
use crate::format::type_name;
use crate::job::{Job, JobError};
use crate::spark;
use crate::sql::Step;

#[derive(Debug, Args)]
pub struct Check {
    /// The job file
    job: PathBuf,
    /// What is to run the job: Spark cannot do everything
    #[arg(long, value_enum, default_value = "embedded")]
    engine: EngineKind,
}

impl Check {
    pub async fn run(self) -> ExitCode {
        match self.plan().await {
            Ok(text) => super::say(text.as_bytes()),
            Err(errors) => {
                errors.iter().for_each(super::complain);
                let plural = if errors.len() == 1 { "" } else { "s" };
                super::complain(format_args!("{} mistake{plural}", errors.len()));
                ExitCode::FAILURE
            }
        }
    }

    async fn plan(&self) -> Result<String, Vec<JobError>> {
        let (job, plan) = Job::check(&self.job).await?;
        let mut text = format!("job {}\n", job.name);
        for source in &job.sources {
            text.push_str(&format!("source {} ({}): {}\n", source.name, source.kind, columns(source.reader.schema())));
        }
        for step in &plan.steps {
            text.push_str(&match step {
                Step::View { name, rows, .. } => format!("view {name}: {}\n", columns(rows.schema())),
                Step::Table(table) => {
                    let windows = table.windows.map(|how| format!(" ({how})")).unwrap_or_default();
                    format!("table {}: {}{windows}\n", table.name, columns(table.all.schema()))
                }
            });
        }
        for (sink, (_, schema)) in job.sinks.iter().zip(&plan.feeds) {
            text.push_str(&format!("sink {} ({}): {}\n", sink.name, sink.kind, columns(schema)));
        }
        for chart in &job.charts {
            text.push_str(&format!("chart {} ({})\n", chart.name, chart.kind));
        }
        if self.engine == EngineKind::Spark {
            let spark = spark::plan(&job, false).await?;
            spark.queries.iter().for_each(|query| text.push_str(&format!("Spark's query {query}\n")));
            spark.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
        }
        Ok(text)
    }
}

fn columns(schema: &datafusion::arrow::datatypes::Schema) -> String {
    let columns = schema.fields().iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type())));
    columns.collect::<Vec<_>>().join(", ")
}
