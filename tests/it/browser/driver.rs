//! A small client of the protocol `WebDriver`.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::server::{Answer, Client, PATIENCE, lines_of, until};

/// A headless Chromium, and the driver that controls it. Dropping it ends both.
pub(super) struct Browser {
    driver: Child,
    client: Client,
    session: String,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser with a profile of its own.
    pub(super) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The driver ends at once if the port that it was given for IPv4 is taken for IPv6.
        let (driver, port) = until("the driver listens", start_driver);
        let mut browser =
            Self { driver, client: Client::new(([127, 0, 0, 1], port).into()), session: String::new(), profile };
        let arguments = [
            "--headless",
            // The sandbox does not work for root, which runs the tests in a container.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-color-profile=srgb",
            &format!("--user-data-dir={}", browser.profile.path().display()),
        ];
        let options = json!({ "args": arguments });
        let logs = json!({ "browser": "ALL", "performance": "ALL" });
        let patience = json!({ "script": PATIENCE.as_millis() });
        let wanted = json!({
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs, "timeouts": patience,
        });
        let session = browser.post("/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        session["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        // The browser begins with a page of its own, which may still be loading.
        browser.open("about:blank");
        browser
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        let answer = self.try_post(path, body);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()["value"].take()
    }

    fn try_post(&mut self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.client.send("POST", path, &headers, body.to_string().as_bytes()).unwrap()
    }

    fn command(&mut self, name: &str, body: &Value) -> Value {
        self.post(&format!("/session/{}/{name}", self.session), body)
    }

    /// Sends a command of the protocol of Chromium's developer tools.
    fn tool(&mut self, name: &str, parameters: &Value) -> Value {
        let (path, body) =
            (format!("/session/{}/goog/cdp/execute", self.session), json!({ "cmd": name, "params": parameters }));
        until(name, || {
            let answer = self.try_post(&path, &body);
            // A page that just takes the place of another one takes no commands for a moment.
            let is_replaced = answer.status == 500 && answer.body.contains("aborted by navigation");
            assert!(is_replaced || answer.status == 200, "{name}: {answer:?}");
            (!is_replaced).then(|| answer.json()["value"].take())
        })
    }

    /// Sets the size of the window, and the theme that the user prefers.
    pub(super) fn show(&mut self, width: u32, height: u32, theme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tool("Emulation.setDeviceMetricsOverride", &size);
        let theme = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.tool("Emulation.setEmulatedMedia", &theme);
    }

    /// Loads a page and waits until it is complete.
    pub(super) fn open(&mut self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Runs a script as the body of a function, and returns its result.
    pub(super) fn run(&mut self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Runs a script that calls its last argument with the result, and returns the result.
    pub(super) fn run_until_called(&mut self, script: &str) -> Value {
        self.command("execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Presses keys.
    pub(super) fn press(&mut self, keys: &[&str]) {
        let presses =
            keys.iter().flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })));
        let actions: Vec<_> = presses.collect();
        self.command("actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }));
    }

    /// Returns the messages of the console since the last call.
    pub(super) fn console(&mut self) -> Vec<Value> {
        self.command("se/log", &json!({ "type": "browser" })).as_array().unwrap().clone()
    }

    /// Returns the addresses that pages other than the browser's own have requested since the last call.
    pub(super) fn requests(&mut self) -> Vec<String> {
        let entries = self.command("se/log", &json!({ "type": "performance" }));
        let messages =
            entries.as_array().unwrap().iter().map(|entry| {
                serde_json::from_str::<Value>(entry["message"].as_str().unwrap()).unwrap()["message"].take()
            });
        let sent = messages.filter(|message| message["method"] == "Network.requestWillBeSent");
        let is_own = |message: &Value| {
            let page = message["params"]["documentURL"].as_str().unwrap();
            page.starts_with("chrome:") || page.starts_with("chrome-untrusted:")
        };
        let sent = sent.filter(|message| !is_own(message));
        sent.map(|message| message["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns what is visible, as a PNG.
    pub(super) fn screenshot(&mut self) -> Vec<u8> {
        let picture = self.tool("Page.captureScreenshot", &json!({ "format": "png" }));
        from_base64(picture["data"].as_str().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser when its session ends. If there is no session, the group is ended nevertheless.
        let path = format!("/session/{}", self.session);
        let _ = self.client.send("DELETE", &path, &[], b"");
        let _ = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        let _ = self.driver.wait();
    }
}

/// Starts a driver. Returns it with its port, or `None` if it ends.
fn start_driver() -> Option<(Child, u16)> {
    let mut command = Command::new("chromedriver");
    // The driver and its browser are a group of processes, which can be ended together.
    command.arg("--port=0").process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut driver =
        command.spawn().expect("the tests of the browser need `chromedriver`, of the same version as `chromium`");
    let lines = lines_of(driver.stdout.take().unwrap());
    let port = std::iter::from_fn(|| lines.recv_timeout(PATIENCE).ok())
        .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
    if port.is_none() {
        let _ = driver.kill();
        let _ = driver.wait();
    }
    Some((driver, port?))
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for character in text.bytes().filter(|byte| *byte != b'=') {
        let digit = DIGITS.iter().position(|digit| *digit == character).unwrap();
        bits = (bits << 6 | u32::try_from(digit).unwrap()) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff).try_into().unwrap());
        }
    }
    bytes
}

#[test]
fn base64_is_read() {
    for (text, bytes) in [("", &b""[..]), ("TQ==", b"M"), ("TWE=", b"Ma"), ("TWFu", b"Man"), ("/+8=", b"\xff\xef")] {
        assert_eq!(from_base64(text), bytes);
    }
}
