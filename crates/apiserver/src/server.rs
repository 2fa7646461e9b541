//! The API server as a value: one service, called in process or by the listener.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use auth::token::Bearer;
use auth::{Authenticator, Authorizer, Decision, Identity, TokenSigner};
use client::{Body, Client};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::ACCEPT;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use meta::{Reason, Status};
use store::Store;

use crate::allocate::Allocations;
use crate::cache::Feed;
use crate::chain::accept::{Media, Offer, Shape};
use crate::chain::audited::{self, AUDIT_ID};
use crate::chain::inflight::Inflight;
use crate::chain::{Accept, Call, Connection, Query, RequestInfo, flow, impersonate};
use crate::config::Config;
use crate::listen::Lane;
use crate::lookup::Lookup;
use crate::measure;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::respond::{self, Answer};

/// Everything requests share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) impersonation: impersonate::Impersonation,
    pub(crate) signer: Arc<TokenSigner>,
    pub(crate) lookup: Lookup,
    pub(crate) admission: admission::Chain,
    pub(crate) policies: Arc<admission::Policies>,
    /// The clients of all webhooks of this server.
    pub(crate) webhooks: Arc<webhook::Webhooks>,
    pub(crate) hooks: crate::webhooks::Hooks,
    pub(crate) allocations: Allocations,
    pub(crate) event_leases: crate::keep::EventLeases,
    pub(crate) inflight: Inflight,
    pub(crate) fairness: Arc<fairness::Fairness>,
    pub(crate) metrics: Metrics,
    pub(crate) reloads: crate::reload::Reloads,
    pub(crate) documents: crate::openapi::Documents,
    pub(crate) dialer: crate::stream::Dialer,
    pub(crate) aggregate: crate::aggregate::Aggregate,
    pub(crate) stop: base::Stop,
    /// When this server was built.
    pub(crate) begun: jiff::Timestamp,
    /// The store has forgotten what was before this revision.
    pub(crate) compacted: Arc<AtomicI64>,
    /// Whether the objects that every cluster has are there.
    pub(crate) started: AtomicBool,
}

/// The API server. Clones are cheap and share everything.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) core: Arc<Core>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").finish_non_exhaustive()
    }
}

impl ApiServer {
    /// A client in this process with the given identity; it passes the same chain as any other.
    pub fn client(&self, identity: Identity) -> Client {
        Client::local(self.clone(), identity)
    }

    /// Whether the objects that every cluster has are there, and caches are filled.
    pub fn is_ready(&self) -> bool {
        self.core.started.load(Ordering::Acquire)
    }
}

impl tower::Service<Request<Body>> for ApiServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let core = Arc::clone(&self.core);
        Box::pin(async move {
            let answer = AssertUnwindSafe(guarded(core, request))
                .catch_unwind()
                .await;
            Ok(answer.unwrap_or_else(|_| {
                tracing::error!("a request panicked");
                respond::failure(&Status::internal("this request caused a panic"))
            }))
        })
    }
}

async fn guarded(core: Arc<Core>, request: Request<Body>) -> Answer {
    let begun = Instant::now();
    let (mut parts, body) = request.into_parts();
    let remote = parts.extensions.get::<Connection>().is_some();
    let named =
        (remote || core.config.audit.is_some()).then(|| audited::identify(&mut parts.headers));
    let call = match prepare(&core, &mut parts).await {
        Ok(call) => call,
        Err(status) => {
            let mut answer = respond::failure_for(&parts.headers, &status);
            answer.headers_mut().extend(named.map(|id| (AUDIT_ID, id)));
            return answer;
        }
    };
    let arrived = Instant::now();
    let seat = flow::enter(&core, &call).await;
    call.note_wait(arrived.elapsed());
    if let Some(lane) = parts.extensions.remove::<Lane>() {
        let exempt = matches!(&seat, Ok(Some(seat)) if seat.is_exempt());
        lane.works_for((!exempt).then_some(&call.user.name));
    }
    let outcome = match &seat {
        Ok(_) => serve(&core, &call, parts, body).await,
        Err(_) => Err(flow::too_many()),
    };
    let (outcome, answer) = match outcome {
        Ok(answer) => (Ok(()), answer),
        Err(status) => {
            let answer = match seat {
                Ok(_) => respond::failure_for(&call.headers, &status),
                Err(_) => flow::refusal(&status),
            };
            (Err(status), answer)
        }
    };
    let mut answer = audited::note_answer(&call, &outcome, answer).await;
    match &seat {
        Ok(Some(seat)) => flow::mark(&mut answer, seat.schema_uid(), seat.level_uid()),
        Ok(None) => {}
        Err(refused) => flow::mark(&mut answer, &refused.schema_uid, &refused.level_uid),
    }
    answer.headers_mut().extend(named.map(|id| (AUDIT_ID, id)));
    respond::add_warnings(&mut answer, call.take_warnings());
    core.metrics.count(&call, &answer, begun.elapsed());
    answer
}

