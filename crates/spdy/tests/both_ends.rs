//! Both ends of a connection.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use spdy::{Headers, Incoming, Role, Session, SpdyError, Stream, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// A client and a server over a small pipe.
fn pair() -> ((Session, Incoming), (Session, Incoming)) {
    let (near, far) = duplex(1 << 10);
    let (client, client_in, client_work) = start(near, Role::Client);
    let (server, server_in, server_work) = start(far, Role::Server);
    tokio::spawn(client_work);
    tokio::spawn(server_work);
    ((client, client_in), (server, server_in))
}

async fn opened(client: &Session, incoming: &mut Incoming, kind: &str) -> (Stream, Stream) {
    let headers = Headers::new().with("streamType", kind);
    let (near, far) = tokio::join!(client.open(headers), async {
        let offer = incoming.next().await.unwrap();
        assert_eq!(offer.headers().get("streamtype"), kind);
        offer.accept().await
    });
    (near.unwrap(), far.unwrap())
}

#[tokio::test]
async fn bytes_pass_both_ways_and_halves_close_alone() {
    let ((client, _), (_server, mut incoming)) = pair();
    let (mut near, mut far) = opened(&client, &mut incoming, "data").await;
    assert_eq!((near.id, far.id), (1, 1));
    near.writer.write_all(b"question").await.unwrap();
    near.writer.shutdown().await.unwrap();
    let mut text = String::new();
    far.reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    far.writer.write_all(b"answer").await.unwrap();
    far.writer.shutdown().await.unwrap();
    text.clear();
    near.reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test]
async fn much_passes_through_small_windows() {
    const BYTES: usize = 3 << 20;
    let ((client, _), (_server, mut incoming)) = pair();
    let (near, far) = opened(&client, &mut incoming, "data").await;
    let (mut writer, mut reader) = (near.writer, far.reader);
    let sent = async {
        writer.write_all(&vec![7; BYTES]).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let read = async {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        all
    };
    let ((), all) = tokio::join!(sent, read);
    assert_eq!(all.len(), BYTES);
    assert!(all.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_refused_stream_is_an_error_and_others_go_on() {
    let ((client, _), (_server, mut incoming)) = pair();
    let (refused, ()) = tokio::join!(client.open(Headers::new()), async {
        drop(incoming.next().await.unwrap());
    });
    assert!(matches!(refused, Err(SpdyError::Reset)));
    let (mut near, mut far) = opened(&client, &mut incoming, "data").await;
    far.writer.write_all(b"still here").await.unwrap();
    far.writer.shutdown().await.unwrap();
    let mut text = String::new();
    near.reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "still here");
}

#[tokio::test]
async fn a_dropped_stream_is_reset_for_the_peer() {
    let ((client, _), (_server, mut incoming)) = pair();
    let (near, mut far) = opened(&client, &mut incoming, "data").await;
    drop(near);
    let read = far.reader.read(&mut [0; 8]).await;
    assert_eq!(
        read.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    let written = far.writer.write(b"x").await;
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn what_nobody_reads_holds_up_nobody() {
    let ((client, _), (_server, mut incoming)) = pair();
    let (mut near, far) = opened(&client, &mut incoming, "stdin").await;
    drop(far.reader);
    near.writer.write_all(&vec![1; 2 << 20]).await.unwrap();
    let (mut other, mut end) = opened(&client, &mut incoming, "data").await;
    other.writer.write_all(b"x").await.unwrap();
    assert_eq!(end.reader.read_u8().await.unwrap(), b'x');
    drop(far.writer);
}

#[tokio::test]
async fn everything_ends_with_the_connection() {
    let (near, far) = duplex(1 << 10);
    let (client, _client_in, client_work) = start(near, Role::Client);
    let (server, mut incoming, server_work) = start(far, Role::Server);
    let client_task = tokio::spawn(client_work);
    let server_task = tokio::spawn(server_work);
    let (mut near, _far) = opened(&client, &mut incoming, "data").await;
    server.close().await;
    server_task.abort();
    client_task.await.unwrap().unwrap();
    assert!(near.reader.read(&mut [0; 8]).await.is_err());
    assert!(near.writer.write(b"x").await.is_err());
    let again = client.open(Headers::new()).await;
    assert!(matches!(again, Err(SpdyError::Closed | SpdyError::Reset)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_comes_after_the_reply_it_follows() {
    let ((client, _), (_server, mut incoming)) = pair();
    let takes = tokio::spawn(async move {
        while let Some(offer) = incoming.next().await {
            drop(offer.accept().await);
        }
    });
    for number in 0..500 {
        let opened = client.open(Headers::new()).await;
        assert!(opened.is_ok(), "stream {number}: {opened:?}");
    }
    takes.abort();
}
