//! A client that waits for its answer.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use procstorm_testkit::fault::{Fault, OrFault as _};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A client. Its calls block, so it is not for use within an asynchronous task.
#[derive(Debug)]
pub struct Http {
    runtime: Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer: its status and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; what is not UTF-8 in it is replaced.
    pub body: String,
}

impl Http {
    /// A client.
    pub fn new() -> Result<Self, Fault> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .or_fault("cannot start an asynchronous runtime")?;
        // A connection for each request: one that was kept may be closed by the other end, which
        // waits for so long and not longer, in the moment in which it is used again.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Ok(Self { runtime, client })
    }

    /// Gets a page, whatever its status.
    pub fn get(&self, url: &str) -> Result<Answer, Fault> {
        self.send(Method::GET, url, &[], Bytes::new())
    }

    /// Gets a page of JSON, which must be a 200.
    pub fn json(&self, url: &str) -> Result<Value, Fault> {
        let answer = self.get(url)?;
        if answer.status != 200 {
            return Err(Fault::new(format!("{url} says {}: {}", answer.status, answer.body)));
        }
        serde_json::from_str(&answer.body).or_fault(format!("{url} is not JSON"))
    }

    /// Whether a page is there (200).
    #[must_use]
    pub fn is_ok(&self, url: &str) -> bool {
        self.get(url).is_ok_and(|answer| answer.status == 200)
    }

    /// Posts a body with some headers.
    pub fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Fault> {
        self.send(Method::POST, url, headers, body.into())
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, Fault> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).or_fault(format!("no request to {url}"))?;
        let answer = async {
            let response = self.client.request(request).await.or_fault(format!("no {url}"))?;
            let status = response.status().as_u16();
            let body =
                response.into_body().collect().await.or_fault(format!("{url} breaks off"))?;
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            Ok(Answer { status, body })
        };
        self.runtime
            .block_on(async { tokio::time::timeout(LIMIT, answer).await })
            .or_fault(format!("{url} does not answer"))?
    }
}
