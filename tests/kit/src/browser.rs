//! Debian's Chromium without a window, driven through chromedriver by the W3C WebDriver protocol.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::Client;
use crate::leftovers::{processes_naming, sweep, try_until, wait_until};

/// One window of a browser of its own: own profile, own port, ended when it is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    client: Client,
    session: String,
    /// Its profile and everything else that it writes.
    folder: TempDir,
}

impl Browser {
    /// Starts one of this size; panics where Chromium or chromedriver is not installed (`make setup`).
    pub fn start(width: u32, height: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("byw.").tempdir_in("/tmp").expect("a temporary folder");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver starts; make setup installs it");
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, rest) = line.split_once("started successfully on port ")?;
            rest.trim_end_matches('.').parse().ok()
        });
        // A closed pipe would end it.
        std::thread::spawn(move || lines.for_each(drop));
        let client = Client::tcp(port.expect("chromedriver says its port"));
        let mut browser = Self { driver, client, session: String::new(), folder };
        let profile = browser.folder.path().join("profile").display().to_string();
        let answer = browser.ask(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "browserName": "chrome",
                // What a page writes on its console, such as a refusal by its Content-Security-Policy.
                "goog:loggingPrefs": {"browser": "ALL"},
                "goog:chromeOptions": {"args": [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
                    format!("--user-data-dir={profile}"), format!("--window-size={width},{height}")
                ]}
            }}}),
        );
        browser.session = answer["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    /// One command of the protocol; panics with the driver's error.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = if self.session.is_empty() { path.to_owned() } else { format!("/session/{}{path}", self.session) };
        let headers = [("Host", "127.0.0.1"), ("Content-Type", "application/json")];
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let answer = self.client.send_with(method, &path, &headers, body);
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error:#}"));
        let value = answer.json()["value"].clone();
        assert_eq!(answer.status, 200, "{method} {path}: {value}");
        value
    }

    /// Opens an address and returns when its document is read.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({"url": url}));
    }

    /// The address that is shown.
    pub fn url(&self) -> String {
        self.ask("GET", "/url", &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// Runs a function's body in the page and gives what it returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text that a reader sees in the first element of a CSS selector; empty where there is none.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({})?.innerText ?? ''", json!(selector));
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the text of a selector's first element fulfils a condition; gives it.
    #[track_caller]
    pub fn wait_for_text(&self, selector: &str, what: &str, mut is_fine: impl FnMut(&str) -> bool) -> String {
        let mut last = String::new();
        let found = try_until(Duration::from_secs(60), || {
            last = self.text(selector);
            is_fine(&last).then_some(())
        });
        assert!(
            found.is_some(),
            "after 60 s {selector} does not show {what}; it shows:\n{last}\nconsole: {:?}",
            self.console()
        );
        last
    }

    /// What the page has written on its console since the last question.
    pub fn console(&self) -> Vec<String> {
        let log = self.ask("POST", "/se/log", &json!({"type": "browser"}));
        let lines = log.as_array().into_iter().flatten();
        lines.filter_map(|line| Some(line["message"].as_str()?.to_owned())).collect()
    }

    pub fn resize(&self, width: u32, height: u32) {
        self.ask("POST", "/window/rect", &json!({"width": width, "height": height}));
    }

    /// As if the reader had chosen a dark system.
    pub fn prefer_dark(&self) {
        let features = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
        let command = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.ask("POST", "/goog/cdp/execute", &command);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            let _ = self.client.send_with("DELETE", &path, &[("Host", "127.0.0.1")], "");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        // Whatever of Chromium is left names its profile.
        sweep(self.folder.path());
        if !std::thread::panicking() {
            let folder = self.folder.path().display().to_string();
            wait_until("Chromium to end", 20, || processes_naming(&folder).is_empty().then_some(()));
        }
    }
}
