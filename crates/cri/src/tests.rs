//! The services as a client sees them: a real socket, gRPC frames by hand.

mod fake;
mod remote;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use node_api::{ContainerEvent, ContainerEventKind};
use prost::Message;
use tokio::net::UnixStream;

use super::*;
use fake::{CONTAINER, Fake, SANDBOX};

struct Server {
    _folder: tempfile::TempDir,
    runtime: Arc<Fake>,
    crew: Crew,
    client: SendRequest<Full<Bytes>>,
}

impl Server {
    async fn new() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            socket: folder.path().join("run/cri.sock"),
            streaming: "127.0.0.1:0".parse().unwrap(),
            state: folder.path().to_owned(),
        };
        let (runtime, crew) = (Arc::new(Fake::default()), Crew::new());
        let parts = Parts {
            runtime: runtime.clone(),
            images: runtime.clone(),
        };
        serve(parts.clone(), config.clone(), &crew).await.unwrap();
        let second = serve(parts, config.clone(), &crew).await;
        assert!(matches!(second, Err(ServeError::Socket(_))));
        let socket = UnixStream::connect(&config.socket).await.unwrap();
        let io = TokioIo::new(socket);
        let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tokio::spawn(connection);
        Server {
            _folder: folder,
            runtime,
            crew,
            client,
        }
    }

    /// Begins a call.
    async fn call(
        &self,
        method: &str,
        message: &impl Message,
    ) -> hyper::Response<hyper::body::Incoming> {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(message.encoded_len() as u32);
        message.encode(&mut frame).unwrap();
        let request = Request::post(format!("http://localhost/runtime.v1.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame.freeze()))
            .unwrap();
        self.client.clone().send_request(request).await.unwrap()
    }

    /// A whole call: its messages, or its code and words.
    async fn ask<M: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<Vec<M>, (String, String)> {
        let response = self.call(method, message).await;
        let head = response.headers().clone();
        let body = response.into_body().collect().await.unwrap();
        let tail = body.trailers().cloned().unwrap_or_default();
        let said = |name: &str| {
            let value = tail.get(name).or(head.get(name));
            value.map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
        };
        if said("grpc-status") != "0" {
            return Err((said("grpc-status"), said("grpc-message")));
        }
        let (mut bytes, mut messages) = (body.to_bytes(), Vec::new());
        while bytes.has_remaining() {
            assert_eq!(bytes.get_u8(), 0);
            let length = bytes.get_u32() as usize;
            messages.push(M::decode(bytes.split_to(length)).unwrap());
        }
        Ok(messages)
    }

    async fn one<M: Message + Default>(&self, method: &str, message: &impl Message) -> M {
        let mut messages = self.ask(method, message).await.unwrap();
        assert_eq!(messages.len(), 1);
        messages.remove(0)
    }

    async fn close(self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
    }
}

fn named(id: &str) -> wire::Named {
    wire::Named {
        id: id.to_owned(),
        verbose: true,
    }
}

#[tokio::test]
async fn calls_are_answered_or_refused() {
    let server = Server::new().await;
    let version: wire::VersionResponse = server.one("RuntimeService/Version", &()).await;
    assert_eq!(version.runtime_name, "fake");
    let status: wire::StatusResponse = server.one("RuntimeService/Status", &()).await;
    let conditions = status.status.unwrap().conditions;
    assert!(conditions.iter().all(|condition| !condition.status));
    assert_eq!(conditions[1].message, "no network yet");

    let found: wire::PodSandboxStatusResponse = server
        .one("RuntimeService/PodSandboxStatus", &named(SANDBOX))
        .await;
    assert!(found.info.contains_key("info"));
    let network = found.status.unwrap().network.unwrap();
    assert_eq!(network.ip, "10.0.0.9");
    assert_eq!(network.additional_ips[0].ip, "fd00::9");
    // The beginning of an id will do.
    let found: wire::ContainerStatusResponse = server
        .one("RuntimeService/ContainerStatus", &named("c"))
        .await;
    let container = found.status.unwrap();
    assert_eq!(
        (container.id.as_str(), container.stop_signal),
        (CONTAINER, 23)
    );
    assert_eq!(container.image_ref, "web@sha256:2");

    let none = named("none");
    let refused = server.ask::<()>("RuntimeService/StartContainer", &none);
    assert_eq!(refused.await.unwrap_err().0, "5");
    let refused = server.ask::<()>("RuntimeService/RunPodSandbox", &());
    let (code, words) = refused.await.unwrap_err();
    assert_eq!(code, "3");
    assert!(words.contains("config"), "{words}");
    for unknown in ["RuntimeService/CheckpointContainer", "Other/Version"] {
        assert_eq!(server.ask::<()>(unknown, &()).await.unwrap_err().0, "12");
    }
    server.close().await;
}

#[tokio::test]
async fn lists_come_whole_or_in_parts() {
    let server = Server::new().await;
    let filter = |label: &str| wire::ListPodSandboxRequest {
        filter: Some(wire::PodSandboxFilter {
            label_selector: [("app".to_owned(), label.to_owned())].into(),
            ..wire::PodSandboxFilter::default()
        }),
    };
    let list: wire::ListPodSandboxResponse = server
        .one("RuntimeService/ListPodSandbox", &filter("web"))
        .await;
    assert_eq!(list.items[0].id, SANDBOX);
    let list: wire::ListPodSandboxResponse = server
        .one("RuntimeService/ListPodSandbox", &filter("other"))
        .await;
    assert!(list.items.is_empty());
    let stream = "RuntimeService/StreamPodSandboxes";
    let parts: Vec<wire::ListPodSandboxResponse> =
        server.ask(stream, &filter("web")).await.unwrap();
    assert_eq!(parts.len(), 1);
    let parts: Vec<wire::ListPodSandboxResponse> =
        server.ask(stream, &filter("other")).await.unwrap();
    assert!(parts.is_empty());
    let list: wire::ListContainerStatsResponse =
        server.one("RuntimeService/ListContainerStats", &()).await;
    let cpu = list.stats[0].cpu.as_ref().unwrap();
    assert_eq!(cpu.usage_core_nano_seconds.unwrap().value, 7);
    assert_eq!(cpu.psi, None);
    let waits = list.stats[0].io.as_ref().and_then(|io| io.psi.clone());
    let some = waits.unwrap().some.unwrap();
    assert_eq!((some.total, some.avg10, some.avg60), (9, 1.5, 0.25));
    let list: wire::ListPodSandboxMetricsResponse = server
        .one("RuntimeService/ListPodSandboxMetrics", &())
        .await;
    assert_eq!(list.pod_metrics[0].pod_sandbox_id, SANDBOX);
    server.close().await;
}

#[tokio::test]
async fn a_container_is_made_of_what_was_asked() {
    let server = Server::new().await;
    let request = |image: &str| wire::CreateContainerRequest {
        pod_sandbox_id: SANDBOX.to_owned(),
        config: Some(wire::ContainerConfig {
            metadata: Some(wire::ContainerMetadata {
                name: "web".to_owned(),
                attempt: 0,
            }),
            image: Some(wire::ImageSpec {
                image: image.to_owned(),
                ..wire::ImageSpec::default()
            }),
            ..wire::ContainerConfig::default()
        }),
        sandbox_config: None,
    };
    let method = "RuntimeService/CreateContainer";
    let made: wire::Identifier = server.one(method, &request("web")).await;
    assert_eq!(made.id, "made web of sha256:1");
    let refused = server.ask::<()>(method, &request("none")).await;
    assert_eq!(refused.unwrap_err().0, "5");
    let done: wire::ExecSyncResponse = server
        .one(
            "RuntimeService/ExecSync",
            &wire::ExecSyncRequest {
                container_id: CONTAINER.to_owned(),
                cmd: vec!["say".to_owned(), "it".to_owned()],
                timeout: 1,
            },
        )
        .await;
    assert_eq!(
        (done.stdout.as_slice(), done.exit_code),
        (&b"say it"[..], 3)
    );
    server.close().await;
}

#[tokio::test]
async fn events_are_sent_as_they_come() {
    let server = Server::new().await;
    let response = server.call("RuntimeService/GetContainerEvents", &()).await;
    let event = ContainerEvent {
        sandbox_id: SANDBOX.to_owned(),
        container_id: CONTAINER.to_owned(),
        pod_uid: String::new(),
        kind: ContainerEventKind::Stopped,
    };
    let listener = server.runtime.listeners.lock().pop().unwrap();
    listener.send(event).await.unwrap();
    let mut body = response.into_body();
    let mut frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    frame.advance(5);
    let event = wire::ContainerEventResponse::decode(frame).unwrap();
    assert_eq!(
        event.container_event_type(),
        wire::ContainerEventType::Stopped
    );
    assert_eq!(event.containers_statuses[0].id, CONTAINER);
    server.close().await;
}

#[tokio::test]
async fn a_pull_ends_with_its_caller() {
    let server = Server::new().await;
    let request = wire::PullImageRequest {
        image: Some(wire::ImageSpec {
            image: "web".to_owned(),
            ..wire::ImageSpec::default()
        }),
        ..wire::PullImageRequest::default()
    };
    let pulls = Arc::clone(&server.runtime.pulls);
    {
        let pull = server.call("ImageService/PullImage", &request);
        tokio::select! {
            _ = pull => panic!("it never ends"),
            () = pulls.0.notified() => {}
        }
    }
    let given_up = pulls.1.notified();
    tokio::time::timeout(std::time::Duration::from_secs(20), given_up)
        .await
        .expect("the pull ends with its caller");
    server.close().await;
}

#[tokio::test]
async fn streams_are_given_for_running_containers() {
    let server = Server::new().await;
    let request = |container: &str, tty| wire::ExecRequest {
        container_id: container.to_owned(),
        cmd: vec!["sh".to_owned()],
        tty,
        stdin: false,
        stdout: true,
        stderr: true,
    };
    let method = "RuntimeService/Exec";
    let answer: wire::Identifier = server.one(method, &request(CONTAINER, false)).await;
    assert!(answer.id.starts_with("http://127.0.0.1:"), "{}", answer.id);
    for (wrong, code) in [
        (request(CONTAINER, true), "3"),
        (request("none", false), "5"),
    ] {
        assert_eq!(server.ask::<()>(method, &wrong).await.unwrap_err().0, code);
    }
    server.close().await;
}
