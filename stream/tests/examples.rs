//! The examples are as they should be.

use crate::support::{TestJob, example_folder, files, stderr, stdout};

#[test]
fn every_example_has_no_mistake() {
    let examples = files(&example_folder().join("stream"));
    let jobs: Vec<_> = examples.iter().filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    assert!(jobs.len() >= 4, "{jobs:?}");
    for job in jobs {
        let output = TestJob::command(&["check", &job.display().to_string()]);
        assert!(output.status.success(), "{}: {}{}", job.display(), stdout(&output), stderr(&output));
    }
}
