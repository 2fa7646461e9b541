//! What an admission webhook adds to a create: a webhook of our own, over TLS, that allows all.

use std::convert::Infallible;
use std::time::Instant;

use anyhow::{Context, Result};
use base64::Engine;
use client::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::compare::{Better, Comparison, Goal};
use super::load::{self, Ask};
use super::side::Side;
use super::{Stage, split};
use crate::table::percentile;

const CREATES: usize = 300;
/// Before these, connections are made and code is warm.
const WARM: usize = 30;
const PLAIN: &str = "bench-plain";
const HOOKED: &str = "bench-hooked";
const CONFIGURATIONS: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// Creates in a namespace that the webhook is asked about, and in one that it is not, in turn.
pub(super) async fn measure(stage: &mut Stage) -> Result<()> {
    let results = stage.each(async |side| {
        let (port, serving) = serve(side.pki()).await?;
        let measured = compare(side, port).await;
        serving.abort();
        measured
    });
    let ((plain, hooked), theirs) = split(results.await?)?;
    let theirs = theirs.map(|(plain, hooked)| hooked - plain);
    let note = format!(
        "p50 of {CREATES} creates {plain:.2} ms without, {hooked:.2} ms with; a webhook that allows all, over TLS"
    );
    let name = "what a webhook adds to a create";
    let figure = Comparison::new(name, "ms", Better::Less, hooked - plain, theirs);
    stage.found.push(figure.goal(Goal::AtMost(1.0)).note(note));
    Ok(())
}

async fn compare(side: &Side, port: u16) -> Result<(f64, f64)> {
    let client = side.client()?;
    load::namespace(&client, PLAIN).await?;
    load::namespace(&client, HOOKED).await?;
    let bundle = base64::engine::general_purpose::STANDARD.encode(side.pki().ca_pem());
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "bench"},
        "webhooks": [{
            "name": "allow.bench.sampan.dev",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {"bench": HOOKED}},
            "clientConfig": {"url": format!("https://localhost:{port}/"), "caBundle": bundle},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["configmaps"]}],
        }],
    });
    Ask::post(CONFIGURATIONS, &configuration)
        .send(&client)
        .await?;
    let (mut plain, mut hooked) = (Vec::new(), Vec::new());
    for at in 0..WARM + CREATES {
        for (namespace, times) in [(PLAIN, &mut plain), (HOOKED, &mut hooked)] {
            let ask = load::make_config_map(&load::config_maps(namespace), &format!("hook-{at}"));
            let begin = Instant::now();
            ask.send(&client).await?;
            if at >= WARM {
                times.push(begin.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    client
        .delete_value(&format!("{CONFIGURATIONS}/bench"), None)
        .await?;
    plain.sort_by(f64::total_cmp);
    hooked.sort_by(f64::total_cmp);
    Ok((percentile(&plain, 0.5), percentile(&hooked, 0.5)))
}

/// Serves the webhook on a port of its own until the task is aborted.
async fn serve(pki: &auth::Pki) -> Result<(u16, tokio::task::JoinHandle<()>)> {
    let pair = pki.issue_serving("hook", &[], &["localhost".into()])?;
    let tls = auth::tls::server_config_of(&pair, pki.ca_pem())?;
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    let listener = TcpListener::bind("127.0.0.1:0").await.context("webhook")?;
    let port = listener.local_addr()?.port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if stream.set_nodelay(true).is_err() {
                    return;
                }
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let service = hyper::service::service_fn(allow);
                // It ends when the other side is done with it.
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    Ok((port, serving))
}

async fn allow(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "response": {"uid": review["request"]["uid"], "allowed": true}});
    let mut response = Response::new(client::full(answer.to_string()));
    let media_type = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", media_type);
    Ok(response)
}
