//! A real browser without a screen: Chromium, told what to do in the DevTools protocol.
//!
//! It is spoken to through two pipes (`--remote-debugging-pipe`): no port, no library. Messages
//! are JSON, each ended by a NUL byte; the protocol's reference is
//! <https://chromedevtools.github.io/devtools-protocol/>.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the browser may take for one thing. Its start is slow on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// It speaks to nobody but whom it is sent to. Root, as whom CI runs, cannot use its sandbox.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
];

/// How somebody looks at a page.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Width of the screen, in CSS pixels.
    pub width: u32,
    /// Whether they asked for a dark scheme.
    pub dark: bool,
    /// Whether scripts may run.
    pub script: bool,
}

/// A running browser with one page. It ends with this value.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    /// Events that nobody has asked for yet.
    events: Vec<Value>,
    session: Option<String>,
    last_id: u64,
    log: PathBuf,
    /// The profile: it goes after those that write to it.
    _dir: TempDir,
}

impl Browser {
    /// Starts it with an empty profile.
    pub fn start() -> Result<Self, Fault> {
        let dir = tempfile::tempdir().or_fault("no directory")?;
        let log = dir.path().join("log");
        let stderr = File::create(&log).or_fault("no log")?;
        // The browser reads from descriptor 3 and writes to descriptor 4.
        let wiring = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#;
        let mut child = Command::new(programs::other("setpriv")?)
            .args(["--pdeathsig", "KILL", "--", "sh", "-c", wiring, "sh"])
            .arg(programs::other("chromium")?)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .arg("about:blank")
            .env("HOME", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .or_fault("cannot start chromium")?;
        let mute = || Fault::new("the browser is mute");
        let commands = child.stdin.take().ok_or_else(mute)?;
        let mut answers = BufReader::new(child.stdout.take().ok_or_else(mute)?);
        let (give, messages) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while answers.read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
                let message = serde_json::from_slice(bytes.strip_suffix(&[0]).unwrap_or(&bytes));
                // Nobody listens any more, or it was no JSON: either way this is over.
                if message.map_or(true, |message| give.send(message).is_err()) {
                    return;
                }
                bytes.clear();
            }
        });
        let (events, session) = (Vec::new(), None);
        let mut browser =
            Self { child, commands, messages, events, session, last_id: 0, log, _dir: dir };
        browser.attach()?;
        Ok(browser)
    }

    fn attach(&mut self) -> Result<(), Fault> {
        let target = self.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let id = target.get("targetId").cloned().unwrap_or_default();
        let attached =
            self.call("Target.attachToTarget", &json!({"targetId": id, "flatten": true}))?;
        self.session = attached.get("sessionId").and_then(Value::as_str).map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(())
    }

    /// Loads a page, and waits until it is whole.
    pub fn visit(&mut self, url: &str, view: View) -> Result<(), Fault> {
        let View { width, dark, script } = view;
        let metrics = json!({
            "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features}))?;
        self.call("Emulation.setScriptExecutionDisabled", &json!({"value": !script}))?;
        self.events.clear();
        let went = self.call("Page.navigate", &json!({"url": url}))?;
        if let Some(error) = went.get("errorText") {
            return Err(Fault::new(format!("{url}: {error}")));
        }
        let start = Instant::now();
        while !self.events.iter().any(|event| is(event, "Page.loadEventFired")) {
            let message = self.next(start)?;
            self.events.push(message);
        }
        Ok(())
    }

    /// The value of an expression of JavaScript on the page; a promise is waited for. It is
    /// evaluated by the browser's tools, which works where the page itself may run no script.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value, Fault> {
        let how = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let mut answer = self.call("Runtime.evaluate", &how)?;
        if let Some(exception) = answer.get("exceptionDetails") {
            return Err(Fault::new(format!("the page throws: {exception}")));
        }
        Ok(answer.pointer_mut("/result/value").map(Value::take).unwrap_or_default())
    }

    /// What the page has in its console since it was visited: messages, exceptions, violations of
    /// its security policy, and answers that were no success.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let kinds = ["Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"];
        let told = |event: &&Value| kinds.iter().any(|kind| is(event, kind));
        self.events.iter().filter(told).map(Value::to_string).collect()
    }

    /// The addresses that the page has asked for since it was visited, itself included.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|event| is(event, "Network.requestWillBeSent"));
        let url = |event: &Value| event.pointer("/params/request/url")?.as_str().map(str::to_owned);
        sent.filter_map(url).collect()
    }

    /// A picture of the whole page, as PNG.
    pub fn picture(&mut self) -> Result<Vec<u8>, Fault> {
        let how = json!({"format": "png", "captureBeyondViewport": true});
        let answer = self.call("Page.captureScreenshot", &how)?;
        let data = answer.get("data").and_then(Value::as_str).unwrap_or_default();
        BASE64_STANDARD.decode(data).or_fault("no picture")
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value, Fault> {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({"id": id, "method": method, "params": params});
        if let (Some(session), Some(map)) = (&self.session, command.as_object_mut()) {
            map.insert("sessionId".to_owned(), json!(session));
        }
        let said = self.commands.write_all(format!("{command}\0").as_bytes());
        said.or_fault(format!("the browser has ended:\n{}", self.log()))?;
        let start = Instant::now();
        loop {
            let mut message = self.next(start)?;
            if message.get("id").and_then(Value::as_u64) != Some(id) {
                self.events.push(message);
                continue;
            }
            if let Some(error) = message.get("error") {
                return Err(Fault::new(format!("{method}: {error}")));
            }
            return Ok(message.get_mut("result").map(Value::take).unwrap_or_default());
        }
    }

    fn next(&self, start: Instant) -> Result<Value, Fault> {
        let left = LIMIT.saturating_sub(start.elapsed());
        let silent = |_| Fault::new(format!("the browser says nothing:\n{}", self.log()));
        self.messages.recv_timeout(left).map_err(silent)
    }

    /// What it wrote to its standard error.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn is(event: &Value, method: &str) -> bool {
    event.get("method").and_then(Value::as_str) == Some(method)
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its processes are all in its group, which keeps its number until we have waited.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        drop(self.child.wait());
    }
}
