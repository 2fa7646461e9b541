//! One question and its answer on the wire.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{Edns, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use crate::answer::{Answer, Outcome, Zone, answer};
use crate::forward::Forwarder;
use crate::records::Cached;

/// How long a question waits for the caches after a start.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest datagram that passes any network unfragmented.
const PAYLOAD_MAX: u16 = 1232;

/// Answers questions.
pub(crate) struct Handler {
    zone: Zone,
    records: Cached,
    forwarder: Forwarder,
    /// Answers so far: each starts its addresses at another one.
    turn: AtomicUsize,
}

/// What goes out.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
    additional: Vec<Record>,
}

impl Reply {
    fn failed(code: ResponseCode) -> Reply {
        Reply {
            code,
            authoritative: false,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }
}

impl Handler {
    pub(crate) fn new(zone: Zone, records: Cached, forwarder: Forwarder) -> Handler {
        Handler {
            zone,
            records,
            forwarder,
            turn: AtomicUsize::new(0),
        }
    }

    async fn reply(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query {
            return Reply::failed(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else {
            return Reply::failed(ResponseCode::FormErr);
        };
        let query = info.query.original();
        if query.query_class() != DNSClass::IN {
            return Reply::failed(ResponseCode::Refused);
        }
        if tokio::time::timeout(PATIENCE, self.records.synced())
            .await
            .is_err()
        {
            return Reply::failed(ResponseCode::ServFail);
        }
        let kind = query.query_type();
        match answer(&self.zone, &self.records, query.name(), kind) {
            Outcome::Ours(answer) => self.ours(answer, kind).await,
            Outcome::Foreign => {
                let forwarded = self.forwarder.ask(query.name(), kind).await;
                Reply {
                    code: forwarded.code,
                    authoritative: false,
                    answers: forwarded.answers,
                    authority: forwarded.authority,
                    additional: Vec::new(),
                }
            }
        }
    }

    /// Follows an alias out of the cluster and varies the order of addresses.
    async fn ours(&self, mut answer: Answer, kind: RecordType) -> Reply {
        if let Some(name) = answer.follow.take()
            && self.forwarder.is_available()
        {
            // Without an answer from there the alias alone is the answer.
            answer
                .answers
                .extend(self.forwarder.ask(&name, kind).await.answers);
        }
        let is_address =
            |record: &Record| matches!(record.record_type(), RecordType::A | RecordType::AAAA);
        let first = answer.answers.iter().position(is_address);
        if let Some(addresses) = first.and_then(|first| answer.answers.get_mut(first..)) {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            addresses.rotate_left(turn % addresses.len().max(1));
        }
        Reply {
            code: answer.code,
            authoritative: true,
            answers: answer.answers,
            authority: answer.authority,
            additional: answer.additional,
        }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = self.forwarder.is_available();
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, PAYLOAD_MAX));
            edns.set_version(0);
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let response = builder.build(
            metadata,
            &reply.answers,
            &reply.authority,
            [],
            &reply.additional,
        );
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "answer not sent");
                let counts = Default::default();
                hickory_proto::op::Header { metadata, counts }.into()
            }
        }
    }
}
