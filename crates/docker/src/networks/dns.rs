//! Names of containers for containers: a name server at 127.0.0.11 inside each that is on a user's
//! network. What it does not know it asks the machine's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use crate::daemon::{Container, Daemon};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
/// Questions of one container that wait for an answer from elsewhere.
const WAITING_MAX: usize = 64;
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(4);
/// Largest message by UDP.
const MESSAGE_MAX: usize = 4096;
/// How long an answer of ours may be remembered, in seconds.
const LIFE: u32 = 600;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const SERVER_FAILURE: u8 = 2;

impl Daemon {
    /// Starts the name server of a container, if it has a network with names.
    pub(crate) async fn start_resolver(&self, container: &Arc<Container>, netns: &Path) {
        let Some(daemon) = self.me.upgrade() else {
            return;
        };
        if !self.has_names(container) {
            return;
        }
        let bound = network::user::bind_inside(netns, SocketAddr::from((ADDRESS, PORT))).await;
        let socket = bound
            .map_err(|error| error.to_string())
            .and_then(|socket| UdpSocket::from_std(socket).map_err(|error| error.to_string()));
        match socket {
            Ok(socket) => {
                let id = container.id.clone();
                let task = tokio::spawn(serve(daemon, Arc::clone(container), Arc::new(socket)));
                let old = self
                    .networks
                    .resolvers
                    .lock()
                    .insert(id, task.abort_handle());
                if let Some(old) = old {
                    old.abort();
                }
            }
            Err(error) => {
                tracing::warn!(error, id = container.id, "no name server for a container")
            }
        }
    }

    /// Whether the container is on a user's network.
    pub(crate) fn has_names(&self, container: &Container) -> bool {
        let record = container.record.read();
        let mut names = record.networks.keys();
        names.any(|name| !super::BUILT_IN.contains(&name.as_str()))
    }

    pub(crate) fn stop_resolver(&self, id: &str) {
        if let Some(task) = self.networks.resolvers.lock().remove(id) {
            task.abort();
        }
    }

    /// Addresses of a name, as this container knows it; `None` when nobody here has it.
    fn resolve(&self, container: &Container, name: &str) -> Option<Vec<IpAddr>> {
        let mine: Vec<String> = {
            let record = container.record.read();
            let mut networks: Vec<String> = record.networks.keys().cloned().collect();
            networks.retain(|name| !super::BUILT_IN.contains(&name.as_str()));
            networks
        };
        let mut found = Vec::new();
        for other in self.all() {
            let record = other.record.read();
            for network in &mine {
                let Some(endpoint) = record.networks.get(network) else {
                    continue;
                };
                let plain = name.strip_suffix(&format!(".{network}")).unwrap_or(name);
                let mut names = endpoint.dns_names.iter().flatten();
                if names.any(|known| known.eq_ignore_ascii_case(plain)) {
                    found.extend(endpoint.ip_address.parse::<IpAddr>());
                    found.extend(endpoint.global_ipv6_address.parse::<IpAddr>());
                }
            }
        }
        (!found.is_empty()).then_some(found)
    }
}

async fn serve(daemon: Arc<Daemon>, container: Arc<Container>, socket: Arc<UdpSocket>) {
    let slots = Arc::new(Semaphore::new(WAITING_MAX));
    let mut message = vec![0; MESSAGE_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut message).await else {
            return;
        };
        let question = message[..length].to_vec();
        let Some(asked) = Question::parse(&question) else {
            continue;
        };
        if let Some(addresses) = daemon.resolve(&container, &asked.name) {
            let answer = asked.answer(&question, &addresses);
            // A datagram may always be lost.
            let _ = socket.send_to(&answer, from).await;
            continue;
        }
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            continue;
        };
        let servers = upstream(&container);
        let socket = Arc::clone(&socket);
        tokio::spawn(async move {
            let answer = match forward(&servers, &question).await {
                Some(answer) => answer,
                None => asked.refuse(&question),
            };
            let _ = socket.send_to(&answer, from).await;
            drop(slot);
        });
    }
}

