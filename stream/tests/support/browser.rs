//! A real browser, which is told over pipes what to do.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{directory, eventually, peer};

/// Chromium without a window, at a page. It is killed when it is dropped.
pub struct Browser {
    child: Child,
    requests: File,
    answers: BufReader<File>,
    last: u64,
    session: Option<String>,
    _home: TempDir,
}

impl Browser {
    /// Opens a page. Nothing when there is no browser.
    pub fn open(url: &str) -> Option<Self> {
        if !peer("chromium") {
            return None;
        }
        let home = directory();
        let (requests, answers) = (home.path().join("requests"), home.path().join("answers"));
        let made = Command::new("mkfifo").args([&requests, &answers]).status().expect("mkfifo is there");
        assert!(made.success());
        // The descriptors 3 and 4 are what the browser listens and answers on.
        let mut command = Command::new("sh");
        command.args(["-c", "exec chromium \"$@\" 3<\"$HOME/requests\" 4>\"$HOME/answers\"", "sh"]);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--remote-debugging-pipe", "--window-size=1280,1000", "about:blank"]);
        command.arg(format!("--user-data-dir={}", home.path().join("profile").display()));
        command.env("HOME", home.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("a shell starts");
        // Each waits for the other end, in the shell's order.
        let requests = File::options().write(true).open(requests).expect("the pipe is there");
        let answers = BufReader::new(File::open(answers).expect("the pipe is there"));
        let mut browser = Self { child, requests, answers, last: 0, session: None, _home: home };
        let target = browser.ask("Target.createTarget", json!({ "url": url }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.ask("Runtime.enable", json!({}));
        Some(browser)
    }

    /// Sends a command and waits for its answer.
    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut request = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(0);
        self.requests.write_all(&bytes).expect("the browser listens");
        loop {
            let mut answer = Vec::new();
            self.answers.read_until(0, &mut answer).expect("the browser answers");
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).expect("the browser answers in JSON");
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of a JavaScript expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let result = self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression has a value.
    pub fn wait_for(&mut self, expression: &str, expected: &Value) {
        let mut last = Value::Null;
        let found = eventually(|| {
            last = self.value(expression);
            (last == *expected).then_some(())
        });
        assert!(found.is_some(), "{expression}: {last}, not {expected}");
    }

    /// Makes the window narrow or wide, and the colours light or dark.
    pub fn set_view(&mut self, width: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", metrics);
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", feature);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers go with it.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
