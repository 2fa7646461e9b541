//! A TLS server for one test: issuers and webhooks are this.

use std::sync::Arc;

use auth::Pki;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// From path and body to status code and answer.
pub(crate) type Handler = Arc<dyn Fn(&str, &str) -> (u16, Value) + Send + Sync>;

pub(crate) struct Server {
    pub(crate) url: String,
    /// What to trust, PEM.
    pub(crate) ca: String,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(handler: Handler) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), &[]).unwrap();
        let pair = pki
            .issue_serving("server", &[], &["127.0.0.1".into()])
            .unwrap();
        let mut tls = auth::tls::server_config_of(&pair, pki.ca_pem()).unwrap();
        Arc::get_mut(&mut tls).unwrap().alpn_protocols.clear();
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    // Whoever goes away early is not our concern.
                    let _ = answer(stream, &handler).await;
                }
            }
        });
        Server {
            url,
            ca: pki.ca_pem().to_owned(),
            task,
            _dir: dir,
        }
    }
}

/// One request, one answer, and the connection ends.
async fn answer(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    handler: &Handler,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (code, document) = handler(path, &String::from_utf8_lossy(&body));
    let document = match document {
        Value::String(text) => text,
        document => document.to_string(),
    };
    let text = format!(
        "HTTP/1.1 {code} X\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{document}",
        document.len()
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
