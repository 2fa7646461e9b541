//! `grpc.health.v1.Health/Check`, by hand: the two messages have one field each.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u8 = 1;
/// The answer is two bytes behind a header of five.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Asks whether `service` is serving.
pub(super) async fn check(
    host: &str,
    port: u16,
    service: &str,
    timeout: Duration,
) -> Result<(), String> {
    let shown = format!("{host}:{port}");
    match tokio::time::timeout(timeout, ask(host, port, service)).await {
        Ok(Ok(SERVING)) => Ok(()),
        Ok(Ok(status)) => {
            let word = match status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNRECOGNIZED",
            };
            Err(format!("service unhealthy (responded with {word:?})"))
        }
        Ok(Err(fault)) => Err(format!("error: health rpc probe failed: {fault}")),
        Err(_) => {
            let limit = timeout.as_secs();
            Err(format!(
                "timeout: failed to connect service {shown:?} within {limit}s: context deadline exceeded"
            ))
        }
    }
}

async fn ask(host: &str, port: u16, service: &str) -> Result<u8, String> {
    let tcp = TcpStream::connect((host, port))
        .await
        .map_err(|fault| fault.to_string())?;
    let words = |fault: hyper::Error| fault.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .map_err(words)?;
    let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(request_frame(service)))
        .map_err(|fault| fault.to_string())?;
    let talk = async {
        let answer = sender.send_request(request).await.map_err(words)?;
        let (head, body) = answer.into_parts();
        let body = http_body_util::Limited::new(body, ANSWER_BYTES_MAX);
        let collected = body.collect().await.map_err(|fault| fault.to_string())?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = trailers
            .get("grpc-status")
            .or_else(|| head.headers.get("grpc-status"));
        match status.and_then(|status| status.to_str().ok()) {
            Some("0") => serving_status(&collected.to_bytes()),
            Some(code) => Err(format!("rpc error: code = {code}")),
            None => Err(format!("no gRPC answer (HTTP {})", head.status)),
        }
    };
    tokio::pin!(connection);
    tokio::pin!(talk);
    tokio::select! {
        answer = &mut talk => answer,
        _ = &mut connection => talk.await,
    }
}

/// A gRPC frame with `HealthCheckRequest { service = 1 }`.
fn request_frame(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

/// `HealthCheckResponse { status = 1 }` out of a gRPC frame.
fn serving_status(frame: &[u8]) -> Result<u8, String> {
    let message = frame.get(5..).unwrap_or_default();
    match message {
        [] => Ok(0),
        [0x08, status, ..] => Ok(*status),
        _ => Err("answer does not decode".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_protocol_s() {
        assert_eq!(&request_frame("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(
            &request_frame("ab")[..],
            [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
        );
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Ok(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Ok(0));
        assert!(serving_status(&[0, 0, 0, 0, 2, 9, 1]).is_err());
    }
}
