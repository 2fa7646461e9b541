//! The file that tells kubectl where the cluster is and who we are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::certificate::Pair;

/// The context, cluster and user name that a fresh kubeconfig uses.
pub const DEFAULT_NAME: &str = "sampan";

/// A kubeconfig with one cluster, one user and one context, all called `name`.
/// The certificates are embedded, so the file can be copied to another machine.
pub fn kubeconfig(server_url: &str, ca_pem: &str, client: &Pair, name: &str) -> String {
    let encoded = |text: &str| STANDARD.encode(text);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (server, name) = (quoted(server_url), quoted(name));
    let (ca, cert) = (encoded(ca_pem), encoded(&client.cert_pem));
    let key = encoded(&client.key_pem);
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {name}\n  \
           cluster:\n    \
             server: {server}\n    \
             certificate-authority-data: {ca}\n\
         users:\n\
         - name: {name}\n  \
           user:\n    \
             client-certificate-data: {cert}\n    \
             client-key-data: {key}\n\
         contexts:\n\
         - name: {name}\n  \
           context:\n    \
             cluster: {name}\n    \
             user: {name}\n\
         current-context: {name}\n\
         preferences: {{}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_everything() {
        let pair = Pair {
            cert_pem: "cert".into(),
            key_pem: "key".into(),
        };
        let text = kubeconfig("https://127.0.0.1:6443", "ca", &pair, DEFAULT_NAME);
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "    server: \"https://127.0.0.1:6443\"",
            "    certificate-authority-data: Y2E=",
            "    client-certificate-data: Y2VydA==",
            "    client-key-data: a2V5",
            "    cluster: \"sampan\"",
            "current-context: \"sampan\"",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
    }
}