/// Name servers of the user's choice, else the machine's.
fn upstream(container: &Container) -> Vec<SocketAddr> {
    let wished = container.record.read().host.dns.clone();
    let machine = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let of_machine = machine
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .map(|rest| rest.trim().to_owned());
    let all: Vec<String> = match wished.is_empty() {
        true => of_machine.collect(),
        false => wished,
    };
    let parsed = all.iter().filter_map(|text| text.parse().ok());
    parsed
        .map(|ip: IpAddr| SocketAddr::from((ip, PORT)))
        .collect()
}

async fn forward(servers: &[SocketAddr], question: &[u8]) -> Option<Vec<u8>> {
    for server in servers {
        let local = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let asking = async {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            socket.send(question).await?;
            let mut answer = vec![0; MESSAGE_MAX];
            loop {
                let length = socket.recv(&mut answer).await?;
                // Only the answer to this very question.
                if length >= 12 && answer[..2] == question[..2] {
                    answer.truncate(length);
                    return Ok::<Vec<u8>, std::io::Error>(answer);
                }
            }
        };
        if let Ok(Ok(answer)) = tokio::time::timeout(UPSTREAM_TIMEOUT, asking).await {
            return Some(answer);
        }
    }
    None
}

/// The one question of a message.
struct Question {
    name: String,
    kind: u16,
    /// Where it ends in the message.
    end: usize,
}

impl Question {
    fn parse(message: &[u8]) -> Option<Question> {
        let (head, _) = message.split_first_chunk::<12>()?;
        // A standard query with one question.
        if head[2] & 0xf8 != 0 || head[4..6] != [0, 1] {
            return None;
        }
        let (mut at, mut labels) = (12, Vec::new());
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            if length > 63 || labels.len() > 127 {
                return None;
            }
            let label = message.get(at..at + length)?;
            labels.push(String::from_utf8_lossy(label).into_owned());
            at += length;
        }
        let rest = message.get(at..at + 4)?;
        Some(Question {
            name: labels.join("."),
            kind: u16::from_be_bytes([rest[0], rest[1]]),
            end: at + 4,
        })
    }

    fn head(&self, message: &[u8], code: u8, answers: u16) -> Vec<u8> {
        let mut out = message[..self.end].to_vec();
        // An answer; recursion as asked for and available.
        out[2] = 0x80 | message[2] & 0x01;
        out[3] = 0x80 | code;
        out[6..8].copy_from_slice(&answers.to_be_bytes());
        out[8..12].fill(0);
        out
    }

    /// A name that is there but has nothing of the kind that is asked for has an empty answer.
    fn answer(&self, message: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
        let data = |address: &IpAddr| match (address, self.kind) {
            (IpAddr::V4(address), TYPE_A) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), TYPE_AAAA) => Some(address.octets().to_vec()),
            _ => None,
        };
        let found: Vec<Vec<u8>> = addresses.iter().filter_map(data).collect();
        let count = u16::try_from(found.len()).unwrap_or(u16::MAX);
        let mut out = self.head(message, 0, count);
        for data in found {
            out.extend_from_slice(&[0xc0, 12]);
            out.extend_from_slice(&self.kind.to_be_bytes());
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&LIFE.to_be_bytes());
            // Four or sixteen.
            out.extend_from_slice(&[0, data.len() as u8]);
            out.extend_from_slice(&data);
        }
        out
    }

    fn refuse(&self, message: &[u8]) -> Vec<u8> {
        self.head(message, SERVER_FAILURE, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_answers() {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(b"\x03web\x03net\0\0\x01\0\x01");
        let question = Question::parse(&message).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("web.net", TYPE_A));
        let both = ["172.18.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let answer = question.answer(&message, &both);
        assert_eq!(answer[..8], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(answer.ends_with(&[0, 4, 172, 18, 0, 2]));
        assert_eq!(question.refuse(&message)[3], 0x82);
        let end = message.len();
        message[end - 4..end - 2].copy_from_slice(&TYPE_AAAA.to_be_bytes());
        let question = Question::parse(&message).unwrap();
        let answer = question.answer(&message, &both);
        assert_eq!(answer[6..8], [0, 1]);
        assert!(answer.ends_with(&"fd00::2".parse::<Ipv6Addr>().unwrap().octets()));
        message[2] = 0x80;
        assert!(
            Question::parse(&message).is_none(),
            "an answer is no question"
        );
        assert!(Question::parse(&message[..14]).is_none());
    }
}