/// From bytes to an authenticated call.
async fn prepare(core: &Arc<Core>, parts: &mut Parts) -> Result<Call, Status> {
    let query = Query::parse(parts.uri.query().unwrap_or(""))?;
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query)?;
    let bearer = authenticate(core, parts).await;
    let known = bearer.as_ref().ok().map(|bearer| &bearer.identity);
    let record = audited::begin(core, parts, &info, known);
    if record.as_ref().is_some_and(|record| record.is_lost()) {
        return Err(Status::internal("failed to store audit event"));
    }
    let bearer = audited::noted(record.as_ref(), bearer)?;
    let user = bearer.identity;
    let user = match impersonate::is_asked_for(&parts.headers) {
        true => {
            let (authorizer, asked) = (&core.authorizer, info.attributes());
            let judged = core
                .impersonation
                .judge(authorizer, &user, &parts.headers, &asked)
                .await;
            match audited::noted(record.as_ref(), judged)? {
                Some(found) => audited::impersonated(record.as_ref(), found),
                None => user,
            }
        }
        false => user,
    };
    let accept = negotiate(core, &info, &query, &parts.headers);
    let accept = audited::noted(record.as_ref(), accept)?;
    let accept = audited::readable(record.as_ref(), accept, &query, &parts.headers);
    let headers = std::mem::take(&mut parts.headers);
    let mut call = Call::new(info, query, accept, user, headers);
    call.audit = record;
    call.answers = core.authorizer.asks_webhooks().then(Arc::default);
    if let Some(warning) = bearer.warning {
        call.warn(warning);
    }
    Ok(call)
}

/// Routes of built-in resources know what they produce; custom ones have none of their own.
fn refused_by_router(core: &Core, info: &RequestInfo, headers: &HeaderMap) -> Option<Status> {
    let produced: &[&str] = match info.verb {
        "list" | "watch" => &Offer::PRODUCED_OF_MANY,
        _ => &Offer::PRODUCED,
    };
    let refused = Accept::refused_by_router(headers, produced)?;
    let resources = core.registry.now();
    let found = resources.find(&info.group, &info.version, &info.resource);
    let built_in = match found {
        Some(resource) => !resource.custom,
        None => crate::subresource::is_rootless(info),
    };
    built_in.then_some(refused)
}

/// Only objects are negotiated; pages such as /metrics and streams are what they are.
fn negotiate(
    core: &Core,
    info: &RequestInfo,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Accept, Status> {
    let stream = info.verb == "watch";
    if !info.is_resource || (info.is_long_running() && !stream) {
        let plain = Accept::read(headers, query, Offer::PLAIN);
        return Ok(plain.unwrap_or_else(|_| Accept::usual(headers, query)));
    }
    let mut offer = Offer {
        protobuf: true,
        shapes: true,
        tables: true,
        groups: false,
        stream,
    };
    if headers.contains_key(ACCEPT)
        && let Some(refused) = refused_by_router(core, info, headers)
    {
        return Err(refused);
    }
    let accept = Accept::read(headers, query, offer)?;
    if accept.media != Media::Protobuf && accept.shape == Shape::Object {
        return Ok(accept);
    }
    let resources = core.registry.now();
    if let Some(resource) = resources.find(&info.group, &info.version, &info.resource) {
        offer.protobuf = resource.protobuf().is_some();
        // Questions have no columns, nor have some subresources.
        const PLAIN: [&str; 6] = [
            "approval",
            "binding",
            "ephemeralcontainers",
            "eviction",
            "resize",
            "token",
        ];
        let is_plain = PLAIN.contains(&info.subresource.as_str());
        let is_question = resource.row.verbs == kinds::Verbs::CreateOnly;
        offer.tables = !is_question && !is_plain;
    } else if crate::subresource::is_rootless(info) {
        offer.tables = false;
    }
    match offer.protobuf && offer.tables {
        true => Ok(accept),
        false => Accept::read(headers, query, offer),
    }
}

async fn authenticate(core: &Arc<Core>, parts: &mut Parts) -> Result<Bearer, Status> {
    match parts.extensions.remove::<Connection>() {
        // From the listener: whatever else the extensions hold did not come from us.
        Some(Connection(peer)) => {
            let (headers, path) = (&parts.headers, parts.uri.path());
            let begun = Instant::now();
            let found = core
                .authenticator
                .authenticate(&peer, headers, path, &core.lookup);
            let found = found.await;
            let name = found.as_ref().ok().map(|own| own.identity.name.as_str());
            measure::authenticated(name, begun.elapsed());
            let bearer = found?;
            core.authenticator.strip(&mut parts.headers);
            crate::reviews::record_use(core, &bearer).await;
            Ok(bearer)
        }
        None => {
            let local = parts.extensions.remove::<Identity>();
            let local = local.ok_or_else(auth::authenticator::unauthorized)?;
            Ok(local.into())
        }
    }
}

/// 403 unless the user may; the audit trail learns why.
async fn authorize(core: &Core, call: &Call) -> Result<(), Status> {
    let asked = call.info.attributes();
    let begun = Instant::now();
    let decision = core.authorizer.decide(&call.user, &asked).await;
    measure::authorized(&decision, begun.elapsed());
    let (word, reason, outcome) = match decision {
        Decision::Allow(_) if call.audit.is_none() => return Ok(()),
        Decision::Allow(reason) => ("allow", reason, Ok(())),
        Decision::NoOpinion(reason) | Decision::Deny(reason) => {
            let refused = auth::forbidden(&call.user, &asked, &reason);
            ("forbid", reason, Err(refused))
        }
    };
    call.annotate("authorization.k8s.io/decision", word);
    call.annotate("authorization.k8s.io/reason", reason);
    outcome
}

async fn serve(core: &Arc<Core>, call: &Call, parts: Parts, body: Body) -> Result<Answer, Status> {
    authorize(core, call).await?;
    let _counted = core.inflight.enter(&call.info);
    let body = audited::note_body(call, body).await?;
    let work = crate::dispatch::dispatch(core, call, parts, body);
    if call.info.is_long_running() {
        return work.await;
    }
    let timeout = core.config.request_timeout;
    let served = tokio::time::timeout(timeout, work).await;
    served.unwrap_or_else(|_| {
        let message = "Timeout: request did not complete within the allotted timeout";
        Err(Status::new(Reason::Timeout, message))
    })
}
