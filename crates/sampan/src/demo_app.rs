//! The demonstration's web application, and the client that watches over it.
//! It runs inside containers whose image is nothing but this binary.
#![expect(clippy::print_stdout, reason = "its output is its log")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Subcommand;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// Largest body `/echo` sends back, in bytes.
const ECHO_MAX: usize = 1 << 20;
/// How long a request of the client may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open requests may still run after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);

/// What the application does.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum DemoApp {
    /// Answer on /, /healthz, /env, /cpus and /echo
    Serve {
        /// Address to listen on
        #[arg(long, default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        /// Go on answering so long after SIGTERM, in milliseconds, while routes are taken away
        #[arg(long, default_value_t = 500)]
        linger_ms: u64,
    },
    /// Fetch a URL and print the answer
    Fetch {
        /// http://host[:port]/path
        url: String,
        /// So many times
        #[arg(long, default_value_t = 1)]
        count: u64,
    },
    /// Fetch a URL again and again until SIGTERM, each time over a new connection; print, from the
    /// first answer on, each failure and every second the numbers of requests and failures
    Watch {
        /// http://host[:port]/path
        url: String,
        /// Pause between requests, in milliseconds
        #[arg(long, default_value_t = 10)]
        pause_ms: u64,
    },
    /// Take memory, a mebibyte at a time, and hold it
    Eat {
        #[arg(long)]
        mib: usize,
    },
    /// End with this code
    Exit {
        #[arg(long)]
        code: i32,
        #[arg(long, default_value_t = 0)]
        after_ms: u64,
    },
}

impl DemoApp {
    /// Runs it; the result is the process's exit code.
    pub(crate) async fn run(self) -> Result<i32> {
        match self {
            DemoApp::Serve { listen, linger_ms } => serve(listen, linger_ms).await,
            DemoApp::Fetch { url, count } => fetch_many(&url, count).await,
            DemoApp::Eat { mib } => Ok(eat(mib)),
            DemoApp::Exit { code, after_ms } => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                println!("leaving with {code}");
                Ok(code)
            }
            DemoApp::Watch { url, pause_ms } => watch(&url, Duration::from_millis(pause_ms)).await,
        }
    }
}

async fn serve(listen: SocketAddr, linger_ms: u64) -> Result<i32> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on {listen}");
    let mut terminate = signal(SignalKind::terminate())?;
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    let mut deadline: Option<tokio::time::Instant> = None;
    loop {
        let lingering = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                let service = service_fn(move |request| answer(request, peer));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let watched = graceful.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = watched.await {
                        tracing::debug!(%error, "connection ended");
                    }
                });
            }
            _ = terminate.recv(), if deadline.is_none() => {
                println!("terminating: answering for {linger_ms} ms more");
                deadline = Some(tokio::time::Instant::now() + Duration::from_millis(linger_ms));
            }
            () = lingering => break,
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        println!("some requests did not end in time");
    }
    println!("bye");
    Ok(0)
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => (StatusCode::OK, greeting(peer).into()),
        (&Method::GET, "/healthz") => (StatusCode::OK, Bytes::from_static(b"ok\n")),
        (&Method::GET, "/env") => (StatusCode::OK, environment().into()),
        (&Method::GET, "/cpus") => (StatusCode::OK, processors().into()),
        (&Method::POST | &Method::PUT, "/echo") => {
            match Limited::new(request.into_body(), ECHO_MAX).collect().await {
                Ok(body) => (StatusCode::OK, body.to_bytes()),
                Err(_) => (
                    StatusCode::PAYLOAD_TOO_LARGE,
                    Bytes::from_static(b"too large\n"),
                ),
            }
        }
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"not found\n")),
    };
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    Ok(response)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn greeting(peer: SocketAddr) -> String {
    let pod = variable("POD_NAME")
        .or_else(|| variable("HOSTNAME"))
        .unwrap_or_default();
    let version = variable("VERSION").unwrap_or_else(|| "v1".into());
    let greeting = variable("GREETING").unwrap_or_else(|| "Ahoy".into());
    format!(
        "{greeting} from {pod}, version {version}, to {}\n",
        peer.ip()
    )
}

/// The processors it may run on, as the kernel writes them.
fn processors() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let listed = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    format!("{}\n", listed.unwrap_or_default().trim())
}

fn environment() -> String {
    let mut lines: Vec<String> = std::env::vars_os()
        .map(|(key, value)| format!("{}={}\n", key.display(), value.display()))
        .collect();
    lines.sort();
    lines.concat()
}

async fn fetch_many(url: &str, count: u64) -> Result<i32> {
    for _ in 0..count {
        print!("{}", fetch(url).await?);
    }
    Ok(0)
}

fn eat(mib: usize) -> i32 {
    let mut held = Vec::new();
    for count in 1..=mib {
        // Written to, for memory that is only promised is not taken.
        held.push(vec![count.to_le_bytes()[0]; 1 << 20]);
    }
    println!("ate {} MiB", held.len());
    0
}

async fn watch(url: &str, pause: Duration) -> Result<i32> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (mut requests, mut failures) = (0_u64, 0_u64);
    let mut last_report = Instant::now();
    loop {
        let stopping = tokio::select! {
            answer = fetch(url) => {
                match answer {
                    Ok(_) => requests += 1,
                    // Whoever is watched may come later than the watcher.
                    Err(_) if requests == 0 => {}
                    Err(error) => {
                        (requests, failures) = (requests + 1, failures + 1);
                        println!("failure: {error:#}");
                    }
                }
                false
            }
            _ = terminate.recv() => true,
        };
        if stopping || last_report.elapsed() >= Duration::from_secs(1) {
            println!("requests={requests} failures={failures}");
            last_report = Instant::now();
        }
        if stopping {
            return Ok(0);
        }
        tokio::time::sleep(pause).await;
    }
}

/// GET over a new connection; anything but 200 is an error.
pub(crate) async fn fetch(url: &str) -> Result<String> {
    tokio::time::timeout(REQUEST_TIMEOUT, fetch_once(url))
        .await
        .context("timed out")?
}

async fn fetch_once(url: &str) -> Result<String> {
    let uri: http::Uri = url.parse().context("not a URL")?;
    let host = uri.host().context("URL has no host")?;
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port))
        .await
        .with_context(|| format!("{host}:{port}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .uri(path)
        .header(http::header::HOST, host)
        .header(http::header::CONNECTION, "close")
        .body(Full::new(Bytes::new()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    driver.abort();
    let text = String::from_utf8_lossy(&body).into_owned();
    if status != StatusCode::OK {
        bail!("{status}: {text}");
    }
    Ok(text)
}
